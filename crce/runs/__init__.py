"""Runs: directories, what is asked of them, and the one way in which they are worked on."""

from crce.runs.run import (
    ENDINGS,
    PHASES,
    Busy,
    Job,
    Progress,
    Run,
    all_runs,
    create,
    evaluation,
    find,
    locked,
    opened,
    store,
)

__all__ = [
    "ENDINGS", "PHASES", "Busy", "Job", "Progress", "Run", "all_runs", "create", "evaluation", "find", "locked",
    "opened", "store",
]  # fmt: skip
