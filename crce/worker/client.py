"""What an open tab waits for: a question to the worker over a local socket, and one answer.

JSON in bytes, never pickle. Only who can read home()/worker.json (mode 0600) has the key.
"""

import json
import subprocess
import sys
import time
from itertools import count
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, answer_challenge, deliver_challenge
from pathlib import Path
from typing import TYPE_CHECKING

from crce import files
from crce.errors import CrceError
from crce.runs import locked

if TYPE_CHECKING:
    pass

BROKEN = (OSError, EOFError, ValueError, AssertionError, AuthenticationError)


def send(request: dict, timeout: float = 60) -> dict:
    """The worker's answer; {"error": text} where the question was wrong, {"replaced": true} where a newer one came.

    Starts a worker if the question needs a model. Raises CrceError if none answers in time.
    """
    until = time.monotonic() + timeout
    patient = request.get("kind") != "status"
    for attempt in count():
        # Now and then, since a worker may leave or be killed while we wait; not each time, since starting takes long.
        if patient and attempt % 30 == 0:
            ensure_worker()
        try:
            return _exchange(request, until)
        except BROKEN as error:
            # A worker that is starting has no address yet, or still that of the one before.
            if not patient or time.monotonic() > until:
                raise CrceError(f"The worker does not answer: {error or 'it ended'}. Try again.") from None
        time.sleep(0.1)


def _exchange(request: dict, until: float) -> dict:
    address = files.read_json(_address_file())
    with Client((address["host"], address["port"])) as connection:
        # Polled first: another program may listen on the port of a worker that was killed.
        _wait(connection, until)
        key = bytes.fromhex(address["key"])
        answer_challenge(connection, key)
        deliver_challenge(connection, key)
        connection.send_bytes(json.dumps(request).encode())
        _wait(connection, until)
        return json.loads(connection.recv_bytes())


def _wait(connection: Connection, until: float) -> None:
    if not connection.poll(max(0.0, until - time.monotonic())):
        raise TimeoutError("it is busy")


def _address_file() -> Path:
    return files.home() / "worker.json"


def ensure_worker() -> None:
    """Starts a worker that outlives us, unless there is one. Waits for nothing: a second one leaves by itself."""
    files.home().mkdir(parents=True, exist_ok=True)
    if any(locked(path) for path in files.home().glob("worker-*.lock")):
        return
    with open(files.home() / "worker.log", "ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", "crce", "worker"],
            cwd=files.ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
