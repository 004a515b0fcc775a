"""Asks a language model at any OpenAI-compatible endpoint for JSON with a given schema, and streams what it writes.

Knows nothing about concepts. Servers differ in what they accept and in where they put the answer: we ask with a schema,
then without one, then with the system text folded into the user's; and once more with the validation error. Every
failure becomes a CrceError that says what to do.
"""

import asyncio
import json
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2
import openai
from pydantic import BaseModel, ConfigDict, ValidationError

from crce import wire
from crce.environment import LOOPBACK, read_key, read_url, read_word
from crce.errors import CrceError
from crce.files import refuse_repeated_keys
from crce.redact import hide, public_url, redact
from crce.wire import Exceeded, Limits

MAX_RETRY_AFTER = 10  # seconds that we wait for a busy server before the second attempt
MAX_ANSWER = 60_000  # characters of an answer: ten times the length of 15 + 15 terms
# A model that thinks for long sends some 300 bytes for each of its tokens. 60 seconds without output are enough for an
# interactive tool; the library's default is 600.
LIMITS = Limits(size=32_000_000, seconds=1200, idle=60)
MODELS_LIMITS = Limits(size=2_000_000, seconds=5, idle=5)
MODELS_KEPT = 300  # seconds that a list of models is kept
MAX_MODELS = 1000
POLL_INTERVAL = 0.1  # seconds between two yields, also while the model is silent, so that close() takes effect
# Answers that another form of the question cannot help: the key, the address, too many, a gateway that is down.
FINAL = (401, 403, 404, 408, 429, 502, 503, 504)

T = TypeVar("T")
Message = dict[str, str]
Writing = Generator[str, None, T]
"""Yields what the model writes in small pieces ("" while it is silent) and returns the parsed answer.

Closing it cancels the request.
"""


class Form(BaseModel):
    """Base class of answer schemas. Servers in strict mode require `additionalProperties: false`."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})


FormT = TypeVar("FormT", bound=Form)


def missing_settings(model: str = "") -> list[str]:
    """The environment variables that must still be set for a language model; a local server needs no key."""
    endpoint = read_word("OPENAI_API_KEY") or read_word("OPENAI_BASE_URL")
    needs = {"OPENAI_API_KEY or OPENAI_BASE_URL": endpoint, "CRCE_MODEL": model or read_word("CRCE_MODEL")}
    return [name for name, value in needs.items() if not value]


def status() -> tuple[bool, str]:
    """Whether a language model is configured, and the text for a status line."""
    if missing := missing_settings():
        return False, f"no LLM connected: set {' and '.join(missing)}"
    try:
        return True, Chat.from_env().label
    except CrceError as error:
        return False, str(error)


def models() -> list[str]:
    """The names of the endpoint's models; empty if there is no endpoint or it does not list them. Kept for minutes."""
    if missing_settings("any"):
        return []
    try:
        chat = replace(Chat.from_env("any"), limits=MODELS_LIMITS)
    except CrceError:
        return []
    # One request for all pages that open at once.
    with _listing:
        return list(_list_kept(chat, int(time.monotonic() / MODELS_KEPT)))


_listing = Lock()


@lru_cache(maxsize=8)
def _list_kept(chat: "Chat", period: int) -> tuple[str, ...]:
    return tuple(chat.list_models())


@dataclass(frozen=True)
class Chat:
    """A model at an endpoint. Stateless: each question opens its own connection and conversation."""

    model: str
    url: str = "https://api.openai.com/v1"
    key: str = field(default="none", repr=False)
    limits: Limits = LIMITS

    @classmethod
    def from_env(cls, model: str = "") -> "Chat":
        """The endpoint of OPENAI_BASE_URL and OPENAI_API_KEY. Raises CrceError naming missing or broken variables.

        model: overrides CRCE_MODEL.
        """
        if missing := missing_settings(model):
            raise CrceError(f"No language model is connected. Set {' and '.join(missing)}, then try again.")
        url, key = read_url("OPENAI_BASE_URL") or cls.url, read_key("OPENAI_API_KEY") or "none"
        return cls(model or read_word("CRCE_MODEL"), url, hide(key))

    @property
    def label(self) -> str:
        return f"{self.model} at {self._host}"

    def ask(self, form: type[FormT], question: str, system: str = "") -> Writing[FormT]:
        """Asks for an answer of type `form`. If it is invalid, the model gets the error and a second attempt.

        Raises CrceError if the endpoint fails, the model refuses, or both answers are invalid.
        """
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": question})
        shapes = _list_shapes(form, bool(system))
        first = yield from self._complete(messages, shapes)
        try:
            return _parse(form, first.answer)
        except ValueError as error:
            repair = _build_repair(first, error)
        second = yield from self._complete([*messages, *repair], shapes)
        try:
            return _parse(form, second.answer)
        except ValueError as error:
            raise CrceError(self._describe_invalid(second, error)) from None

    def list_models(self) -> list[str]:
        """The names of the endpoint's models; empty whatever it answers, since a name can be typed too."""

        async def ask() -> object:
            async with asyncio.timeout(self.limits.seconds), self._connect() as client:
                return await client.get("/models", cast_to=object)

        try:
            answer = asyncio.run(ask())
        except Exception:  # whatever a server or library comes up with
            return []
        rows = answer.get("data") if isinstance(answer, dict) else None
        names = {row.get("id") for row in rows if isinstance(row, dict)} if isinstance(rows, list) else set()
        return sorted(_shorten(name) for name in names if isinstance(name, str))[:MAX_MODELS]

    def _connect(self) -> openai.AsyncOpenAI:
        """A client that asks this machine directly and bounds each answer. To be used within one task."""
        wire.limits.set(self.limits)
        hooks: dict[str, list[Callable[..., Any]]] = {"request": [wire.prepare_async], "response": [wire.bind_async]}
        http = httpx2.AsyncClient(follow_redirects=True, trust_env=self._host not in LOOPBACK, event_hooks=hooks)
        # We retry ourselves: the library would wait for as long as a busy server asks it to.
        return openai.AsyncOpenAI(base_url=self.url, api_key=self.key, max_retries=0, http_client=http)

    def _complete(self, messages: list[Message], shapes: "list[_Shape]") -> Writing["_Received"]:
        """One completion, streamed; asked in the first of these shapes that is not refused. The others are removed.

        Leaving the runner cancels the request, whether after an error, a close() or an endless answer.
        """
        while True:
            received = _Received()
            try:
                yield from self._stream(shapes[0].apply(messages), shapes[0], received)
                return self._check(received)
            except CrceError:
                raise
            # Whatever a server or library comes up with.
            except Exception as error:
                if len(shapes) == 1 or received.begun or not _is_about_the_shape(error):
                    raise CrceError(self._advise(error, received)) from error
            shapes.pop(0)

    def _stream(self, messages: list[Message], shape: "_Shape", received: "_Received") -> Writing[None]:
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            listening = runner.get_loop().create_task(self._listen(messages, shape, received))
            while not listening.done() and len(received.text) <= MAX_ANSWER:
                before = len(received.text)
                runner.run(asyncio.wait({listening}, timeout=POLL_INTERVAL))
                yield received.text[before:]
            if listening.done():
                listening.result()

    async def _listen(self, messages: list[Message], shape: "_Shape", received: "_Received") -> None:
        seconds = self.limits.seconds
        try:
            async with asyncio.timeout(seconds), self._connect() as client:
                await self._retry(client, {"model": self.model, "messages": messages, **shape.extra}, received)
        except TimeoutError:
            raise Exceeded(f"does not end its answer within {seconds:g} s") from None

    async def _retry(self, client: openai.AsyncOpenAI, question: dict[str, Any], received: "_Received") -> None:
        """Waits for a busy server once, if it asks for only a few seconds."""
        try:
            return await self._read(client, question, received)
        except openai.RateLimitError as error:
            seconds = _read_retry_after(error)
            if seconds is None or seconds > MAX_RETRY_AFTER:
                raise
        await asyncio.sleep(seconds)
        await self._read(client, question, received)

    async def _read(self, client: openai.AsyncOpenAI, question: dict[str, Any], received: "_Received") -> None:
        create = client.chat.completions.with_streaming_response.create
        async with create(stream=True, **question) as response:
            async for line in response.iter_lines():
                received.read(line)
                if received.ended:
                    return
            received.finish()

    def _check(self, received: "_Received") -> "_Received":
        """Raises CrceError for no answer or a refusal."""
        if not received.anything:
            raise CrceError(
                f"{self._host} does not speak the OpenAI protocol at {public_url(self.url)!r}. "
                "Check OPENAI_BASE_URL; it usually ends in /v1."
            )
        if received.refusal or received.finish_reason == "content_filter":
            raise CrceError(
                f"{self.model} refuses to answer: {_shorten(received.refusal) or 'filtered'!r}. "
                "Choose another CRCE_MODEL, or write the terms by hand."
            )
        return received

    def _describe_invalid(self, received: "_Received", error: ValueError) -> str:
        if received.finish_reason == "length":
            return (
                f"The answer of {self.model} was cut off by its length limit, twice. Give the server a longer context "
                "or more tokens for an answer, or use another CRCE_MODEL."
            )
        return (
            f"{self.model} gave two invalid answers: {_describe_error(error)}. "
            f"Try again, or use another CRCE_MODEL. The answer was: {_shorten(received.answer)!r}"
        )

    def _advise(self, error: Exception, received: "_Received") -> str:
        host = self._host
        match _find_cause(error):
            case Exceeded() as exceeded:
                return f"{host} {exceeded}. Nothing was changed; check OPENAI_BASE_URL, or use another CRCE_MODEL."
            case openai.APITimeoutError() | httpx2.TimeoutException():
                return f"{host} said nothing for {self.limits.idle:g} s. Try again, or use a smaller model."
            case openai.APIConnectionError() | httpx2.TransportError() if received.anything:
                return f"{host} broke off in the middle of its answer. Nothing was changed; try again."
            case openai.APIConnectionError() | httpx2.TransportError() | httpx2.InvalidURL():
                return f"{host} cannot be reached. Is the server running, and is OPENAI_BASE_URL right?"
            case openai.AuthenticationError() | openai.PermissionDeniedError() as refused:
                return f"{host} rejects the key ({refused.status_code}). Check OPENAI_API_KEY."
            case openai.NotFoundError():
                return f"{host} has no model {self.model!r}. Check CRCE_MODEL and OPENAI_BASE_URL."
            case openai.RateLimitError() as busy:
                seconds = _read_retry_after(busy)
                when = "later" if seconds is None else f"in {seconds:g} s"
                return f"{host} refuses for now (429): {_shorten(busy.message)!r}. Try again {when}."
            case openai.APIStatusError(status_code=code, message=message):
                return f"{host} failed with {code}: {_shorten(message)!r}. Try again later, or use another CRCE_MODEL."
            case _Failed(args=(message,)):
                return f"{host} failed while it answered: {_shorten(message)!r}. Try again, or use another CRCE_MODEL."
            case ValueError():
                return f"{host} did not answer with valid JSON. Check OPENAI_BASE_URL."
            case other:
                return f"{host} cannot be asked ({type(other).__name__}: {other}). Check OPENAI_BASE_URL."

    @property
    def _host(self) -> str:
        try:
            return urlsplit(self.url).hostname or self.url
        except ValueError:
            return self.url


class _Failed(Exception):
    """The server reports an error inside an answer that began as a success."""


@dataclass(frozen=True)
class _Shape:
    """A form of the question. extra: further fields. folded: the system text is a part of the user's."""

    extra: dict[str, Any] = field(default_factory=dict)
    folded: bool = False

    def apply(self, messages: list[Message]) -> list[Message]:
        if not self.folded:
            return messages
        system, user, *others = messages
        return [{**user, "content": f"{system['content']}\n\n{user['content']}"}, *others]


def _list_shapes(form: type[Form], has_system: bool) -> list[_Shape]:
    """With a schema, without one, and without a system message: some models' templates have no place for it."""
    schema = {"name": form.__name__, "strict": True, "schema": form.model_json_schema()}
    with_schema = _Shape({"response_format": {"type": "json_schema", "json_schema": schema}})
    return [with_schema, _Shape(), *([_Shape(folded=True)] if has_system else [])]


def _is_about_the_shape(error: Exception) -> bool:
    """Whether another form of the question may help: servers refuse with any status, or inside a success."""
    cause = _find_cause(error)
    if isinstance(cause, openai.APIStatusError):
        return cause.status_code not in FINAL
    return isinstance(cause, _Failed)


def _find_cause(error: BaseException) -> BaseException:
    """The library wraps what our hooks raise."""
    cause = error.__cause__
    return cause if isinstance(cause, Exceeded) else error


@dataclass
class _Received:
    """The part of an answer that has arrived. thoughts: what a server puts apart from the answer."""

    text: str = ""
    thoughts: str = ""
    refusal: str = ""
    finish_reason: str = ""
    anything: bool = False
    ended: bool = False
    _rest: list[str] = field(default_factory=list)

    @property
    def begun(self) -> bool:
        return bool(self.text or self.thoughts or self.refusal)

    @property
    def answer(self) -> str:
        """The text; where there is none, the thoughts: some servers put everything there."""
        return self.text if self.text.strip() else self.thoughts

    def read(self, line: str) -> None:
        """A line of the stream. Raises _Failed for an error event, and ValueError for what is not JSON."""
        name, _, value = line.partition(":")
        if name in ("data", "error"):
            self.ended = value.strip() == "[DONE]"
            if value.strip() and not self.ended:
                event = json.loads(value)
                self._add({"error": event} if name == "error" else event)
        elif line.strip() and name not in ("", "event", "id", "retry"):
            self._rest.append(line)

    def finish(self) -> None:
        """The end of the stream. A server that does not stream has sent one JSON object."""
        if self._rest and not self.anything:
            try:
                whole = json.loads("\n".join(self._rest))
            except ValueError:
                return
            self._add(whole)

    def _add(self, event: object) -> None:
        """Adds an event. Those without a choice, such as usage statistics, are ignored."""
        match event:
            case {"error": fault} if fault:
                raise _Failed(_describe_fault(fault))
            case {"object": "error", **rest}:
                raise _Failed(_describe_fault(rest))
            case {"choices": [{"delta": dict(said)} | {"message": dict(said)} as choice, *_]}:
                self.anything = True
                self.text += _join_parts(said.get("content"))
                self.thoughts += _join_parts(said.get("reasoning_content") or said.get("reasoning"))
                self.refusal += _join_parts(said.get("refusal"))
                self.finish_reason = str(choice.get("finish_reason") or self.finish_reason)


def _shorten(text: str) -> str:
    """The beginning of what a server says. Its secrets are hidden first: a half of one would not be recognised."""
    return redact(text)[:200]


def _describe_fault(fault: object) -> str:
    return str(fault.get("message") or fault) if isinstance(fault, dict) else str(fault)


def _join_parts(content: object) -> str:
    """The text of a message, which may come in parts; parts of another kind, such as thoughts, are left out."""
    match content:
        case str():
            return content
        case [*parts]:
            return "".join(map(_join_parts, parts))
        case {"type": "text" | "output_text", "text": str(text)}:
            return text
    return ""


def _read_retry_after(error: openai.RateLimitError) -> float | None:
    """The server's retry-after in seconds; None if it gives a date or nothing."""
    try:
        return max(0.0, float(error.response.headers.get("retry-after", "")))
    except ValueError:
        return None


def _parse(form: type[FormT], text: str) -> FormT:
    """The last object in the text with a field of the schema: models wrap it in prose, fences and thoughts with braces.

    Raises ValueError if there is none or it does not match the schema.
    """
    if not text.strip():
        raise ValueError("it is empty")
    found = [found for found in _find_objects(text) if form.model_fields.keys() & found.keys()]
    if not found:
        raise ValueError("it contains no complete JSON object")
    try:
        return form.model_validate(redact(found[-1]))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _find_objects(text: str) -> Iterator[dict]:
    """The outermost JSON objects in a text. Raises ValueError for one that has a key twice."""
    decoder, start = json.JSONDecoder(object_pairs_hook=refuse_repeated_keys), text.find("{")
    while start >= 0:
        try:
            found, end = decoder.raw_decode(text, start)
            yield found
        except (json.JSONDecodeError, RecursionError):
            end = start + 1
        start = text.find("{", end)


def _build_repair(received: _Received, error: ValueError) -> list[Message]:
    cut = " It was cut off by the length limit, so write less." if received.finish_reason == "length" else ""
    request = (
        f"That was invalid: {_describe_error(error)}.{cut} Answer again in full, only with JSON of the requested shape."
    )
    return [{"role": "assistant", "content": received.answer or "…"}, {"role": "user", "content": request}]


def _describe_error(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(f"{'.'.join(map(str, f['loc'])) or 'JSON'}: {f['msg']}" for f in error.errors()[:3])
