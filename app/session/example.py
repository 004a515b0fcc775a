"""A finished erasure from the first start on, so that there is something to compare before any training."""

from crce import bases, runs
from crce.concepts.library import find_concept
from crce.config import EraseConfig
from crce.runs import Job, Run

NAME, CONCEPT = "Example: dog", "dog"
_METHOD = "crce-uce"  # solved at once, in a second


def make() -> Run | None:
    """Queues it where there was never a run. Raises CrceError without the default model."""
    if runs.store().exists():
        return None
    return runs.create(Job(bases.EMOJI_SD, find_concept(CONCEPT), EraseConfig(_METHOD, preview_every=0), name=NAME))


def find(found: list[Run]) -> Run | None:
    return next((run for run in found if run.facts.name == NAME), None)
