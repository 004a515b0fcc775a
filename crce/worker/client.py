"""How an open tab asks the worker: one request over a local socket, and one answer.

JSON in bytes, never pickle. Only a process that can read home()/worker.json (mode 0600) has the key.
"""

import json
import socket
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import count
from multiprocessing import AuthenticationError
from multiprocessing.connection import answer_challenge, deliver_challenge
from pathlib import Path
from typing import Any, cast

from crce import devices, files, processes, runs
from crce.errors import CrceError
from crce.records import parse, read
from crce.runs import is_locked
from crce.worker.line import Line
from crce.worker.requests import REQUEST, A, Request, StatusRequest

_LONGEST_ANSWER = 1 << 30  # bytes: 512 large pictures
# What a connection may fail with, also when another program listens on the port.
BROKEN = (OSError, EOFError, ValueError, AssertionError, AuthenticationError, CrceError)


@dataclass(frozen=True)
class Address:
    """worker.json: where a worker listens, and the key in hexadecimal."""

    host: str
    port: int
    key: str


def send(request: Request[A], timeout: float = 60) -> A | None:
    """The worker's answer; None if the tab has sent a newer request of the same kind meanwhile.

    Starts a worker if the request needs a model. Raises CrceError if none answers within `timeout` seconds, and if the
    request cannot be answered.
    """
    facts = exchange(REQUEST.dump_json(request), timeout, start=not isinstance(request, StatusRequest))
    if "error" in facts:
        raise CrceError(facts["error"])
    if facts.get("replaced"):
        return None
    return parse(request.answer, facts, "The worker's answer")


def exchange(request: bytes, timeout: float, start: bool = True) -> dict[str, Any]:
    """The JSON that the worker answers to a JSON request, also to one that is wrong: see `crce.worker.answers`.

    start: starts a worker and waits for it; else there is an answer only from one that runs. Raises CrceError if none
    answers within `timeout` seconds.
    """
    until = time.monotonic() + timeout
    for attempt in count():
        # Now and then, since a worker may leave or be killed while we wait; not each time, since starting takes long.
        if start and attempt % 30 == 0:
            ensure_worker()
        try:
            return _exchange_once(request, until)
        except BROKEN as error:
            # A worker that is starting has no address yet, or still that of the one before.
            if not start or time.monotonic() > until:
                reason = "it is busy" if isinstance(error, TimeoutError) else str(error) or "it ended"
                raise CrceError(f"The worker does not answer: {reason}. Try again.") from None
        time.sleep(0.1)
    raise AssertionError("count() has no end")


def _exchange_once(request: bytes, until: float) -> dict[str, Any]:
    """Raises one of BROKEN, at the latest when the time is over: a worker that is stopped still has a full queue."""
    address, left = read_address(), until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    with closing(socket.create_connection((address.host, address.port), timeout=left)) as end:
        line = Line(end, until - time.monotonic())
        shake_hands(line, bytes.fromhex(address.key), first=False)
        line.send_bytes(request)
        return parse(dict[str, Any], json.loads(line.recv_bytes(_LONGEST_ANSWER)), "The worker's answer")


def shake_hands(line: Line, key: bytes, first: bool) -> None:
    """Both ends show that they have the key. first: whether this one asks first, as the worker does.

    Raises one of BROKEN.
    """
    steps = (deliver_challenge, answer_challenge) if first else (answer_challenge, deliver_challenge)
    for step in steps:
        step(cast(Any, line), key)


def address_file() -> Path:
    return files.home() / "worker.json"


def read_address() -> Address:
    """Raises CrceError if there is none that can be read."""
    return read(Address, address_file())


def write_address(address: Address) -> None:
    files.write_json(address_file(), asdict(address))


def lock_file(device: str) -> Path:
    """Held by the worker of this device."""
    return files.home() / f"worker-{devices.worker_of(device).replace(':', '-')}.lock"


def ensure_workers() -> None:
    """Starts the workers that the queued runs need, one per card, unless they are there."""
    states = [(run.state, run.facts.device) for run in runs.all_runs()]
    queued = [device for state, device in states if state == "queued"]
    running = sum(state == "running" for state, _ in states)
    for name in devices.plan_workers(queued, running, len(devices.usable_cards())):
        ensure_worker(name)


def ensure_worker(name: str = devices.AUTO) -> None:
    """Starts a worker that outlives us, unless there is one. Does not wait: a second worker leaves by itself.

    name: see `devices.worker_of`; tabs are answered by the one named "auto".
    """
    files.home().mkdir(parents=True, exist_ok=True)
    if is_locked(lock_file(name)):
        return
    processes.start(["worker", "--device", name], files.home() / "worker.log")
