"""Asks a language model for JSON of a given form, over any OpenAI-compatible endpoint, and hands on what it writes.

Knows nothing of concepts. Servers differ in what they make of a schema, so it is tried, done without, and
repaired, in this order; whatever goes wrong ends as a CrceError that says what to do.
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

PATIENCE = 10  # seconds that a busy server may ask for before it is tried once more
LONGEST = 60_000  # characters of an answer: ten times what 15 + 15 terms take
SILENCE = 60  # seconds without a word; the library's own 600 are too long for someone who watches a button
MOMENT = 0.1  # seconds between two looks at what was written; also while the model is silent, for a close()

T = TypeVar("T")
Message = dict[str, str]
Writing = Generator[str, None, T]
"""Yields what the model writes, a moment's words at a time, "" while it is silent, and returns the answer.

Closing it cancels the request.
"""


class Form(BaseModel):
    """What an answer must look like. Sent as a JSON schema: strict servers want it closed."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})


FormT = TypeVar("FormT", bound=Form)


def missing_settings(model: str = "") -> list[str]:
    """The environment variables that a language model still needs; a local server needs no key."""
    endpoint = os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL")
    needs = {"OPENAI_API_KEY or OPENAI_BASE_URL": endpoint, "CRCE_MODEL": model or os.environ.get("CRCE_MODEL")}
    return [name for name, value in needs.items() if not value]


def status() -> tuple[bool, str]:
    """Whether a language model is configured, and what a status line says about it."""
    if missing := missing_settings():
        return False, f"no LLM connected: set {' and '.join(missing)}"
    return True, Chat.from_env().label


def models() -> list[str]:
    """The models that the endpoint offers, by name; none where there is no endpoint or it does not list them."""
    if missing_settings("any"):
        return []
    try:
        answer = openai.OpenAI(api_key=_key(), timeout=5, max_retries=0).get("/models", cast_to=object)
    except (openai.APIError, ValueError):
        return []
    match answer:
        case {"data": [*rows]}:
            return sorted(row["id"] for row in rows)
    return []


def _key() -> str:
    return os.environ.get("OPENAI_API_KEY") or "none"


@dataclass(frozen=True)
class Chat:
    """One model at one endpoint. Holds no connection and no conversation: each question opens its own."""

    model: str
    url: str = "https://api.openai.com/v1"
    key: str = field(default="none", repr=False)
    silence: float = SILENCE

    @classmethod
    def from_env(cls, model: str = "") -> "Chat":
        """The endpoint of OPENAI_BASE_URL and OPENAI_API_KEY. Raises CrceError naming what is missing.

        model: another than CRCE_MODEL.
        """
        if missing := missing_settings(model):
            raise CrceError(f"No language model is connected. Set {' and '.join(missing)}, then try again.")
        return cls(model or os.environ["CRCE_MODEL"], os.environ.get("OPENAI_BASE_URL") or cls.url, _key())

    @property
    def label(self) -> str:
        return f"{self.model} at {self._host}"

    def ask(self, form: type[FormT], question: str, system: str = "") -> Writing[FormT]:
        """The answer as `form`. If the first does not fit, the model hears why and may answer once more."""
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": question})
        text = yield from self._say(messages, form)
        try:
            return _read(form, text)
        except ValueError as error:
            repair = _repair(text, error)
        text = yield from self._say([*messages, *repair], form)
        try:
            return _read(form, text)
        except ValueError as error:
            raise CrceError(
                f"{self.model} did not answer in the form asked for, twice: {_why(error)}. "
                f"Try again, or another CRCE_MODEL. It said: {text[:200]!r}"
            ) from None

    def _say(self, messages: list[Message], form: type[Form]) -> Writing[str]:
        """One completion as it is written, a moment's words at a time.

        Whatever ends it, an error, a close() or an endless answer: leaving the runner cancels the request.
        """
        heard = _Heard()
        try:
            with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
                listening = runner.get_loop().create_task(self._listen(messages, form, heard))
                while not listening.done() and len(heard.text) <= LONGEST:
                    before = len(heard.text)
                    runner.run(asyncio.wait({listening}, timeout=MOMENT))
                    yield heard.text[before:]
                if listening.done():
                    listening.result()
        except (openai.APIError, ValueError) as error:
            raise CrceError(self._what_to_do(error, heard)) from error
        return self._text(heard)

    async def _listen(self, messages: list[Message], form: type[Form], heard: "_Heard") -> None:
        # Retrying is done here: the library would wait for as long as a busy server wishes.
        facts = {"base_url": self.url, "api_key": self.key, "timeout": self.silence, "max_retries": 0}
        async with openai.AsyncOpenAI(**facts) as client:
            create = partial(client.chat.completions.create, model=self.model, messages=messages, stream=True)
            async with await _begun(create, form) as stream:
                async for chunk in stream:
                    heard.take(chunk)

    def _text(self, heard: "_Heard") -> str:
        if not heard.anything:
            raise CrceError(
                f"{self._host} does not speak the OpenAI protocol at {self.url!r}. "
                "Check OPENAI_BASE_URL; it usually ends in /v1."
            )
        if heard.refusal or heard.filtered:
            raise CrceError(
                f"{self.model} declines to answer: {heard.refusal[:200] or 'filtered'!r}. "
                "Choose another CRCE_MODEL, or write the terms by hand."
            )
        return heard.text

    def _what_to_do(self, error: Exception, heard: "_Heard") -> str:
        host = self._host
        match error:
            case openai.APITimeoutError():
                return f"{host} said nothing for {self.silence:g} s. Try again, or a smaller model."
            case openai.APIConnectionError() if heard.anything:
                return f"{host} broke off in the middle of its answer. Try again; nothing was changed."
            case openai.APIConnectionError():
                return f"{host} cannot be reached. Is the server running, and is OPENAI_BASE_URL right?"
            case openai.AuthenticationError() | openai.PermissionDeniedError():
                return f"{host} does not accept the key ({error.status_code}). Check OPENAI_API_KEY."
            case openai.NotFoundError():
                return f"{host} knows no model {self.model!r} there. Check CRCE_MODEL and OPENAI_BASE_URL."
            case openai.RateLimitError():
                seconds = _seconds(error)
                when = "later" if seconds is None else f"in {seconds:g} s"
                return f"{host} refuses for now (429): {error.message[:200]!r}. Try again {when}."
            case openai.APIStatusError():
                return f"{host} failed with {error.status_code}: {error.message[:200]!r}. Try again later."
            case openai.APIError():
                return f"{host} failed while it answered: {error.message[:200]!r}. Try again, or another CRCE_MODEL."
            case _:
                return f"{host} answered with something that is no JSON. Check OPENAI_BASE_URL."

    @property
    def _host(self) -> str:
        try:
            return urlsplit(self.url).hostname or self.url
        except ValueError:
            return self.url


@dataclass
class _Heard:
    """What has come of an answer so far."""

    text: str = ""
    refusal: str = ""
    filtered: bool = False
    anything: bool = False

    def take(self, chunk: object) -> None:
        """Takes one chunk in. What is no chunk of a chat, or tells usage only, is passed over."""
        match chunk:
            case ChatCompletionChunk(choices=[Choice(delta=ChoiceDelta(content=str() | None) as delta) as choice, *_]):
                self.text += delta.content or ""
                self.refusal += delta.refusal or ""
                self.filtered |= choice.finish_reason == "content_filter"
                self.anything = True


async def _begun(create: Callable, form: type[Form]) -> openai.AsyncStream:
    """Servers that refuse a JSON schema are asked again without one."""
    schema = {"name": form.__name__, "strict": True, "schema": form.model_json_schema()}
    try:
        return await _patiently(partial(create, response_format={"type": "json_schema", "json_schema": schema}))
    except openai.APIStatusError as error:
        if not _about_the_schema(error):
            raise
    return await _patiently(create)


async def _patiently(create: Callable) -> openai.AsyncStream:
    """A server that is busy for a few seconds only is waited for, once."""
    try:
        return await create()
    except openai.RateLimitError as error:
        seconds = _seconds(error)
        if seconds is None or seconds > PATIENCE:
            raise
    await asyncio.sleep(seconds)
    return await create()


def _seconds(error: openai.RateLimitError) -> float | None:
    """How long a busy server asks to be left alone; it may also give a date, or say nothing."""
    try:
        return max(0.0, float(error.response.headers.get("retry-after", "")))
    except ValueError:
        return None


def _about_the_schema(error: openai.APIStatusError) -> bool:
    return error.status_code in (400, 422) or (error.status_code == 500 and "response_format" in str(error))


def _read(form: type[FormT], text: str) -> FormT:
    """The outermost {…} of an answer, after any thoughts: models like to wrap it in words and fences."""
    text = text.rpartition("</think>")[2]
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        raise ValueError("there is no complete JSON object in it" if text.strip() else "it is empty")
    return form.model_validate_json(text[start : end + 1])


def _repair(text: str, error: ValueError) -> list[Message]:
    wish = f"That did not fit: {_why(error)}. Answer again, completely, with JSON of the shape asked for only."
    return [{"role": "assistant", "content": text or "…"}, {"role": "user", "content": wish}]


def _why(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(f"{'.'.join(map(str, f['loc'])) or 'JSON'}: {f['msg']}" for f in error.errors()[:3])
