"""Asks a language model for JSON of a given form, over any OpenAI-compatible endpoint.

Knows nothing of concepts. Servers differ in what they make of a schema, so it is tried, done without, and
repaired, in this order; whatever goes wrong ends as a CrceError that says what to do.
"""

import json
import os
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

import openai
from openai.types.chat import ChatCompletion
from pydantic import BaseModel, ConfigDict, ValidationError

from crce.errors import CrceError

Message = dict[str, str]


class Form(BaseModel):
    """What an answer must look like. Sent as a JSON schema: strict servers want it closed."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})


FormT = TypeVar("FormT", bound=Form)


def missing_settings() -> list[str]:
    """The environment variables that a language model still needs; a local server needs no key."""
    endpoint = os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL")
    needs = {"OPENAI_API_KEY or OPENAI_BASE_URL": endpoint, "CRCE_MODEL": os.environ.get("CRCE_MODEL")}
    return [name for name, value in needs.items() if not value]


def status() -> tuple[bool, str]:
    """Whether a language model is configured, and what a status line says about it."""
    if missing := missing_settings():
        return False, f"no LLM connected: set {' and '.join(missing)}"
    host = urlsplit(os.environ.get("OPENAI_BASE_URL", "")).hostname or "api.openai.com"
    return True, f"{os.environ['CRCE_MODEL']} at {host}"


@dataclass(frozen=True)
class Chat:
    """One model at one endpoint. Holds the connection and no conversation."""

    client: openai.OpenAI
    model: str

    @classmethod
    def from_env(cls) -> "Chat":
        """From OPENAI_BASE_URL, OPENAI_API_KEY and CRCE_MODEL. Raises CrceError naming what is missing."""
        if missing := missing_settings():
            raise CrceError(f"No language model is connected. Set {' and '.join(missing)}, then try again.")
        key = os.environ.get("OPENAI_API_KEY") or "none"
        # The library's own 600 s are too long for someone who watches a button.
        return cls(openai.OpenAI(api_key=key, timeout=60, max_retries=1), os.environ["CRCE_MODEL"])

    def ask(self, form: type[FormT], question: str, system: str = "") -> FormT:
        """The answer as `form`. If the first does not fit, the model hears why and may answer once more."""
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": question})
        text = self._say(messages, form)
        try:
            return _read(form, text)
        except ValueError as error:
            text = self._say([*messages, *_repair(text, error)], form)
        try:
            return _read(form, text)
        except ValueError as error:
            raise CrceError(
                f"{self.model} did not answer in the form asked for, twice: {_why(error)}. "
                f"Try again, or another CRCE_MODEL. It said: {text[:200]!r}"
            ) from None

    def _say(self, messages: list[Message], form: type[Form]) -> str:
        """One completion. Servers that refuse a JSON schema are asked again without one."""
        schema = {"name": form.__name__, "strict": True, "schema": form.model_json_schema()}
        create = self.client.chat.completions.create
        try:
            try:
                format = {"type": "json_schema", "json_schema": schema}
                reply = create(model=self.model, messages=messages, response_format=format)
            except openai.APIStatusError as error:
                if not _about_the_schema(error):
                    raise
                reply = create(model=self.model, messages=messages)
        except (openai.APIError, json.JSONDecodeError) as error:
            raise CrceError(self._what_to_do(error)) from error
        return self._text(reply)

    def _text(self, reply: ChatCompletion | str) -> str:
        # The client hands on what it cannot read: a page of HTML, or JSON of another kind.
        if not isinstance(reply, ChatCompletion) or not reply.choices:
            raise CrceError(
                f"{self._host} does not speak the OpenAI protocol at {str(self.client.base_url)!r}. "
                "Check OPENAI_BASE_URL; it usually ends in /v1."
            )
        choice = reply.choices[0]
        refusal = choice.message.refusal or ("filtered" if choice.finish_reason == "content_filter" else "")
        if refusal:
            raise CrceError(
                f"{self.model} declines to answer: {refusal[:200]!r}. "
                "Choose another CRCE_MODEL, or write the terms by hand."
            )
        return choice.message.content or ""

    def _what_to_do(self, error: Exception) -> str:
        host = self._host
        match error:
            case openai.APITimeoutError():
                return f"{host} did not answer in {self.client.timeout:g} s. Try again, or a smaller model."
            case openai.APIConnectionError():
                return f"{host} cannot be reached. Is the server running, and is OPENAI_BASE_URL right?"
            case openai.AuthenticationError() | openai.PermissionDeniedError():
                return f"{host} does not accept the key ({error.status_code}). Check OPENAI_API_KEY."
            case openai.NotFoundError():
                return f"{host} knows no model {self.model!r} there. Check CRCE_MODEL and OPENAI_BASE_URL."
            case openai.RateLimitError():
                wait = error.response.headers.get("retry-after")
                return f"{host} is asked too often (429). Try again {f'in {wait} s' if wait else 'later'}."
            case openai.APIStatusError():
                return f"{host} failed with {error.status_code}: {error.message[:200]!r}. Try again later."
            case _:
                return f"{host} answered with something that is no JSON. Check OPENAI_BASE_URL."

    @property
    def _host(self) -> str:
        return self.client.base_url.host


def _about_the_schema(error: openai.APIStatusError) -> bool:
    return error.status_code in (400, 422) or (error.status_code == 500 and "response_format" in str(error))


def _read(form: type[FormT], text: str) -> FormT:
    """The outermost {…} of an answer: models like to wrap it in words and fences."""
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
