"""When a run's state is written, and by whom: seldom where it is large, and beside the training on a GPU.

The state before the last is kept too. A file that the disk has damaged is noticed by its checksum and set aside.
"""

import json
import os
import time
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path

import torch

from crce import files
from crce.errors import CrceError
from crce.methods.erased_weights import ErasedWeights

# Bytes that are written whenever they are due. Larger files take at most a tenth of the time.
SMALL = 64 << 20
SHARE = 0.1
BYTES_PER_SECOND = 500e6  # of a disk, until the first file was timed
CHECKSUM = "checksum"  # in the file's metadata


class BrokenCheckpoint(CrceError):
    """A checkpoint that is damaged: it was written otherwise."""


class Checkpoints:
    """The checkpoint of a run, written every so many steps; `kept` is the step that the file on the disk holds."""

    def __init__(self, path: Path, every: int, kept: int = 0):
        self.path, self.every, self.kept = path, every, kept
        self._writer = ThreadPoolExecutor(1)
        self._writing: Future[float] | None = None
        self._next = 0
        self._seconds: float | None = None
        self._ended = time.monotonic()

    def due(self, step: int, last: bool, size: int) -> bool:
        """Whether the state of this step shall be written. size: its bytes."""
        if self._writing or not (last or step % self.every == 0):
            return False
        seconds = size / BYTES_PER_SECOND if self._seconds is None else self._seconds
        return size <= SMALL or time.monotonic() - self._ended >= seconds / SHARE

    def write(self, step: int, state: ErasedWeights, beside: bool) -> None:
        """Writes the state, `beside` the training or before it goes on. Raises OSError, beside it at the next look."""
        self._next = step
        self._writing = self._writer.submit(self._save, state)
        self.look(wait=not beside)

    def look(self, wait: bool = False) -> None:
        """Takes note of a file that is written by now; waits for it if asked. Raises OSError if it could not be."""
        if self._writing and (wait or self._writing.done()):
            writing, self._writing = self._writing, None
            self._seconds = writing.result()
            self._ended, self.kept = time.monotonic(), self._next

    def close(self) -> None:
        """Waits for the file that is being written."""
        self._writer.shutdown()

    def _save(self, state: ErasedWeights) -> float:
        began = time.monotonic()
        _keep_previous(self.path)
        write(state, self.path)
        return time.monotonic() - began


def write(state: ErasedWeights, path: Path) -> None:
    """Writes the state with its checksum. Raises OSError."""
    on_cpu = ErasedWeights({name: tensor.detach().cpu() for name, tensor in state.tensors.items()}, state.info)
    ErasedWeights(on_cpu.tensors, {**state.info, CHECKSUM: _compute_checksum(on_cpu)}).save(path)


def read(path: Path) -> ErasedWeights:
    """Raises BrokenCheckpoint for a file that is damaged. One of an earlier version, without a checksum, is taken as
    it is."""
    try:
        saved = ErasedWeights.load(path)
    except CrceError as error:
        raise BrokenCheckpoint(str(error)) from None
    told = saved.info.pop(CHECKSUM, None)
    if told not in (None, _compute_checksum(saved)):
        raise BrokenCheckpoint(f"{path} is damaged: it does not hold what was written. Remove it and run again.")
    return saved


def set_aside(path: Path) -> str:
    """Renames a broken checkpoint, and puts the one before it in its place. Says what was done."""
    names = (path.with_stem(f"{path.stem}-broken-{number}") for number in count(1))
    aside = next(name for name in names if not name.exists())
    path.rename(aside)
    said = f"The last saved state of this run was damaged and is set aside ({aside.name})."
    try:
        _previous(path).rename(path)
    except FileNotFoundError:
        return f"{said} The run starts again from the beginning."
    return f"{said} The run goes on from the state before it."


def discard(path: Path) -> None:
    """Removes all states of a run that has its result."""
    for file in path.parent.glob(f"{path.stem}*{path.suffix}"):
        files.remove(file)


def _previous(path: Path) -> Path:
    return path.with_stem(f"{path.stem}-previous")


def _keep_previous(path: Path) -> None:
    """Keeps the state that is about to be replaced under another name: there is a whole one at any moment."""
    previous = _previous(path)
    previous.unlink(missing_ok=True)
    # Not every file system has links; without them there is only the last state.
    with suppress(OSError):
        os.link(path, previous)


def _compute_checksum(state: ErasedWeights) -> str:
    """Of the tensors, which are in main memory, and of the facts beside them."""
    facts = sorted((key, value) for key, value in state.info.items() if key != "format")  # safetensors' own
    sum_ = zlib.crc32(json.dumps(facts).encode())
    for name, tensor in sorted(state.tensors.items()):
        values = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
        sum_ = zlib.crc32(values, zlib.crc32(name.encode(), sum_))
    return f"{sum_:08x}"
