"""A tiny training in processes of their own: forked, so that torch is imported once and each has its model at once."""

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.torture.attack import own_home
from crce import runs
from crce.concepts.spec import ConceptSpec, Term
from crce.config import EraseConfig
from crce.methods.erased_weights import ErasedWeights
from crce.runs import Job, Run
from crce.runs.execute import execute
from crce.runs.models import Models
from tests.tiny import save_tiny_sd

METHODS = ("crce", "esd-x-strict", "spm")
DOG = ConceptSpec(
    "dog",
    sense="animal",
    corefs=(Term("puppy", "very high"), Term("hound", "normal"), Term("pooch"), Term("guide dog", split="test")),
    retains=(Term("cat", "very high"), Term("wolf", "low"), Term("fox"), Term("pig", split="test")),
)


@dataclass(frozen=True)
class Whole:
    """An undisturbed run, and its seconds in a process of its own."""

    run: Run
    seconds: float


@dataclass(frozen=True)
class Ground:
    """A tiny base with its loaded model."""

    home: Path
    base: Path
    models: Models
    _whole: dict[str, Whole] = field(default_factory=dict)

    def whole(self, method: str) -> Whole:
        """The undisturbed run of a method, made when it is first asked for."""
        if method not in self._whole:
            began, run = time.monotonic(), self.create(method)
            os.waitpid(fork(lambda: self.train(run)), 0)
            self._whole[method] = Whole(run, time.monotonic() - began)
        return self._whole[method]

    def create(self, method: str, folder: Path | None = None) -> Run:
        # Many checkpoints, so that many kills meet one.
        config = EraseConfig(method, steps=10, corefs=2, retains=2, preview_every=5, checkpoint_every=1)
        run = runs.create(Job(str(self.base), DOG, config), folder)
        run.request_evaluate(1)
        return run

    def train(self, run: Run) -> None:
        for _ in execute(run, self.models):
            pass


@contextmanager
def open_ground() -> Iterator[Ground]:
    torch.set_num_threads(1)  # a forked process has no other threads
    with own_home() as home:
        save_tiny_sd(home / "base")
        ground = Ground(home, home / "base", Models("cpu"))
        ground.models.get(str(ground.base))
        yield ground


def fork(work: Callable[[], object]) -> int:
    """The id of a process that does the work and ends with 0, or with 1 after an exception."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def find_difference(run: Run, whole: Run) -> str | None:
    """How a run's result differs from the undisturbed one's, bit by bit; None if it does not."""
    if run.state != "done":
        return f"the run is {run.state}"
    one, two = ErasedWeights.load(run.weights_path), ErasedWeights.load(whole.weights_path)
    if one.info != two.info or one.tensors.keys() != two.tensors.keys():
        return "the facts beside the weights differ"
    if not all(torch.equal(one.tensors[name], two.tensors[name]) for name in one.tensors):
        return "the weights differ"
    mine, theirs = run.report, whole.report
    if not mine or not theirs or mine.metrics != theirs.metrics:
        return "the reports differ"
    left = [path.name for path in run.dir.rglob(".*")] + [path.name for path in run.dir.glob("checkpoint*")]
    return f"left behind: {', '.join(left)}" if left else None
