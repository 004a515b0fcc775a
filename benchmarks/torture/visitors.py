"""Visitors of the app at once, while a run trains: each asks for news as a page with one open tab does, reads what is
new, and now and then clicks something.

The seconds of a click are those from sending it to its whole answer, queue included.
"""

import itertools
import json
import os
import random
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from socket import create_server
from typing import Any

from benchmarks.torture.attack import Case, own_home
from crce import runs
from crce.concepts.library import find_concept
from crce.config import EraseConfig
from crce.errors import CrceError
from crce.files import ROOT
from crce.runs import Job
from crce.worker import client
from crce.worker.requests import StatusRequest

VISITORS = 50
ARRIVAL = 30.0  # seconds within which all have come; they stay until the end
PAUSE = 5.0  # seconds between two clicks of a visitor, on average
NEWS = 2.0  # seconds between two questions of a page for news
PATIENCE = 60.0  # seconds after which an answer counts as none
LIMIT = 0.3  # seconds of a click, of 95 in 100
MEMORY = "memory of the app after minute"
METHODS = ("crce", "esd-x", "uce", "spm")
Pulses = dict[str, list[dict[str, Any]]]  # the functions that a page calls when a part of it is new


@dataclass
class Visitor:
    """rng: decides what is clicked, and when. pulses: of the tab that is open. known: the mark of each part when it was
    read last; here: the page is open, so that time passes between two of its questions."""

    rng: random.Random
    pulses: Pulses
    session: str = field(default_factory=lambda: secrets.token_hex(6))
    known: dict[str, str] = field(default_factory=dict)
    presses: Iterator[str] = field(
        default_factory=lambda: itertools.cycle(("describe_method", "search_shelf", "choose_concept_1"))
    )
    here: bool = False


class Page:
    """The app as a browser knows it: which function each button and pulse calls, and with what. tabs: the pulses that a
    page with one tab open listens to, by tab."""

    def __init__(self, url: str):
        self.url = url
        config = self._read("/config")
        self.values = {part["id"]: part["props"].get("value") for part in config["components"]}
        self.functions = {each["api_name"]: each for each in config["dependencies"]}
        self.tabs = _list_pulses(config)

    def read_news(self) -> dict[str, str]:
        return self._read("/news")

    def call(self, function: dict[str, Any], session: str, *given: object, event: dict | None = None) -> float:
        """The seconds until the function has answered. Raises OSError or ValueError if it does not, or fails."""
        rest = [self.values[part] for part in function["inputs"][len(given) :]]
        asked = {"data": [*given, *rest], "event_data": event, "fn_index": function["id"], "session_hash": session}
        began = time.monotonic()
        if not function["queue"]:
            self._read("/gradio_api/run/predict", json.dumps(asked).encode())
            return time.monotonic() - began
        number = self._read("/gradio_api/queue/join", json.dumps(asked).encode())["event_id"]
        with self._open(f"/gradio_api/queue/data?session_hash={session}") as stream:
            for line in stream:
                told = json.loads(line[6:]) if line.startswith(b"data: ") else {}
                if told.get("msg") == "process_completed" and told.get("event_id") == number:
                    if not told["success"]:
                        raise ValueError(f"{function['api_name']}: {told['output']}")
                    return time.monotonic() - began
        raise ValueError("the answer ended early")

    def _read(self, path: str, body: bytes | None = None) -> Any:
        with self._open(path, body) as answer:
            return json.load(answer)

    def _open(self, path: str, body: bytes | None = None) -> Any:
        request = urllib.request.Request(self.url + path, body, {"content-type": "application/json"})
        return urllib.request.urlopen(request, timeout=PATIENCE)


def _list_pulses(config: dict[str, Any]) -> list[Pulses]:
    """Of each tab that has any: its own, and those above the tabs."""
    texts = {part["id"]: part["props"].get("value") for part in config["components"] if part["type"] == "html"}
    parts = {place: found[1] for place, text in texts.items() if (found := re.search('data-part="(.*?)"', text or ""))}
    called: dict[int, list[dict[str, Any]]] = {place: [] for place in parts}
    for function in config["dependencies"]:
        for place, event in function["targets"]:
            if event == "tick":
                called[place].append(function)
    tabs = {part["id"] for part in config["components"] if part["type"] == "tabitem"}
    places = [{part["id"] for part in _walk(tree)} for tree in _walk(config["layout"]) if tree["id"] in tabs]
    inside = [own & called.keys() for own in places]
    always = called.keys() - set().union(*inside)
    return [{parts[place]: called[place] for place in always | own} for own in inside if own]


def _walk(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield tree
    for child in tree.get("children") or ():
        yield from _walk(child)


@contextmanager
def open_visitors() -> Iterator[Case]:
    """A case is a minute of all visitors."""
    with own_home(), serve() as (url, pid):
        page = Page(url)
        run = runs.create(Job("emoji-sd", find_concept("dog"), EraseConfig(steps=100_000, preview_every=50)))
        client.ensure_workers()
        while run.state != "running":
            time.sleep(0.2)

        visitors = invite(page)

        def minute(number: int, met: Counter[str]) -> str | None:
            waits, errors = spend(page, visitors, 60.0)
            waits.sort()
            p95 = waits[int(0.95 * len(waits))] if waits else PATIENCE
            met["clicks"] += len(waits)
            met["polls and clicks without an answer"] += len(errors)
            for name, share in (("median", 0.5), ("p95", 0.95), ("slowest", 1.0)):
                value = waits[min(len(waits) - 1, int(share * len(waits)))] if waits else PATIENCE
                met[f"worst minute, {name}, ms"] = max(met[f"worst minute, {name}, ms"], round(1000 * value))
            met[f"{MEMORY} {number + 1:02}, MB"] = round(read_memory(pid) / 1e6)
            if run.state != "running":
                return f"the run is {run.state}"
            if errors:
                return f"{len(errors)} without an answer, the first: {errors[0]}"
            return None if p95 <= LIMIT else f"p95 of a click is {1000 * p95:.0f} ms"

        try:
            yield minute
        finally:
            run.request_stop()


def invite(page: Page, count: int = VISITORS, seed: int = 0) -> list[Visitor]:
    """Each with one tab open, every tab alike often."""
    return [Visitor(random.Random(f"{seed} {n}"), page.tabs[n % len(page.tabs)]) for n in range(count)]


def spend(
    page: Page, visitors: list[Visitor], seconds: float, arrival: float = ARRIVAL
) -> tuple[list[float], list[str]]:
    """All visitors for so long, those who come first within `arrival` seconds: the seconds of their clicks, and what
    failed."""
    waits: list[float] = []
    errors: list[str] = []
    until = time.monotonic() + seconds
    work: list[Callable[[], None]] = []
    for visitor in visitors:
        pause = 0.0 if visitor.here else visitor.rng.uniform(0, arrival)
        visitor.here = True
        work.append(partial(_click, page, visitor, pause, until, waits, errors))
        work.append(partial(_watch, page, visitor, pause, until, errors))
    threads = [threading.Thread(target=each, daemon=True) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + PATIENCE)
    return waits, errors


def _watch(page: Page, visitor: Visitor, pause: float, until: float, errors: list[str]) -> None:
    known, pulses = visitor.known, visitor.pulses

    def look() -> None:
        marks = page.read_news()
        for part in (part for part in pulses if part in marks and known.get(part) != marks[part]):
            known[part] = marks[part]
            for function in pulses[part]:
                page.call(function, visitor.session)

    # Between two minutes, those who stay do not all ask at once.
    time.sleep(pause + visitor.rng.uniform(0, NEWS))
    while time.monotonic() < until:
        began = time.monotonic()
        _ask(look, errors)
        time.sleep(max(0.0, NEWS - (time.monotonic() - began)))


def _click(page: Page, visitor: Visitor, pause: float, until: float, waits: list[float], errors: list[str]) -> None:
    rng = visitor.rng
    time.sleep(pause + rng.uniform(0, 2 * PAUSE))
    while time.monotonic() < until:
        choices: dict[str, dict[str, Any]] = {
            "describe_method": {"given": [rng.choice(METHODS)]},
            "search_shelf": {"given": [rng.choice(("cat", "do", "taylor"))]},
            "choose_concept_1": {"given": [], "event": {"slug": rng.choice(("dog", "cat", "horse"))}},
        }
        name = next(visitor.presses)
        given = choices[name]
        _ask(lambda: waits.append(_press(page, visitor, name, **given)), errors)  # noqa: B023
        time.sleep(rng.uniform(0, 2 * PAUSE))


def _press(page: Page, visitor: Visitor, name: str, given: list[object], event: dict | None = None) -> float:
    return page.call(page.functions[name], f"{visitor.session}c", *given, event=event)


def _ask(question: Callable[[], object], errors: list[str]) -> None:
    try:
        question()
    except (OSError, ValueError, KeyError) as error:
        errors.append(f"{type(error).__name__}: {error}"[:200])


def read_memory(pid: int) -> int:
    """Bytes that a process has in memory."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return 1024 * int(status.partition("VmRSS:")[2].split()[0])


@contextmanager
def serve() -> Iterator[tuple[str, int]]:
    """The app's address and process."""
    with create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "app.py", "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            with suppress(OSError):
                urllib.request.urlopen(url, timeout=PATIENCE).close()
                break
            time.sleep(0.2)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait()
        with suppress(CrceError, OSError):
            if status := client.send(StatusRequest(), 5):
                os.kill(status.pid, signal.SIGTERM)
