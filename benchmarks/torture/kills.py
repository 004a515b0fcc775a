"""SIGKILL at random moments of a training and while it goes on; the result must be that of an undisturbed one."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.torture import training
from benchmarks.torture.attack import Case
from crce.runs import Run
from crce.runs.events import PhaseEvent, StepEvent

MOST_KILLS = 5  # of one run


@contextmanager
def open_kills() -> Iterator[Case]:
    with training.open_ground() as ground:

        def kill(number: int, met: Counter[str]) -> str | None:
            rng = random.Random(number)
            method = rng.choice(training.METHODS)
            whole = ground.whole(method)
            run, kills = ground.create(method), rng.randint(1, MOST_KILLS)
            while kills and run.state != "done":
                kills -= _kill_once(ground, run, rng.uniform(0, whole.seconds), met)
            code = os.waitstatus_to_exitcode(os.waitpid(training.fork(lambda: ground.train(run)), 0)[1])
            fault = training.find_difference(run, whole.run) or (f"exit {code}" if code else None)
            run.delete()
            return fault

        yield kill


def _kill_once(ground: training.Ground, run: Run, after: float, met: Counter[str]) -> bool:
    """Whether the kill came before the end."""
    pid = training.fork(lambda: ground.train(run))
    time.sleep(after)
    os.kill(pid, signal.SIGKILL)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != -signal.SIGKILL:
        return False
    met["kills"] += 1
    met[f"kills {_find_moment(run)}"] += 1
    met["kills that left a file half written"] += bool(_list_half_written(run.dir))
    return True


def _list_half_written(folder: Path) -> list[Path]:
    return list(folder.glob(".*"))


def _find_moment(run: Run) -> str:
    if run.erased:
        return "while judging"
    last = run.history.latest(PhaseEvent, StepEvent)
    if last is None:
        return "before the first latent"
    return "while training" if isinstance(last, StepEvent) else "while sampling latents"
