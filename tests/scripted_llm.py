"""An OpenAI-compatible server on loopback that answers as told. Real HTTP, no model."""

import json

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse

CERTAINTIES = ["Very High", "High", "Normal", "Low", "Very Low"]


def phrases(*texts: str) -> list[dict]:
    return [{"text": t, "certainty": CERTAINTIES[min(i // 3, 4)], "why": f"because {t}"} for i, t in enumerate(texts)]


def meaning(sense: str = "", corefs: list | None = None, retains: list | None = None) -> dict:
    return {
        "sense": sense,
        "corefs": corefs if corefs is not None else phrases(*(f"name {i}" for i in range(15))),
        "retains": retains if retains is not None else phrases(*(f"neighbour {i}" for i in range(15))),
    }


GOOD = {"meanings": [meaning()]}


class ScriptedLLM:
    """`mode` says how to fail, `answer` what to say; `requests` keeps the bodies that came in.

    strict, ignores-schema, schema-400, schema-500, fenced, truncated, truncated-once, empty, refusal,
    filtered, 429, 429-once, 401, 404, 500, html, broken-json, no-choices.
    """

    def __init__(self):
        self.mode, self.answer, self.requests = "strict", GOOD, []
        self.app = FastAPI()
        self.app.post("/v1/chat/completions")(self.complete)

    async def complete(self, request: Request):
        body = await request.json()
        self.requests.append(body)
        return self.failure(body) or self.spoken(body)

    def failure(self, body: dict):
        first, schema = len(self.requests) == 1, "response_format" in body
        if self.mode == "429" or (self.mode == "429-once" and first):
            return _error(429, "slow down", {"retry-after": "1"})
        if self.mode in ("schema-400", "schema-500") and schema:
            return _error(int(self.mode[-3:]), "response_format is not supported", {"x-should-retry": "false"})
        if self.mode in ("401", "404", "500"):
            return _error(int(self.mode), "no", {"x-should-retry": "false"})
        pages = {
            "html": HTMLResponse("<html><body>Welcome</body></html>"),
            "no-choices": JSONResponse({"ok": 1}),
            "broken-json": HTMLResponse('{"id": ', media_type="application/json"),
        }
        return pages.get(self.mode)

    def spoken(self, body: dict) -> dict:
        said = json.dumps(self.answer)
        short = self.mode == "truncated" or (self.mode == "truncated-once" and len(self.requests) == 1)
        text = said[:200] if short else said
        others = {
            "fenced": f"Sure! Here it is:\n```json\n{said}\n```\nAnything else?",
            "ignores-schema": "I like dogs.",
            "empty": "",
            "filtered": "",
            "refusal": None,
        }
        refusal = "I cannot." if self.mode == "refusal" else None
        message = {"role": "assistant", "content": others.get(self.mode, text), "refusal": refusal}
        finish = "length" if short else "content_filter" if self.mode == "filtered" else "stop"
        choices = [{"index": 0, "message": message, "finish_reason": finish}]
        return {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": choices,
        }


def _error(status: int, message: str, headers: dict[str, str]) -> JSONResponse:
    return JSONResponse({"error": {"message": message}}, status, headers)
