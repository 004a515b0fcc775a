import json
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, Listener, answer_challenge, deliver_challenge

from pydantic import (
    ValidationError,
)

from crce import files
from crce.worker.client import BROKEN, _address_file
from crce.worker.requests import LONGEST, REQUEST, Request


class PendingRequest:
    """A question that waits for its answer."""

    def __init__(self, asked: Request):
        self.asked, self.replaced = asked, False
        self._answer: dict = {}
        self._answered = threading.Event()

    def reply(self, answer: dict) -> None:
        self._answer = answer
        self._answered.set()

    def answer(self) -> dict:
        self._answered.wait()
        return self._answer

    @property
    def line(self) -> tuple[str, str]:
        """In each, only the newest question matters: those of one kind from one tab."""
        return self.asked.tab, self.asked.kind


class RequestBroker:
    """Where glances wait. Threads take them in; the one thread that has the model serves them."""

    def __init__(self, status: Callable[[], dict]):
        self._status = status
        self._waiting: dict[tuple[str, str], PendingRequest] = {}
        self._served: PendingRequest | None = None
        self._changed = threading.Condition()
        self._listener = Listener(("127.0.0.1", 0), backlog=16)
        self._key = secrets.token_bytes(32)

    def open(self) -> None:
        self.publish()
        threading.Thread(target=self._listen, daemon=True).start()

    def publish(self) -> None:
        """Writes the address, unless some worker's is there."""
        if not _address_file().exists():
            host, port = self._listener.address
            files.write_json(_address_file(), {"host": host, "port": port, "key": self._key.hex()})

    def close(self) -> None:
        """Answers nobody any more and takes the address away."""
        self._listener.close()
        with suppress(OSError, ValueError):
            if files.read_json(_address_file())["key"] == self._key.hex():
                _address_file().unlink()

    def take(self, timeout: float = 0) -> PendingRequest | None:
        """The glance that waits longest; waits up to `timeout` seconds for one to come."""
        with self._changed:
            self._served = None
            self._changed.wait_for(lambda: self._waiting, timeout)
            if self._waiting:
                self._served = self._waiting.pop(next(iter(self._waiting)))
            return self._served

    def put(self, asked: Request) -> PendingRequest:
        """Replaces what the same tab asked before in this kind, also what is being answered."""
        glance = PendingRequest(asked)
        with self._changed:
            if old := self._waiting.pop(glance.line, None):
                old.reply({"replaced": True})
            if self._served and self._served.line == glance.line:
                self._served.replaced = True
            self._waiting[glance.line] = glance
            self._changed.notify()
        return glance

    def put_back(self, glance: PendingRequest) -> None:
        """To the end of the line, with the rest of its work; unless it was replaced."""
        with self._changed:
            if glance.line in self._waiting:
                glance.reply({"replaced": True})
            else:
                self._waiting[glance.line] = glance

    def waiting(self) -> int:
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
        # The handshake is here, not in accept(), where one silent visitor would keep out all others.
        with connection, suppress(*BROKEN):
            deliver_challenge(connection, self._key)
            answer_challenge(connection, self._key)
            answer = self._answer(connection.recv_bytes(LONGEST))
            connection.send_bytes(json.dumps(answer).encode())

    def _answer(self, data: bytes) -> dict:
        try:
            request = json.loads(data)
            if request == {"kind": "status"}:
                return {**self._status(), "waiting": self.waiting()}
            return self.put(REQUEST.validate_python(request)).answer()
        except ValidationError as error:
            first = error.errors()[0]
            return {"error": f"{'.'.join(map(str, first['loc'])) or 'request'}: {first['msg']}"}
        except ValueError as error:
            return {"error": f"request: no JSON ({error})"}
