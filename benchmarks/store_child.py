"""The process that `benchmarks.store` measures: the app's handlers, called one after the other."""

import json
import os
import sys
import time
from pathlib import Path

from app.tabs import erase, erase_form, status_bar
from crce import files, runs
from crce.config import EraseConfig
from crce.runs import Job
from crce.runs.events import StartEvent, StepEvent

opened = 0
LOSSES = {"target": 0.1, "corefs": 0.2, "retains": 0.3}


def count_opened(event: str, arguments: tuple) -> None:
    global opened
    opened += event == "open" and str(arguments[0]).startswith(str(files.home()))


def measure(polls: int) -> dict:
    began = time.process_time()
    *_, seen = erase.refresh(None, erase.Seen())
    listed = time.process_time() - began
    status_bar.render_status()  # its first time imports the client of language models
    sys.addaudithook(count_opened)
    began = time.process_time()
    *_, seen = erase.refresh(None, seen)
    status_bar.render_status()
    again, files_opened = time.process_time() - began, opened
    began = time.process_time()
    erase_form.list_concepts()
    concepts = time.process_time() - began
    return {"list": listed, "again": again, "opened": files_opened, "concepts": concepts, **poll(polls, seen)}


def poll(polls: int, seen: erase.Seen) -> dict:
    """Polls as the page does, 2 400 times an hour: each 1.5 s, and the status line each 2 s. Three events come between
    two polls."""
    if not polls:
        return {}
    run = runs.create(Job("emoji-sd", runs.all_runs()[0].job.spec, EraseConfig()))
    times, memory = [], [resident()]
    with run.hold():
        run.record(StartEvent(os.getpid()))
        total = 0
        for number in range(polls):
            for part in range(3):
                run.record(StepEvent(3 * number + part + 1, 3 * polls, LOSSES, 9.0))
            before = opened
            began = time.process_time()
            *_, seen = erase.refresh(run.id, seen)
            if number % 4 != 3:
                status_bar.render_status()
            times.append(time.process_time() - began)
            total += opened - before
            if (number + 1) % max(1, polls // 10) == 0:
                memory.append(resident())
    return {"polls": times, "memory": memory, "read": total}


def resident() -> float:
    """MB of main memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
