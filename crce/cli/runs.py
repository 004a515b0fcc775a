import time
from dataclasses import asdict
from pathlib import Path

from crce import runs
from crce.cli import terminal
from crce.cli.options import AsJson, Device, RunName
from crce.runs import Run
from crce.runs.events import FailedEvent
from crce.worker.client import ensure_worker


def list_runs(as_json: AsJson = False):
    """List the runs of the store, newest first."""
    facts = [_facts(run) for run in runs.all_runs()]
    rows = [(f["id"], f["state"], f["title"], f["method"], f["done"]) for f in facts]
    terminal.say(facts, terminal.table(["run", "state", "concept", "method", "done"], rows), as_json)


def stop(run: RunName, as_json: AsJson = False):
    """Stop a run after its current step, or take it out of the queue. It can be resumed."""
    found = _run(run)
    found.request_stop()
    terminal.say(_facts(found), f"{found.id}: {found.state}{', stopping' * found.stopping}", as_json)


def resume(run: RunName, as_json: AsJson = False):
    """Queue a stopped, failed or interrupted run again; the worker takes it up from its checkpoint.

    To watch it here instead: python -m crce erase CONCEPT --resume
    """
    found = _run(run)
    found.request_resume()
    ensure_worker()
    terminal.say(_facts(found), f"{found.id}: {found.state}", as_json)


def worker(device: Device = "auto"):
    """Work on queued runs and draw for open tabs, until idle for 15 minutes. The app starts one by itself.

    With several devices, start one for each: python -m crce worker --device cuda:1
    """
    from crce.worker.service import serve

    if not serve(device):
        terminal.console.print(f"There is a worker for {device} already.")


def _run(name: str) -> Run:
    """By folder where there is one, else by id. Raises CrceError."""
    return runs.open_run(Path(name)) if Path(name).is_dir() else runs.find(name)


def _facts(run: Run) -> dict:
    """What --json says of a run."""
    job, progress, failed = run.job, run.progress, run.last(FailedEvent)
    return {
        "id": run.id,
        "dir": str(run.dir.resolve()),
        "state": run.state,
        "title": run.title,
        "concept": job.spec.name,
        "digest": job.spec.digest,
        "base": job.base,
        "method": job.config.label,
        "config": asdict(job.config),
        "created": time.strftime("%FT%TZ", time.gmtime(job.created)),
        "done": f"{progress.done}/{progress.of} {progress.phase}" if progress else "",
        "message": failed.message if failed and run.state == "failed" else None,
        "delta": str(run.weights_path.resolve()) if run.erased else None,
    }
