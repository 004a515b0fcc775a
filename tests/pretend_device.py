"""A device without a GPU: its tensors say that they are elsewhere, compute with real numbers on the CPU, and refuse, as
CUDA does, to be mixed with tensors of the CPU.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

NAME = "meta"  # the one device besides the CPU that autograd knows without a driver
aten = torch.ops.aten
COPIES = {aten._to_copy, aten.copy_}
INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}  # CUDA takes indices from the CPU


class Far(Tensor):
    """A tensor on the pretend device. near: its values, on the CPU."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> "Far":
        shape, stride, start = near.shape, near.stride(), near.storage_offset()
        far = Tensor._make_wrapper_subclass(cls, shape, stride, start, dtype=near.dtype, device=NAME)
        far.near = near
        return far

    def __init__(self, near: Tensor):
        """All is done in `__new__`."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is Tensor.data.__set__:  # torch replaces what it knows of a tensor, which the values are not
            args[0].near = args[1].near
        if func in (Tensor.__getitem__, Tensor.__setitem__):  # torch makes "meta" tensors of lists, without values
            args = args[0], change(args[1], list, torch.tensor), *args[2:]
        if func is Tensor.tolist:
            return args[0].near.tolist()
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return call(func, args, kwargs or {})


class PretendDevice(TorchDispatchMode):
    """Inside, "meta" is the pretend device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return call(func, args, kwargs or {})


def call(func: Any, args: tuple, kwargs: dict) -> Any:
    """What an operation gives, on the device that it asks for, else on the one where its tensors are. Raises
    RuntimeError if they are on both; a single value may be anywhere."""
    tensors = [*find_tensors((args, kwargs))]
    if any(tensor.device.type == NAME and not isinstance(tensor, Far) for tensor in tensors):
        raise RuntimeError(f"{func} was given a tensor without values, which torch made of Python's numbers by itself")
    is_far = any(isinstance(tensor, Far) for tensor in tensors)
    if is_far and func.overloadpacket not in COPIES:
        _check(func, tensors[:1] if func.overloadpacket in INDEXED else tensors)
    if (asked := kwargs.get("device")) is not None:
        is_far, kwargs = torch.device(asked).type == NAME, {**kwargs, "device": torch.device("cpu")}
    result = func(*change(args, Far, lambda far: far.near), **change(kwargs, Far, lambda far: far.near))
    if func._schema.is_mutable:
        return kwargs["out"] if "out" in kwargs else args[0]
    return change(result, Tensor, Far) if is_far else result


def _check(func: Any, tensors: list[Tensor]) -> None:
    for stray in (tensor for tensor in tensors if not isinstance(tensor, Far) and tensor.dim()):
        raise RuntimeError(f"{func} was given {list(stray.shape)} on the CPU, and other tensors on the device")


def find_tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from find_tensors(each)


def change(value: Any, kind: type, how: Callable[[Any], Any]) -> Any:
    """The same with every tensor of this kind changed."""
    if isinstance(value, kind):
        return how(value)
    if isinstance(value, dict):
        return {key: change(each, kind, how) for key, each in value.items()}
    return type(value)(change(each, kind, how) for each in value) if isinstance(value, list | tuple) else value
