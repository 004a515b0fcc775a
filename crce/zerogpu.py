"""Runs on a Space with ZeroGPU, where a GPU is there only inside a decorated call and no process keeps one.

Imported only there (`environment.on_zero_gpu`), and first of all: `spaces` must come before torch looks for a GPU.
"""

from pathlib import Path

import spaces

from crce.runs.execute import execute
from crce.runs.models import Models
from crce.runs.run import Run

SECONDS = 60  # of the visitor's quota: an instant edit takes a few, a preset on the default model most of them


@spaces.GPU(duration=SECONDS)
def execute_run(folder: str) -> None:
    """Works on the run in this folder to its end. What does not fit the quota is stopped from outside; it can be
    resumed from its last checkpoint."""
    for _ in execute(Run(Path(folder)), Models("auto")):
        pass
