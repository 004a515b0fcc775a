"""The queue between open tabs and the one thread that has the model."""

import json
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from multiprocessing.connection import Connection, Listener, answer_challenge, deliver_challenge
from typing import Any

from pydantic import ValidationError

from crce.records import first_problem
from crce.worker.answers import ErrorAnswer, ReplacedAnswer, StatusAnswer
from crce.worker.client import BROKEN, Address, address_file, read_address, write_address
from crce.worker.requests import LONGEST, REQUEST, ModelRequest, StatusRequest

Answer = Any  # one of the dataclasses of `crce.worker.answers`, or a Cost


class PendingRequest:
    """A request that waits for its answer. replaced: nobody waits any more, since a newer one came."""

    def __init__(self, request: ModelRequest[Any]):
        self.request, self.replaced = request, False
        self._answer: Answer = None
        self._answered = threading.Event()

    def reply(self, answer: Answer) -> None:
        self._answer = answer
        self._answered.set()

    def wait(self) -> Answer:
        """The answer, once there is one."""
        self._answered.wait()
        return self._answer

    @property
    def line(self) -> tuple[str, str]:
        """Of the requests of one kind from one tab, only the newest counts."""
        return self.request.tab, self.request.kind


class RequestBroker:
    """Threads take requests in over a socket; the thread that has the model takes them out one by one."""

    def __init__(self, status: Callable[[], StatusAnswer]):
        """status: called from any thread, at any time."""
        self._status = status
        self._waiting: dict[tuple[str, str], PendingRequest] = {}
        self._served: PendingRequest | None = None
        self._changed = threading.Condition()
        self._listener = Listener(("127.0.0.1", 0), backlog=16)
        self._key = secrets.token_bytes(32)

    def open(self) -> None:
        """Publishes the address and accepts requests."""
        self.publish()
        threading.Thread(target=self._listen, daemon=True).start()

    def publish(self) -> None:
        """Writes worker.json, unless some worker's is there."""
        if not address_file().exists():
            host, port = self._listener.address
            write_address(Address(host, port, self._key.hex()))

    def close(self) -> None:
        """Accepts no more requests, and removes worker.json if it is ours."""
        self._listener.close()
        with suppress(*BROKEN):
            if read_address().key == self._key.hex():
                address_file().unlink()

    def take(self, timeout: float = 0) -> PendingRequest | None:
        """The request that has waited longest; waits up to `timeout` seconds for one."""
        with self._changed:
            self._served = None
            self._changed.wait_for(lambda: self._waiting, timeout)
            if self._waiting:
                self._served = self._waiting.pop(next(iter(self._waiting)))
            return self._served

    def put(self, request: ModelRequest[Any]) -> PendingRequest:
        """Queues the request. It replaces an older one of its line, also one that is being answered."""
        pending = PendingRequest(request)
        with self._changed:
            if old := self._waiting.pop(pending.line, None):
                old.reply(ReplacedAnswer())
            if self._served and self._served.line == pending.line:
                self._served.replaced = True
            self._waiting[pending.line] = pending
            self._changed.notify()
        return pending

    def put_back(self, pending: PendingRequest) -> None:
        """Queues a request that is only partly done, behind the others, unless it was replaced."""
        with self._changed:
            if pending.line in self._waiting:
                pending.reply(ReplacedAnswer())
            else:
                self._waiting[pending.line] = pending

    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    def _listen(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except ConnectionError:
                continue
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        # The handshake is here, not in accept(), where one silent client would block all others.
        with connection, suppress(*BROKEN):
            deliver_challenge(connection, self._key)
            answer_challenge(connection, self._key)
            answer = self._answer(connection.recv_bytes(LONGEST))
            connection.send_bytes(json.dumps(asdict(answer)).encode())

    def _answer(self, data: bytes) -> Answer:
        try:
            request = REQUEST.validate_python(json.loads(data))
        except ValidationError as error:
            return ErrorAnswer(first_problem(error, "request"))
        except ValueError as error:
            return ErrorAnswer(f"request: not valid JSON ({error})")
        if isinstance(request, StatusRequest):
            return replace(self._status(), waiting=self.waiting())
        return self.put(request).wait()
