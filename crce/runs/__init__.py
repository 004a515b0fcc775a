"""Runs: their directories, the events in them, and the one way to work on them."""

from crce.runs.events import ENDINGS, PHASES, Event, Progress
from crce.runs.run import (
    ID,
    MOST_IMAGES,
    Busy,
    EvaluationRequest,
    Job,
    ResolvedJob,
    Run,
    all_runs,
    broken_runs,
    create,
    find,
    find_folder,
    is_locked,
    open_run,
    store,
    tidy,
)

__all__ = [
    "ENDINGS", "ID", "MOST_IMAGES", "PHASES", "Busy", "EvaluationRequest", "Event", "Job", "Progress", "ResolvedJob",
    "Run", "all_runs", "broken_runs", "create", "find", "find_folder", "is_locked", "open_run", "store", "tidy",
]  # fmt: skip
