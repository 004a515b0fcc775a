"""What went wrong in a run, as a message that says what to do."""

import secrets
import time
import traceback
from contextlib import suppress
from errno import EACCES, EDQUOT, EFBIG, ENOSPC, EPERM, EROFS

from crce import files
from crce.errors import CrceError
from crce.redact import redact
from crce.runs.events import FailedEvent
from crce.runs.run import Run

SMALLER = (
    "Free memory on the device and resume, or start again with a method that trains fewer weights. One term at a time "
    "with gradient checkpointing was tried."
)
FULL = "Free some space and resume."
LOCKED = "Make it writable and resume."
UNWRITABLE = {ENOSPC: FULL, EDQUOT: FULL, EFBIG: FULL, EACCES: LOCKED, EPERM: LOCKED, EROFS: LOCKED}


def explain(error: Exception, run: Run) -> FailedEvent:
    """The failure for people, and the id under which worker.log has the trace where the message does not suffice."""
    kept = "The erasure is done and kept" if run.erased else f"Step {run.kept_step} is kept"
    if isinstance(error, CrceError):
        return FailedEvent(f"{kept}, but not measured: {error}" if run.erased else str(error))
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        return FailedEvent(f"{run.dir} cannot be written: {error.strerror}. {kept}. {UNWRITABLE[error.errno]}")
    # Not before: torch cannot even be imported while no file can be written.
    from crce.models.memory import is_out_of_memory

    if is_out_of_memory(error):
        return FailedEvent(f"Out of memory. {kept}. {SMALLER}")
    log_id = log_error(error)
    return FailedEvent(describe_logged(log_id), log_id)


def describe_logged(log_id: str) -> str:
    """The message for an unexpected error whose trace is in worker.log."""
    return f"unexpected error {log_id}; {files.home() / 'worker.log'} has the rest"


def log_error(error: Exception) -> str:
    """Appends the trace to worker.log, without API keys, under an id, which it returns."""
    log_id = secrets.token_hex(4)
    files.home().mkdir(parents=True, exist_ok=True)
    trace = redact("".join(traceback.format_exception(error)))
    with suppress(OSError), open(files.home() / "worker.log", "a", encoding="utf-8") as log:
        log.write(f"{time.strftime('%F %T')} unexpected error {log_id}\n{trace}\n")
    return log_id
