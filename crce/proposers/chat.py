"""Asks a language model at any OpenAI-compatible endpoint for JSON with a given schema, and streams what it writes.

Knows nothing about concepts. Servers support JSON schemas to different degrees: we ask with a schema, then without one,
then once more with the validation error. Every failure becomes a CrceError that says what to do.
"""

import asyncio
import os
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

import openai
from openai.types.chat.chat_completion_chunk import ChatCompletionChunk, Choice, ChoiceDelta
from pydantic import BaseModel, ConfigDict, ValidationError

from crce.errors import CrceError

MAX_RETRY_AFTER = 10  # seconds that we wait for a busy server before the second attempt
MAX_ANSWER = 60_000  # characters of an answer: ten times the length of 15 + 15 terms
TIMEOUT = 60  # seconds without output before we give up; the library's 600 are too long for an interactive tool
POLL_INTERVAL = 0.1  # seconds between two yields, also while the model is silent, so that close() takes effect

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
    endpoint = os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL")
    needs = {"OPENAI_API_KEY or OPENAI_BASE_URL": endpoint, "CRCE_MODEL": model or os.environ.get("CRCE_MODEL")}
    return [name for name, value in needs.items() if not value]


def status() -> tuple[bool, str]:
    """Whether a language model is configured, and the text for a status line."""
    if missing := missing_settings():
        return False, f"no LLM connected: set {' and '.join(missing)}"
    return True, Chat.from_env().label


def models() -> list[str]:
    """The names of the endpoint's models; empty if there is no endpoint or it does not list them."""
    if missing_settings("any"):
        return []
    try:
        answer: object = openai.OpenAI(api_key=_read_key(), timeout=5, max_retries=0).get("/models", cast_to=object)
    except (openai.APIError, ValueError):
        return []
    match answer:
        case {"data": [*rows]}:
            return sorted(row["id"] for row in rows)
    return []


def _read_key() -> str:
    return os.environ.get("OPENAI_API_KEY") or "none"


@dataclass(frozen=True)
class Chat:
    """A model at an endpoint. Stateless: each question opens its own connection and conversation."""

    model: str
    url: str = "https://api.openai.com/v1"
    key: str = field(default="none", repr=False)
    silence: float = TIMEOUT

    @classmethod
    def from_env(cls, model: str = "") -> "Chat":
        """The endpoint of OPENAI_BASE_URL and OPENAI_API_KEY. Raises CrceError naming missing variables.

        model: overrides CRCE_MODEL.
        """
        if missing := missing_settings(model):
            raise CrceError(f"No language model is connected. Set {' and '.join(missing)}, then try again.")
        return cls(model or os.environ["CRCE_MODEL"], os.environ.get("OPENAI_BASE_URL") or cls.url, _read_key())

    @property
    def label(self) -> str:
        return f"{self.model} at {self._host}"

    def ask(self, form: type[FormT], question: str, system: str = "") -> Writing[FormT]:
        """Asks for an answer of type `form`. If it is invalid, the model gets the error and a second attempt.

        Raises CrceError if the endpoint fails, the model refuses, or both answers are invalid.
        """
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": question})
        text = yield from self._complete(messages, form)
        try:
            return _parse(form, text)
        except ValueError as error:
            repair = _build_repair(text, error)
        text = yield from self._complete([*messages, *repair], form)
        try:
            return _parse(form, text)
        except ValueError as error:
            raise CrceError(
                f"{self.model} gave two invalid answers: {_describe_error(error)}. "
                f"Try again, or use another CRCE_MODEL. The answer was: {text[:200]!r}"
            ) from None

    def _complete(self, messages: list[Message], form: type[Form]) -> Writing[str]:
        """One completion, streamed.

        Leaving the runner cancels the request, whether after an error, a close() or an endless answer.
        """
        received = _Received()
        try:
            with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
                listening = runner.get_loop().create_task(self._listen(messages, form, received))
                while not listening.done() and len(received.text) <= MAX_ANSWER:
                    before = len(received.text)
                    runner.run(asyncio.wait({listening}, timeout=POLL_INTERVAL))
                    yield received.text[before:]
                if listening.done():
                    listening.result()
        except (openai.APIError, ValueError) as error:
            raise CrceError(self._advise(error, received)) from error
        return self._check(received)

    async def _listen(self, messages: list[Message], form: type[Form], received: "_Received") -> None:
        # We retry ourselves: the library would wait for as long as a busy server asks it to.
        async with openai.AsyncOpenAI(
            base_url=self.url, api_key=self.key, timeout=self.silence, max_retries=0
        ) as client:
            create = partial(client.chat.completions.create, model=self.model, messages=messages, stream=True)
            async with await _start(create, form) as stream:
                async for chunk in stream:
                    received.add(chunk)

    def _check(self, received: "_Received") -> str:
        """The text of the answer. Raises CrceError for no answer or a refusal."""
        if not received.anything:
            raise CrceError(
                f"{self._host} does not speak the OpenAI protocol at {self.url!r}. "
                "Check OPENAI_BASE_URL; it usually ends in /v1."
            )
        if received.refusal or received.filtered:
            raise CrceError(
                f"{self.model} refuses to answer: {received.refusal[:200] or 'filtered'!r}. "
                "Choose another CRCE_MODEL, or write the terms by hand."
            )
        return received.text

    def _advise(self, error: Exception, received: "_Received") -> str:
        host = self._host
        match error:
            case openai.APITimeoutError():
                return f"{host} said nothing for {self.silence:g} s. Try again, or use a smaller model."
            case openai.APIConnectionError() if received.anything:
                return f"{host} broke off in the middle of its answer. Nothing was changed; try again."
            case openai.APIConnectionError():
                return f"{host} cannot be reached. Is the server running, and is OPENAI_BASE_URL right?"
            case openai.AuthenticationError() | openai.PermissionDeniedError():
                return f"{host} rejects the key ({error.status_code}). Check OPENAI_API_KEY."
            case openai.NotFoundError():
                return f"{host} has no model {self.model!r}. Check CRCE_MODEL and OPENAI_BASE_URL."
            case openai.RateLimitError():
                seconds = _read_retry_after(error)
                when = "later" if seconds is None else f"in {seconds:g} s"
                return f"{host} refuses for now (429): {error.message[:200]!r}. Try again {when}."
            case openai.APIStatusError():
                return f"{host} failed with {error.status_code}: {error.message[:200]!r}. Try again later."
            case openai.APIError():
                return (
                    f"{host} failed while it answered: {error.message[:200]!r}. Try again, or use another CRCE_MODEL."
                )
            case _:
                return f"{host} did not answer with valid JSON. Check OPENAI_BASE_URL."

    @property
    def _host(self) -> str:
        try:
            return urlsplit(self.url).hostname or self.url
        except ValueError:
            return self.url


@dataclass
class _Received:
    """The part of an answer that has arrived."""

    text: str = ""
    refusal: str = ""
    filtered: bool = False
    anything: bool = False

    def add(self, chunk: object) -> None:
        """Adds a chunk. Chunks without a choice, such as usage statistics, are ignored."""
        match chunk:
            case ChatCompletionChunk(choices=[Choice(delta=ChoiceDelta(content=str() | None) as delta) as choice, *_]):
                self.text += delta.content or ""
                self.refusal += delta.refusal or ""
                self.filtered |= choice.finish_reason == "content_filter"
                self.anything = True


async def _start(create: Callable, form: type[Form]) -> openai.AsyncStream:
    """Asks with a JSON schema, and again without one if the server refuses it."""
    schema = {"name": form.__name__, "strict": True, "schema": form.model_json_schema()}
    try:
        return await _retry(partial(create, response_format={"type": "json_schema", "json_schema": schema}))
    except openai.APIStatusError as error:
        if not _about_the_schema(error):
            raise
    return await _retry(create)


async def _retry(create: Callable) -> openai.AsyncStream:
    """Waits for a busy server once, if it asks for only a few seconds."""
    try:
        return await create()
    except openai.RateLimitError as error:
        seconds = _read_retry_after(error)
        if seconds is None or seconds > MAX_RETRY_AFTER:
            raise
    await asyncio.sleep(seconds)
    return await create()


def _read_retry_after(error: openai.RateLimitError) -> float | None:
    """The server's retry-after in seconds; None if it gives a date or nothing."""
    try:
        return max(0.0, float(error.response.headers.get("retry-after", "")))
    except ValueError:
        return None


def _about_the_schema(error: openai.APIStatusError) -> bool:
    return error.status_code in (400, 422) or (error.status_code == 500 and "response_format" in str(error))


def _parse(form: type[FormT], text: str) -> FormT:
    """Parses the outermost {…} after any reasoning: models often wrap JSON in prose and code fences.

    Raises ValueError if there is none or it does not match the schema.
    """
    text = text.rpartition("</think>")[2]
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        raise ValueError("it contains no complete JSON object" if text.strip() else "it is empty")
    return form.model_validate_json(text[start : end + 1])


def _build_repair(text: str, error: ValueError) -> list[Message]:
    request = (
        f"That was invalid: {_describe_error(error)}. Answer again in full, only with JSON of the requested shape."
    )
    return [{"role": "assistant", "content": text or "…"}, {"role": "user", "content": request}]


def _describe_error(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(f"{'.'.join(map(str, f['loc'])) or 'JSON'}: {f['msg']}" for f in error.errors()[:3])
