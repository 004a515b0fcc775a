"""Commands that list and control runs."""

import time
from dataclasses import asdict
from pathlib import Path

from crce import runs
from crce.bases import public_name
from crce.cli import terminal
from crce.cli.bases import check_device
from crce.cli.options import AsJson, Device, RunName
from crce.errors import CrceError
from crce.files import is_folder
from crce.runs import Run
from crce.runs.events import FailedEvent
from crce.worker.client import ensure_workers


def list_runs(as_json: AsJson = False):
    """List all runs, newest first."""
    facts = [describe_run(run) for run in runs.all_runs()]
    rows = [(f["id"], f["state"], f["title"], f["method"], f["done"]) for f in facts]
    terminal.say(facts, terminal.table(["run", "state", "concept", "method", "done"], rows), as_json)


def stop(run: RunName, as_json: AsJson = False):
    """Stop a run after its current step, or remove it from the queue. It can be resumed."""
    found = open_run(run)
    found.request_stop()
    terminal.say(describe_run(found), f"{found.id}: {found.state}{', stopping' * found.stopping}", as_json)


def resume(run: RunName, as_json: AsJson = False):
    """Queue a stopped, failed or interrupted run; the worker continues from its checkpoint.

    To run it in this terminal instead: python -m crce erase CONCEPT --resume
    """
    found = open_run(run)
    found.request_resume()
    ensure_workers()
    terminal.say(describe_run(found), f"{found.id}: {found.state}", as_json)


def worker(device: Device = "auto"):
    """Start a worker, which executes queued runs and draws for the app. It exits after 15 idle minutes.

    The app starts one itself. With several devices, start one per device: python -m crce worker --device cuda:1
    """
    from crce.worker.service import serve

    if not serve(device):
        check_device(device)  # what is not there has the name of another worker; and not before, it may import torch
        terminal.console.print(f"A worker for {device} is already running.")


def open_run(name: str) -> Run:
    """Opens a run by folder or id. Raises CrceError if there is none."""
    if not name.strip():
        raise CrceError("No run was named. Give a run's id or its folder; `python -m crce runs` lists them.")
    return runs.open_run(Path(name)) if is_folder(name) else runs.find(name)


def describe_unknown_base(run: Run) -> str:
    """A warning for a run that does not record the version of its base; else empty."""
    base = public_name(run.job.base)
    return "" if run.job.base_digest else f"The run {run.title!r} records no version of {base}; it is taken to fit."


def describe_run(run: Run) -> dict:
    """A run as `--json` prints it."""
    job, progress, failed = run.job, run.progress, run.last(FailedEvent)
    return {
        "id": run.id,
        "dir": str(run.dir.resolve()),
        "state": run.state,
        "title": run.title,
        "concept": job.spec.name,
        "digest": job.spec.digest,
        "base": job.base,
        "base_digest": job.base_digest,
        "method": job.config.label,
        "config": asdict(job.config),
        "created": time.strftime("%FT%TZ", time.gmtime(job.created)),
        "done": f"{progress.done}/{progress.of} {progress.phase}" if progress else "",
        "message": failed.message if failed and run.state == "failed" else None,
        "delta": str(run.weights_path.resolve()) if run.erased else None,
    }
