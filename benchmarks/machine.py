"""The machine that a measurement was made on."""

import torch

from crce.cost import machine


def describe_machine() -> str:
    """GPU if there is one, processor, number of threads and torch version."""
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    return f"{gpu}{machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
