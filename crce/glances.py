"""What an open tab waits for: a question to the worker over a local socket, and one answer.

JSON in bytes, never pickle. Only who can read home()/worker.json (mode 0600) has the key.
"""

import json
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener, answer_challenge, deliver_challenge
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from crce import files, jobs
from crce.concepts import ConceptSpec
from crce.config import EraseConfig
from crce.errors import CrceError
from crce.library import parse_spec

LONGEST = 1 << 20  # bytes of a request
MOST_PICTURES = 512
BROKEN = (OSError, EOFError, ValueError, AssertionError, AuthenticationError)


class Column(BaseModel):
    """A column of pictures: those of the base (no run), or of a run's weights at some strength, with others' added."""

    model_config = ConfigDict(extra="forbid")
    run: str | None = None
    also: list[str] = []
    strength: Annotated[float, Field(ge=-10, le=10)] = 1.0


def _spec(facts: object) -> ConceptSpec:
    try:
        return parse_spec(json.dumps(facts), "spec")
    except CrceError as error:
        raise ValueError(str(error)) from None


def _config(facts: object) -> EraseConfig:
    try:
        return EraseConfig(**facts)
    except (CrceError, TypeError) as error:
        raise ValueError(str(error)) from None


Prompts = Annotated[list[str], Field(min_length=1)]
Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=2**63)]], Field(min_length=1)]
Spec = Annotated[InstanceOf[ConceptSpec], BeforeValidator(_spec)]
Config = Annotated[InstanceOf[EraseConfig], BeforeValidator(_config)]


class Asked(BaseModel):
    """What every question says: which tab waits, and for which base model."""

    model_config = ConfigDict(extra="forbid")
    tab: str
    base: str

    @property
    def judged(self) -> bool:
        """Whether the base's judge is needed."""
        return False


class Draw(Asked):
    """Pictures of each prompt with each seed in each column; `ask` is what the judge is asked of a prompt."""

    kind: Literal["draw"]
    columns: Annotated[list[Column], Field(min_length=1)]
    prompts: Prompts
    seeds: Seeds
    ask: list[str | None]

    @property
    def judged(self) -> bool:
        return any(self.ask)

    @model_validator(mode="after")
    def _fits(self) -> "Draw":
        if len(self.ask) != len(self.prompts):
            raise ValueError(f"ask has {len(self.ask)} entries for {len(self.prompts)} prompts")
        _few(len(self.columns) * len(self.prompts) * len(self.seeds))
        return self


class Distances(Asked):
    """How far each term is from the target in the base's text encoder, and where on a map."""

    kind: Literal["distances"]
    spec: Spec


class Preview(Asked):
    """Pictures of each prompt with each seed, before and after the instant edit by the spec's training terms."""

    kind: Literal["preview"]
    spec: Spec
    prompts: Prompts
    seeds: Seeds = [0]

    @model_validator(mode="after")
    def _fits(self) -> "Preview":
        _few(2 * len(self.prompts) * len(self.seeds))
        return self


class Coverage(Asked):
    """How often the base draws each term, as its judge sees it."""

    kind: Literal["coverage"]
    spec: Spec

    @property
    def judged(self) -> bool:
        return True


class Preflight(Asked):
    """What a run of these concepts would cost (see `cost.Cost`)."""

    kind: Literal["preflight"]
    specs: Annotated[list[Spec], Field(min_length=1)]
    config: Config


def _few(pictures: int) -> None:
    if pictures > MOST_PICTURES:
        raise ValueError(f"these are more than {MOST_PICTURES} pictures; ask for fewer prompts or seeds")


REQUEST = TypeAdapter(Annotated[Draw | Distances | Preview | Coverage | Preflight, Field(discriminator="kind")])


def ask(request: dict, timeout: float = 60) -> dict:
    """The worker's answer; {"error": text} where the question was wrong, {"replaced": true} where a newer one came.

    Starts a worker if the question needs a model. Raises CrceError if none answers in time.
    """
    until = time.monotonic() + timeout
    patient = request.get("kind") != "status"
    for attempt in count():
        # Now and then, since a worker may leave or be killed while we wait; not each time, since starting takes long.
        if patient and attempt % 30 == 0:
            jobs.ensure_worker()
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


class Glance:
    """A question that waits for its answer."""

    def __init__(self, asked: Asked):
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


class Desk:
    """Where glances wait. Threads take them in; the one thread that has the model serves them."""

    def __init__(self, status: Callable[[], dict]):
        self._status = status
        self._waiting: dict[tuple[str, str], Glance] = {}
        self._served: Glance | None = None
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

    def take(self, timeout: float = 0) -> Glance | None:
        """The glance that waits longest; waits up to `timeout` seconds for one to come."""
        with self._changed:
            self._served = None
            self._changed.wait_for(lambda: self._waiting, timeout)
            if self._waiting:
                self._served = self._waiting.pop(next(iter(self._waiting)))
            return self._served

    def put(self, asked: Asked) -> Glance:
        """Replaces what the same tab asked before in this kind, also what is being answered."""
        glance = Glance(asked)
        with self._changed:
            if old := self._waiting.pop(glance.line, None):
                old.reply({"replaced": True})
            if self._served and self._served.line == glance.line:
                self._served.replaced = True
            self._waiting[glance.line] = glance
            self._changed.notify()
        return glance

    def put_back(self, glance: Glance) -> None:
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
