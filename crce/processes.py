"""Starting our own commands as processes that outlive us."""

import os
import subprocess
import sys
from pathlib import Path

from crce import files


def start(arguments: list[str], log: Path) -> subprocess.Popen:
    """`python -m crce …` in our home, with what it says appended to `log`. Does not wait for it."""
    # It runs in our home, not in a folder of the user's. A checkout need not be installed, so it is on the path.
    paths = [str(files.ROOT)] * (files.DATA == files.ROOT) + os.environ.get("PYTHONPATH", "").split(os.pathsep)
    changed = {"CRCE_HOME": str(files.home().resolve()), "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as output:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "crce", *arguments],
            cwd=files.home(),
            env={**os.environ, **changed},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
