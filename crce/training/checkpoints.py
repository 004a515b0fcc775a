"""When a run's state is written, and by whom: seldom where it is large, and beside the training on a GPU."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from crce.methods.erased_weights import ErasedWeights

# Bytes that are written whenever they are due. Larger files take at most a tenth of the time.
SMALL = 64 << 20
SHARE = 0.1
BYTES_PER_SECOND = 500e6  # of a disk, until the first file was timed


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
        state.save(self.path)
        return time.monotonic() - began
