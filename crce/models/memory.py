"""What torch holds on the device, how it says that there is no more, and what to do then: take less at once."""

import copy
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

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


@contextmanager
def gradient_checkpointing(unet: Any) -> Iterator[None]:
    """Inside, a block of a diffusers U-Net keeps only its inputs, and is computed again in its backward pass."""
    unet.enable_gradient_checkpointing(_recompute_later)
    try:
        yield
    finally:
        unet.disable_gradient_checkpointing()


def _recompute_later(block: nn.Module, *inputs: Any) -> Tensor:
    """What the block gives. Computed again is a copy of it, with its tensors and hooks of now: in the backward pass the
    trained weights and adapters are no longer in the U-Net (`Diffusion.predict`, `StepContext.attached`)."""
    as_now = copy.deepcopy(block, {id(weight): weight for weight in block.parameters()})
    return checkpoint(as_now, *inputs, use_reentrant=False, preserve_rng_state=False)
