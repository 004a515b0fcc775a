"""The queue between open tabs and the one thread that has the model."""

import json
import secrets
import socket
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict, replace
from typing import Any

from pydantic import ValidationError

from crce.records import first_problem
from crce.worker.answers import ErrorAnswer, ReplacedAnswer, StatusAnswer
from crce.worker.client import BROKEN, Address, address_file, read_address, shake_hands, write_address
from crce.worker.line import Line
from crce.worker.requests import LONGEST, REQUEST, ModelRequest, StatusRequest

MOST_CONNECTIONS = 64  # at a time; each has a thread
_ASKING = 5.0  # seconds that a connection may take to show the key and to ask
_LISTENING = 30.0  # seconds that it may take to hear the answer
_GLANCE = 1.0  # seconds between two looks whether somebody still waits
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

    def wait(self, seconds: float) -> Answer | None:
        """The answer; None if there is none in this time."""
        return self._answer if self._answered.wait(seconds) else None

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
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=MOST_CONNECTIONS)
        self._free = threading.Semaphore(MOST_CONNECTIONS)
        self._key = secrets.token_bytes(32)

    def open(self) -> None:
        """Publishes the address and accepts requests."""
        self.publish()
        threading.Thread(target=self._listen, daemon=True).start()

    def publish(self) -> None:
        """Writes worker.json, unless some worker's is there."""
        if not address_file().exists():
            host, port = self._listener.getsockname()
            write_address(Address(host, port, self._key.hex()))

    def close(self) -> None:
        """Accepts no more requests, and removes worker.json if it is ours."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # ends the accept() of the other thread
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
            if pending.replaced or pending.line in self._waiting:
                pending.reply(ReplacedAnswer())
            else:
                self._waiting[pending.line] = pending

    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    def _withdraw(self, pending: PendingRequest) -> None:
        """Takes a request out of the queue for which nobody waits any more."""
        with self._changed:
            pending.replaced = True
            if self._waiting.get(pending.line) is pending:
                del self._waiting[pending.line]

    def _listen(self) -> None:
        while True:
            try:
                end, _ = self._listener.accept()
            except ConnectionError:
                continue
            except OSError:
                return
            if self._free.acquire(blocking=False):
                threading.Thread(target=self._serve, args=(end,), daemon=True).start()
            else:
                end.close()  # who has the key tries again

    def _serve(self, end: socket.socket) -> None:
        try:
            with closing(end), suppress(*BROKEN):
                line = Line(end, _ASKING)
                shake_hands(line, self._key, first=True)
                answer = self._answer(line.recv_bytes(LONGEST), line)
                line.extend(_LISTENING)
                line.send_bytes(json.dumps(asdict(answer)).encode())
        finally:
            self._free.release()

    def _answer(self, data: bytes, line: Line) -> Answer:
        try:
            request = REQUEST.validate_python(json.loads(data))
        except ValidationError as error:
            return ErrorAnswer(first_problem(error, "request"))
        except (ValueError, RecursionError) as error:
            return ErrorAnswer(f"request: not valid JSON ({error})")
        if isinstance(request, StatusRequest):
            return replace(self._status(), waiting=self.waiting())
        return self._wait(self.put(request), line)

    def _wait(self, pending: PendingRequest, line: Line) -> Answer:
        """The answer, once there is one. Raises EOFError if nobody waits for it any more."""
        while (answer := pending.wait(_GLANCE)) is None:
            if line.hung_up():
                self._withdraw(pending)
                raise EOFError
        return answer
