"""What a time depends on."""

import torch

from crce.experiment import machine


def named() -> str:
    """The processor, the threads, and torch."""
    return f"{machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
