"""What a time depends on."""

import torch

from crce.cost import machine


def named() -> str:
    """The processor, the threads, the GPU if there is one, and torch."""
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    return f"{gpu}{machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
