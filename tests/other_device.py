"""A device that is none: it is called "meta", computes on the CPU, and refuses what a GPU refuses.

Tensors on it are wrappers around tensors on the CPU. An operation on such a one and on a plain tensor of the CPU raises
as on a GPU, but for what is allowed there: a copy, a number (a tensor without dimensions), and indices on the CPU. So a
tensor that was left on the CPU fails here, on a machine without a GPU, and all results are real.
"""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

NAME = "meta"
OPS = torch.ops.aten
COPIES = {OPS._to_copy.default, OPS.copy_.default}
INDEXED = {OPS.index.Tensor, OPS.index_put_.default, OPS.index_put.default, OPS._index_put_impl_.default}


class Wrapped(Tensor):
    """A tensor of the device; `inner` lies on the CPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor):
        wrapper = Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=NAME, requires_grad=False,
        )  # fmt: skip
        wrapper.inner = inner
        return wrapper

    def __repr__(self):  # a failed assertion prints it
        return f"Wrapped({self.inner})"

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        # Another tensor's data behind the same wrapper: torch itself swaps only what it says of itself.
        if function == Tensor.data.__set__:
            args[0].inner = args[1].inner
            return None
        if function == Tensor.data.__get__:
            return Wrapped(args[0].inner)
        with torch._C.DisableTorchFunctionSubclass():
            return function(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return compute(operation, args, kwargs or {})


class OtherDevice(TorchDispatchMode):
    """Inside, the device is there."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return compute(operation, args, kwargs or {})


def compute(operation, args, kwargs):
    """The operation on the CPU, its results on the device where its operands or its `device` are."""
    if operation is OPS._fused_sdp_choice.default:
        return 0  # attention in plain operations, as on any device that has no kernel of its own for it
    tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
    there = any(isinstance(tensor, Wrapped) for tensor in tensors)
    wanted = kwargs.get("device")
    if there and operation not in COPIES:
        refuse_strangers(operation, args, tensors)
    if operation in COPIES:
        there = isinstance(args[0], Wrapped) if wanted is None else torch.device(wanted).type == NAME
    elif wanted is not None:
        there = torch.device(wanted).type == NAME
        if there and kwargs.get("generator") is not None:
            raise RuntimeError("Expected a 'meta' device type for generator but found 'cpu'")
    if wanted is not None:
        kwargs = {**kwargs, "device": "cpu"}
    results = operation(*unwrap(args), **unwrap(kwargs))
    # What changes its operand in place returns that operand.
    if operation._schema.name.endswith("_") and operation._schema.returns and isinstance(args[0], Tensor):
        return args[0]
    return tree_map_only(Tensor, Wrapped, results) if there else results


def refuse_strangers(operation, args, tensors):
    allowed = {id(index) for index in args[1] if index is not None} if operation in INDEXED else set()
    for tensor in tensors:
        if not isinstance(tensor, Wrapped) and tensor.ndim and id(tensor) not in allowed:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found {NAME} and cpu! ({operation}, "
                f"{list(tensor.shape)})"
            )


def unwrap(values):
    return tree_map_only(Wrapped, lambda tensor: tensor.inner, values)
