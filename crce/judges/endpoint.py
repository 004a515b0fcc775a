"""A vision model at any OpenAI-compatible endpoint, asked with the paper's prompt. No torch.

Servers differ in what they understand: we ask for JSON by a schema and for the probabilities of the tokens, and leave
out what is refused. Every verdict is kept on disk as it comes: an evaluation that breaks off goes on from there.
"""

import base64
import hashlib
import io
import json
import math
import os
import re
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from crce.errors import CrceError
from crce.files import cache_file, read_json, write_json
from crce.judges.choices import ENDPOINT, missing_settings
from crce.judges.judge import PROMPT, RESTRICTION, THRESHOLD, Judge, JudgeFacts, Usage, Verdict, fill

if TYPE_CHECKING:
    import openai
    from PIL.Image import Image

AT_ONCE = 4  # questions on their way
TIMEOUT = 120  # seconds without an answer before we give up
RETRIES = 4  # of a busy server; the library waits for as long as it is asked to
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string", "enum": ["yes", "no"]}},
    "required": ["answer"],
    "additionalProperties": False,
}
_FORM = {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": SCHEMA}}
# What we ask for, and what is left when a server refuses it.
LADDER: tuple[dict[str, Any], ...] = (
    {"response_format": _FORM, "logprobs": True, "top_logprobs": 5, "temperature": 0},
    {"response_format": _FORM, "temperature": 0},
    {"response_format": _FORM},
    {"temperature": 0},
    {},
)
AGAIN = "Answer with one word: yes or no."
_WORD = re.compile(r"\b(yes|no)\b", re.IGNORECASE)
_PRICE = re.compile(r"\s*([\d.]+)[\s/,]+([\d.]+)\s*")


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens, read and written."""

    tokens_in: float
    tokens_out: float


@dataclass(frozen=True)
class Endpoint:
    """Where the model is asked."""

    model: str
    url: str = "https://api.openai.com/v1"
    key: str = field(default="none", repr=False)
    price: Price | None = None

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or self.url


class EndpointJudge(Judge):
    """P is that of the token yes against no where the server tells it, else 1 or 0."""

    def __init__(self, endpoint: Endpoint):
        self._endpoint = endpoint
        self.facts = JudgeFacts(ENDPOINT, f"{endpoint.model} at {endpoint.host}", f"{PROMPT}. {RESTRICTION}", THRESHOLD)
        self._rung, self._usage, self._lock = 0, Usage(), threading.Lock()

    @classmethod
    def from_env(cls) -> "EndpointJudge":
        """Of OPENAI_BASE_URL, OPENAI_API_KEY and CRCE_JUDGE_MODEL; CRCE_JUDGE_PRICE is "0.15/0.60", US dollars per
        million tokens. Raises CrceError naming what is missing or wrong."""
        if missing := missing_settings():
            raise CrceError(f"No vision model is connected. Set {' and '.join(missing)}, or choose another judge.")
        env = os.environ
        url, key = env.get("OPENAI_BASE_URL") or Endpoint.url, env.get("OPENAI_API_KEY") or Endpoint.key
        return cls(Endpoint(env["CRCE_JUDGE_MODEL"], url, key, _read_price(env.get("CRCE_JUDGE_PRICE", ""))))

    @property
    def usage(self) -> Usage:
        return self._usage

    def classify(self, images: "list[Image]", concept: str) -> list[Verdict]:
        """Raises CrceError if the endpoint fails or answers neither yes nor no; what came before is kept."""
        import openai

        client = openai.OpenAI(
            base_url=self._endpoint.url, api_key=self._endpoint.key, timeout=TIMEOUT, max_retries=RETRIES
        )
        began = time.monotonic()
        with client, ThreadPoolExecutor(AT_ONCE) as pool:
            asked = [pool.submit(self._judge, client, image, concept) for image in images]
            try:
                return [each.result() for each in asked]
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
                waited = self._usage.seconds + time.monotonic() - began
                self._usage = replace(self._usage, seconds=waited)

    def _judge(self, client: "openai.OpenAI", image: "Image", concept: str) -> Verdict:
        """The verdict on one picture, kept or asked for."""
        png = _to_png(image)
        path = cache_file("verdicts", [self.fingerprint, concept, hashlib.sha256(png).hexdigest()], ".json")
        if path.exists():
            return Verdict(**read_json(path))
        verdict = self._ask(client, png, concept)
        write_json(path, {"yes": verdict.yes, "p": verdict.p})
        return verdict

    def _ask(self, client: "openai.OpenAI", png: bytes, concept: str) -> Verdict:
        """Asks, and once more in plain words where the answer is neither yes nor no."""
        picture = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        content = [
            {"type": "text", "text": fill(self.facts.prompt, concept)},
            {"type": "image_url", "image_url": {"url": picture}},
        ]
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        choice = self._complete(client, messages)
        verdict = _read_verdict(choice)
        if verdict is None:
            messages += [{"role": "assistant", "content": choice.message.content or "…"},
                         {"role": "user", "content": AGAIN}]  # fmt: skip
            choice = self._complete(client, messages)
            verdict = _read_verdict(choice)
        if verdict is None:
            said = choice.message.content or getattr(choice.message, "refusal", "") or ""
            raise CrceError(
                f"{self._endpoint.model} answers neither yes nor no: {said[:100]!r}. Choose another CRCE_JUDGE_MODEL."
            )
        return verdict

    def _complete(self, client: "openai.OpenAI", messages: list[dict[str, Any]]) -> Any:
        """The first choice of a completion, with as much of LADDER as the server takes."""
        import openai

        create: Any = client.chat.completions.create
        while True:
            rung = self._rung
            try:
                answer = create(model=self._endpoint.model, messages=messages, **LADDER[rung])
                break
            except openai.APIStatusError as error:
                if rung == len(LADDER) - 1 or not _about_the_form(error):
                    raise CrceError(self._advise(error)) from None
                # Another thread may have come to the same conclusion.
                self._rung = max(self._rung, rung + 1)
            except (openai.APIError, ValueError) as error:
                raise CrceError(self._advise(error)) from None
        if not getattr(answer, "choices", None):
            raise CrceError(f"{self._endpoint.host} does not speak the OpenAI protocol. Check OPENAI_BASE_URL; it "
                            "usually ends in /v1.")  # fmt: skip
        self._count(answer)
        return answer.choices[0]

    def _count(self, answer: Any) -> None:
        read, written = (getattr(answer.usage, name, 0) or 0 for name in ("prompt_tokens", "completion_tokens"))
        price = self._endpoint.price
        with self._lock:
            was = self._usage
            cost = None
            if price:
                cost = (was.dollars or 0.0) + (read * price.tokens_in + written * price.tokens_out) / 1e6
            self._usage = replace(was, questions=was.questions + 1, tokens_in=was.tokens_in + read,
                                  tokens_out=was.tokens_out + written, dollars=cost)  # fmt: skip

    def _advise(self, error: Exception) -> str:
        import openai

        host = self._endpoint.host
        told = str(getattr(error, "message", error)).replace(self._endpoint.key, "…")[:200]
        match error:
            case openai.APITimeoutError():
                return f"{host} said nothing for {TIMEOUT} s. Try again: the verdicts so far are kept."
            case openai.APIConnectionError():
                return f"{host} cannot be reached. Is the server running, and is OPENAI_BASE_URL right?"
            case openai.AuthenticationError() | openai.PermissionDeniedError():
                return f"{host} rejects the key ({error.status_code}). Check OPENAI_API_KEY."
            case openai.NotFoundError():
                return f"{host} has no model {self._endpoint.model!r}. Check CRCE_JUDGE_MODEL and OPENAI_BASE_URL."
            case openai.RateLimitError():
                return f"{host} refuses for now (429): {told!r}. Try again later: the verdicts so far are kept."
            case openai.APIStatusError():
                return f"{host} failed with {error.status_code}: {told!r}. Does {self._endpoint.model!r} see pictures?"
            case _:
                return f"{host} did not answer in the OpenAI protocol: {told!r}. Check OPENAI_BASE_URL."


def _about_the_form(error: "openai.APIStatusError") -> bool:
    """Whether the server may refuse only how we ask."""
    named = any(name in str(error) for name in ("response_format", "logprobs", "temperature"))
    return error.status_code in (400, 422) or (error.status_code >= 500 and named)


def _to_png(image: "Image") -> bytes:
    file = io.BytesIO()
    image.convert("RGB").save(file, "PNG")
    return file.getvalue()


def _read_price(text: str) -> Price | None:
    """Raises CrceError for a text that is not two numbers."""
    if not text.strip():
        return None
    try:
        return Price(*map(float, _PRICE.fullmatch(text).groups()))  # type: ignore[union-attr]
    except (AttributeError, ValueError):
        raise CrceError(
            f"CRCE_JUDGE_PRICE is {text!r}; give US dollars per million tokens read and written, such as 0.15/0.60."
        ) from None


def _read_verdict(choice: Any) -> Verdict | None:
    """None for an answer that is neither yes nor no."""
    answer = _read_answer((choice.message.content or "").rpartition("</think>")[2])
    if answer is None:
        return None
    p = _read_probability(choice)
    # The words count: the probability may be that of another token.
    return Verdict(answer, p if p is not None and (p >= THRESHOLD) == answer else float(answer))


def _read_answer(text: str) -> bool | None:
    """From JSON with an answer, else from the first yes or no in the text."""
    try:
        told = json.loads(text[text.index("{") : text.rindex("}") + 1])["answer"]
    except (ValueError, LookupError, TypeError):
        told = text
    word = _WORD.search(str(told))
    return None if word is None else word[1].lower() == "yes"


def _read_probability(choice: Any) -> float | None:
    """P(yes | yes or no) of the token that says it; None where the server does not tell."""
    for token in getattr(choice.logprobs, "content", None) or ():
        if _letters(token.token) in ("yes", "no"):
            shares = _sum_words((other.token, other.logprob) for other in [*token.top_logprobs])
            shares = shares or _sum_words([(token.token, token.logprob)])
            total = sum(shares.values())
            return shares.get("yes", 0.0) / total if total else None
    return None


def _sum_words(tokens: Iterable[tuple[str, float]]) -> Mapping[str, float]:
    """The probability of yes and of no, over all tokens that say it."""
    shares: dict[str, float] = {}
    for token, logprob in tokens:
        if (word := _letters(token)) in ("yes", "no"):
            shares[word] = shares.get(word, 0.0) + math.exp(logprob)
    return shares


def _letters(token: str) -> str:
    return re.sub(r"[^a-z]", "", token.lower())
