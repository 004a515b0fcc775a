"""The parts of five programs that serve language models which matter to us: what each refuses and how it says so, and
where it puts the answer. Real HTTP, no model; their answers are those of their own code at the time of writing."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

NO_SYSTEM = "System role not supported"  # what templates of some models raise


@dataclass
class LLMServer:
    """refuse: the answer to a question that it does not take, else None. speak: the answer, given its text."""

    refuse: Callable[[dict], Response | None]
    speak: Callable[[str], Response]
    text: str
    requests: list[dict] = field(default_factory=list)

    @property
    def app(self) -> FastAPI:
        app = FastAPI()
        app.post("/v1/chat/completions")(self.complete)
        return app

    async def complete(self, request: Request) -> Response:
        body = await request.json()
        self.requests.append(body)
        return self.refuse(body) or self.speak(self.text)


def stream(*lines: str) -> Response:
    return StreamingResponse(iter([f"{line}\n\n" for line in lines]), media_type="text/event-stream")


def event(value: object) -> str:
    return f"data: {json.dumps(value)}"


def deltas(pieces: Iterable[dict], finish: str = "stop") -> Iterator[str]:
    head = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m"}
    for piece in pieces:
        yield event({**head, "choices": [{"index": 0, "delta": piece, "finish_reason": None}]})
    yield event({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    # Statistics have no choice.
    yield event({**head, "choices": [], "usage": {"total_tokens": 3}})
    yield "data: [DONE]"


def has_schema(body: dict) -> bool:
    return "response_format" in body


def has_system(body: dict) -> bool:
    return any(message["role"] == "system" for message in body["messages"])


def never(body: dict) -> Response | None:
    return None


def written(text: str) -> Response:
    """In pieces, as most servers do."""
    return stream(*deltas({"role": "assistant", "content": text[i : i + 40]} for i in range(0, len(text), 40)))


def ollama(text: str) -> LLMServer:
    """A model that thinks: `reasoning` beside an empty `content`, then the answer."""
    thoughts = [{"role": "assistant", "content": "", "reasoning": "Perhaps {names}? "}]
    answer = [{"role": "assistant", "content": text}]
    return LLMServer(never, lambda text: stream(*deltas([*thoughts, *answer])), text)


def vllm(text: str) -> LLMServer:
    """A template without a system role: 400 in its own form. `reasoning_content` holds what its parser takes for it."""

    def refuse(body: dict) -> Response | None:
        if has_system(body):
            fault = {"object": "error", "message": NO_SYSTEM, "type": "BadRequestError", "param": None, "code": 400}
            return JSONResponse(fault, 400)
        return None

    def speak(text: str) -> Response:
        return stream(*deltas([{"role": "assistant", "content": None}, {"reasoning_content": text}]))

    return LLMServer(refuse, speak, text)


def llama_cpp(text: str) -> LLMServer:
    """A schema that it cannot convert, or a build without grammars: 500, or 501. It says so before it begins."""

    def refuse(body: dict) -> Response | None:
        if has_schema(body):
            return JSONResponse({"error": {"code": 500, "message": "failed to parse", "type": "server_error"}}, 500)
        if has_system(body):
            fault = {"code": 501, "message": "not supported by this template", "type": "not_supported_error"}
            return JSONResponse({"error": fault}, 501)
        return None

    return LLMServer(refuse, written, text)


def lm_studio(text: str) -> LLMServer:
    """Refusals are an error event inside a success; thoughts stand before the answer, with braces of their own."""

    def refuse(body: dict) -> Response | None:
        if has_schema(body):
            return stream("event: error\n" + event({"error": {"message": "response_format is not supported"}}))
        return None

    return LLMServer(refuse, lambda text: written(f"I need {{names}} and {{}}. So:\n{text}\nDone {{sigh}}."), text)


def litellm(text: str) -> LLMServer:
    """Passes on what is behind it: an error as text, content in parts, or an answer that is not streamed."""

    def refuse(body: dict) -> Response | None:
        return JSONResponse({"error": "UnsupportedParamsError"}, 422) if has_schema(body) else None

    def speak(text: str) -> Response:
        content = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm {"}]}, {"type": "text", "text": text}]
        choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
        return JSONResponse({"id": "1", "object": "chat.completion", "choices": [choice]})

    return LLMServer(refuse, speak, text)


SERVERS = {"ollama": (ollama, 1), "vllm": (vllm, 3), "llama.cpp": (llama_cpp, 3), "lm-studio": (lm_studio, 2),
           "litellm": (litellm, 2)}  # fmt: skip
