"""Servers as they really are: what they refuse, where they put the answer, how long and how much they send."""

import json
import time
from dataclasses import replace

import pytest
from fastapi import FastAPI

from crce.errors import CrceError
from crce.generators import drain
from crce.proposers import chat
from crce.proposers.chat import Chat, Form
from tests.llm_servers import SERVERS, LLMServer, deltas, event, has_schema, never, stream, written
from tests.scripted_llm import ScriptedLLM
from tests.servers import serving

NAMES = ["dog", "cat"]
TEXT = json.dumps({"names": NAMES})


class Names(Form):
    names: list[str]


def ask(app: FastAPI, **limits):
    """The names that a server tells."""
    with serving(app) as url:
        bounded = replace(chat.LIMITS, **limits)
        return drain(Chat("tiny", f"{url}/v1", "sk-canary-1", bounded).ask(Names, "Which?", "You list names.")).names


@pytest.mark.parametrize("name", SERVERS)
def test_every_server_is_understood(name):
    make, asked = SERVERS[name]
    server = make(TEXT)
    assert ask(server.app) == NAMES
    assert len(server.requests) == asked
    last = server.requests[-1]
    said = " ".join(message["content"] for message in last["messages"])
    assert "You list names." in said and "Which?" in said, "nothing of the question is lost"


@pytest.mark.parametrize("status", [400, 405, 415, 422, 500, 501])
def test_any_refusal_is_answered_with_a_plainer_question(status):
    from fastapi.responses import PlainTextResponse

    server = LLMServer(lambda body: PlainTextResponse("no", status) if has_schema(body) else None, written, TEXT)
    assert ask(server.app) == NAMES and len(server.requests) == 2


def test_an_error_event_before_the_first_word_is_a_refusal():
    told = 'data: {"error":{"message":"response_format is not supported","code":400}}'
    server = LLMServer(lambda body: stream(told, "data: [DONE]") if has_schema(body) else None, written, TEXT)
    assert ask(server.app) == NAMES and len(server.requests) == 2


def test_what_was_refused_once_is_not_asked_again_for_the_repair():
    server = SERVERS["llama.cpp"][0]("{}")
    with pytest.raises(CrceError, match="two invalid answers"):
        ask(server.app)
    assert len(server.requests) == 4, "two refusals, two answers"


def test_an_error_after_the_first_word_is_none():
    begun = [*deltas([{"content": '{"na'}])][:1]
    server = LLMServer(never, lambda text: stream(*begun, event({"error": {"message": "out of memory"}})), TEXT)
    with pytest.raises(CrceError, match="failed while it answered: 'out of memory'"):
        ask(server.app)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_that_no_form_helps_is_told_at_once(status):
    from fastapi.responses import JSONResponse

    server = LLMServer(lambda body: JSONResponse({"error": {"message": "no"}}, status), written, TEXT)
    with pytest.raises(CrceError, match="Check"):
        ask(server.app)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "pieces",
    [
        [{"content": [{"type": "text", "text": TEXT}]}],
        [{"content": None, "reasoning_content": TEXT}],
        [{"reasoning": "so {names}: "}, {"content": TEXT}],
        [{"content": f"<think>Perhaps {{this}}, or {{}}?</think>\n{TEXT}"}],
        [{"content": f"Thoughts {{a}} {{b: {{c}}}} {{\n```json\n{TEXT}\n``` or {{so}}"}],
        [{"content": f'First {{"names": ["draft"]}}, no: {TEXT}'}],
    ],
)
def test_an_answer_is_found_where_servers_put_it(pieces):
    assert ask(LLMServer(never, lambda text: stream(*deltas(pieces)), TEXT).app) == NAMES


def test_an_answer_with_a_key_twice_is_asked_for_again():
    answers = iter(['{"names": ["frog"], "names": ["dog", "cat"]}', TEXT])
    server = LLMServer(never, lambda text: written(next(answers)), TEXT)
    assert ask(server.app) == NAMES
    assert "the key 'names' appears twice" in server.requests[1]["messages"][-1]["content"]


def test_an_answer_that_was_cut_is_named():
    server = LLMServer(never, lambda text: stream(*deltas([{"content": TEXT[:-8]}], "length")), TEXT)
    with pytest.raises(CrceError, match="cut off by its length limit"):
        ask(server.app)
    assert "write less" in server.requests[1]["messages"][-1]["content"]


@pytest.mark.parametrize("shape", ["[]", "3", '"x"', '{"choices": 3}', '{"choices": [{"delta": "x"}]}',
                                   '{"choices": [{"delta": {"content": {"a": 1}}}]}', "[" * 9000])  # fmt: skip
def test_an_answer_of_a_wrong_shape_is_one_clear_error(shape):
    with pytest.raises(CrceError):
        ask(LLMServer(never, lambda text: stream(f"data: {shape}", "data: [DONE]"), TEXT).app)


# Too much, too long, elsewhere


@pytest.mark.parametrize(
    ("mode", "bounds", "says"),
    [
        ("drip", {"seconds": 1.0}, "does not end its answer within 1 s"),
        ("flood", {"size": 200_000}, "sends more than 200,000 bytes"),
        ("bomb", {}, "compresses its answer"),
        ("silent", {"idle": 0.5}, "said nothing for 0.5 s"),
    ],
)
def test_an_answer_is_bounded_in_size_and_time(mode, bounds, says):
    llm = ScriptedLLM()
    llm.mode, begun = mode, time.monotonic()
    with pytest.raises(CrceError, match=says):
        ask(llm.app, **bounds)
    assert time.monotonic() - begun < 60, "by the limit, not by the test's patience"


def test_a_key_is_not_taken_to_another_machine():
    llm, other = ScriptedLLM(), ScriptedLLM()
    with serving(other.app) as url:
        llm.mode, llm.elsewhere = "redirect", f"{url.replace('127.0.0.1', 'localhost')}/v1/chat/completions"
        with pytest.raises(CrceError, match="redirects to .* which is another machine"):
            ask(llm.app)
    assert not other.requests and not other.keys
