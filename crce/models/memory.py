"""What torch holds on the device, and how it says that there is no more."""

import gc

import torch


def free_memory() -> None:
    """Give back what a model or a failed step still holds on the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, on a GPU or on the CPU, where torch raises a plain RuntimeError for it."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
