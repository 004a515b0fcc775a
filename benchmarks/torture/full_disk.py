"""A disk that is full at one point after another: a run fails with a clear message and goes on once there is room."""

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from benchmarks.torture import training
from benchmarks.torture.attack import Case
from crce.concepts.library import load_spec, own_path, save_spec
from crce.errors import CrceError
from crce.runs.events import FailedEvent
from crce.runs.execute import execute

SIZE = 64 << 20  # bytes of the small disk
WRITTEN = 80  # events of a run, about: latents, steps, checkpoints, previews, judged pictures
RUNS = 8  # points of a run, from its first event to its last; at further ones a concept is saved


@contextmanager
def open_disks() -> Iterator[Case]:
    with training.open_ground() as ground, small_disk(ground.home) as disk:

        def fill(number: int, met: Counter[str]) -> str | None:
            met["on a tmpfs" if os.path.ismount(disk) else "with a limit on the size of files"] += 1
            if number < RUNS:
                return _fill_a_run(ground, disk / f"run-{number}", number, met)
            return _fill_a_desk(disk, number, met)

        yield fill


@contextmanager
def small_disk(home: Path) -> Iterator[Path]:
    """A tmpfs, where one may be mounted; else a folder, and the processes may not write large files."""
    folder = home / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(folder)]
    mounted = shutil.which("mount") and not subprocess.run(command, capture_output=True).returncode
    try:
        yield folder
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def _full(disk: Path) -> Iterator[None]:
    """Not one byte is free, for this process where there is no mount."""
    ballast = disk / "ballast"
    if not os.path.ismount(disk):
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    else:
        with open(ballast, "wb", buffering=0) as file, suppress(OSError):
            while file.write(b"\0" * 4096):
                pass
    try:
        yield
    finally:
        ballast.unlink(missing_ok=True)


def _fill_a_run(ground: training.Ground, folder: Path, number: int, met: Counter[str]) -> str | None:
    run = ground.create("crce", folder)
    whole = ground.whole("crce")
    when = number * WRITTEN // RUNS

    def train() -> None:
        with ExitStack() as stack:
            for event, _ in enumerate(execute(run, ground.models)):
                if event == when:
                    stack.enter_context(_full(folder.parent))

    os.waitpid(training.fork(train), 0)
    failed = run.last(FailedEvent)
    met[f"full at event {when} of {WRITTEN}: {run.state}, step {run.kept_step} kept"] += 1
    os.waitpid(training.fork(lambda: ground.train(run)), 0)
    fault = training.find_difference(run, whole.run) or _judge_message(failed)
    shutil.rmtree(folder)
    return fault


def _judge_message(failed: FailedEvent | None) -> str | None:
    """Not even the message may fit on the disk; one that does says what is wrong."""
    if failed and not any(word in failed.message for word in ("No space left", "File too large", "MB free")):
        return f"the message does not name the disk: {failed.message[:150]}"
    return None


def _fill_a_desk(disk: Path, number: int, met: Counter[str]) -> str | None:
    """A concept is saved over an older version, and a run created."""
    home = os.environ["CRCE_HOME"]
    os.environ["CRCE_HOME"] = str(disk)
    try:
        path = own_path(training.DOG)
        save_spec(training.DOG, path)
        refused = _refuse(disk, path if number % 2 else path.with_name("new.json"))
        met["a concept refused"] += 1
        return refused or (None if load_spec(path) == training.DOG else "the older version is lost")
    finally:
        os.environ["CRCE_HOME"] = home


def _refuse(disk: Path, path: Path) -> str | None:
    def save() -> None:
        with _full(disk):
            try:
                save_spec(training.DOG, path)
            except CrceError as error:
                if "cannot be written" in str(error):
                    return
        raise AssertionError("saved on a full disk, or another error")

    code = os.waitstatus_to_exitcode(os.waitpid(training.fork(save), 0)[1])
    left = [each.name for each in path.parent.glob(".*")]
    return f"exit {code}" if code else f"left behind: {', '.join(left)}" if left else None
