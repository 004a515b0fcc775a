"""What torch holds on the device, how it says that there is no more, and what to do then: take less at once."""

import gc
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

# How torch, cuBLAS and cuDNN say it where they raise a plain RuntimeError. The libraries' handles and workspaces are
# made when they are first needed, so "not initialized" and "no engine" mean that there was no room for these.
FULL = (
    "out of memory", "can't allocate memory", "not enough memory", "cublas_status_alloc_failed",
    "cublas_status_not_initialized", "cudnn_status_alloc_failed", "cudnn_status_not_initialized",
    "cudnn_status_internal_error_device_allocation_failed", "unable to find an engine to execute",
    "unable to find a valid cudnn algorithm",
)  # fmt: skip


def free_memory() -> None:
    """Give back what a model or a failed step still holds on the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, on a GPU or on the CPU."""
    said = str(error).lower() if isinstance(error, RuntimeError) else ""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(phrase in said for phrase in FULL)


class Parts:
    """Work on the rows of a batch, in parts that fit: where memory runs out, half as many at once from then on."""

    def __init__(self, most: int | None = None):
        """most: rows at once; None for all."""
        self.most = most

    def run(self, work: Callable[[slice], Tensor], count: int) -> Tensor:
        """The results [n, …] of work(rows) for all `count` rows. Raises what it raises for a single row."""
        results: list[Tensor] = []
        done = 0
        while done < count:
            size = min(self.most or count, count - done)
            try:
                results.append(work(slice(done, done + size)))
                done += size
                continue
            except Exception as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
            # Here, and not above: the error holds on to all that the failed attempt had made.
            self.most = size // 2
            free_memory()
        return results[0] if len(results) == 1 else torch.cat(results)


class Offload(saved_tensors_hooks):
    """Inside, what is kept for a backward pass waits in main memory: slower, but the device needs room for one layer
    only. The model's own weights stay where they are."""

    def __init__(self, module: torch.nn.Module):
        own = {weight.untyped_storage().data_ptr() for weight in module.parameters()}

        def pack(tensor: Tensor) -> tuple[torch.device | None, Tensor]:
            if tensor.untyped_storage().data_ptr() in own:
                return None, tensor
            return tensor.device, tensor.to("cpu", copy=True)

        super().__init__(pack, lambda kept: kept[1] if kept[0] is None else kept[1].to(kept[0]))
