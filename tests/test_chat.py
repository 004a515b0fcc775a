"""A model over the wire, against a real server that behaves as well, and as badly, as real ones do."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import pytest

from crce.errors import CrceError
from crce.generators import drain
from crce.proposers import chat
from crce.proposers.chat import Chat, Form
from tests.scripted_llm import PIECE, ScriptedLLM
from tests.servers import serving


class Names(Form):
    names: list[str]


@pytest.fixture
def llm():
    scripted = ScriptedLLM()
    scripted.answer = {"names": [f"name {n}" for n in range(40)]}
    return scripted


@pytest.fixture
def url(llm):
    with serving(llm.app) as address:
        yield f"{address}/v1"


@pytest.fixture
def ask(url):
    def ask(**limits):
        return Chat("tiny", url, limits=replace(chat.LIMITS, **limits)).ask(Names, "Which?", "You list names.")

    return ask


def test_an_answer_is_seen_while_it_is_written(ask, llm):
    llm.mode = "slow"
    writing, text = ask(), ""
    while len(text) < 3 * PIECE:
        text += next(writing)
    assert '"name 0", "name 1"' in text and '"name 39"' not in text
    text += "".join(rest := list(writing))
    assert len(rest) > 1 and json.loads(text)["names"] == llm.answer["names"]


@pytest.mark.parametrize(
    ("mode", "asked"),
    [("strict", 1), ("fenced", 1), ("thinking", 1), ("slow", 1), ("schema-400", 2), ("schema-500", 2),
     ("truncated-once", 2), ("429-once", 2)],
)  # fmt: skip
def test_servers_that_need_patience(ask, llm, mode, asked):
    llm.mode = mode
    assert drain(ask()).names == llm.answer["names"]
    assert len(llm.requests) == asked


def test_a_strict_schema_is_sent_and_left_out_where_it_is_refused(ask, llm):
    llm.mode = "schema-400"
    drain(ask())
    first, second = llm.requests
    assert first["response_format"]["json_schema"]["strict"] and first["stream"]
    assert first["response_format"]["json_schema"]["schema"]["additionalProperties"] is False
    assert "response_format" not in second and second["messages"] == first["messages"]


def test_the_repair_round_says_what_was_wrong(ask, llm):
    llm.mode = "truncated-once"
    drain(ask())
    assert "no complete JSON object" in llm.requests[1]["messages"][-1]["content"]


@pytest.mark.parametrize(
    ("mode", "says"),
    [("ignores-schema", "I like dogs"), ("truncated", "cut off by its length limit, twice"), ("empty", "it is empty"),
     ("endless", "la la"),
     ("refusal", "refuses to answer: 'I cannot.'"), ("filtered", "refuses to answer: 'filtered'"),
     ("429", "Try again in 3600 s"), ("429-twice", "Try again in 0.3 s"), ("429-mute", "Try again later"),
     ("401", "Check OPENAI_API_KEY"), ("404", "Check CRCE_MODEL"), ("500", "failed with 500"),
     ("html-502", "failed with 502"),
     ("html", "usually ends in /v1"), ("no-choices", "usually ends in /v1"), ("broken-json", "valid JSON"),
     ("drops", "broke off in the middle"), ("error-midway", "out of memory")],
)  # fmt: skip
def test_failures_say_what_to_do(ask, llm, mode, says):
    llm.mode = mode
    with pytest.raises(CrceError) as error:
        drain(ask())
    assert says in str(error.value)


def test_a_server_that_asks_for_an_hour_is_not_waited_for(ask, llm):
    llm.mode = "429"
    with pytest.raises(CrceError, match="3600 s"):
        drain(ask())
    assert len(llm.requests) == 1


def test_a_silent_server_is_given_up(ask, llm):
    llm.mode = "silent"
    with pytest.raises(CrceError, match=r"said nothing for 0\.5 s"):
        drain(ask(idle=0.5))


@pytest.mark.parametrize("mode", ["stalls", "silent"])
def test_closing_cancels_the_request(ask, llm, mode, caplog):
    llm.mode = mode
    writing = ask()
    while not llm.requests:
        next(writing)
    writing.close()
    _wait_for(lambda: llm.left == 1)
    assert not caplog.records  # nothing was left half closed


def test_closing_is_heard_from_another_thread(ask, llm):
    """The app steps and closes a generator in whichever thread is free."""
    llm.mode = "stalls"
    with closing(ask()) as writing:
        while not llm.requests:
            next(writing)
        thread = threading.Thread(target=writing.close)
        thread.start()
        thread.join()
    _wait_for(lambda: llm.left == 1)


def _wait_for(happens):
    while not happens():
        time.sleep(0.01)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v1", "nonsense", "http://[", "http://a b/v1"])
def test_an_address_where_nobody_answers(url):
    with pytest.raises(CrceError, match="cannot be reached"):
        drain(Chat("tiny", url).ask(Names, "Which?"))


def test_models_are_those_that_the_endpoint_lists(llm, url, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with ThreadPoolExecutor(8) as pages:
        assert {tuple(names) for names in pages.map(lambda _: chat.models(), range(8))} == {("other", "tiny")}
    assert llm.listed == 1, "eight pages ask once"


@pytest.mark.parametrize("mode", ["html", "drip", "flood", "bomb"])
def test_a_list_of_models_that_is_none_is_empty(llm, url, mode):
    llm.mode = mode
    assert Chat("any", url, limits=replace(chat.MODELS_LIMITS, seconds=1)).list_models() == []


@pytest.mark.parametrize("url", ["", "http://127.0.0.1:9/v1", "nonsense"])
def test_without_an_endpoint_there_are_no_models(url, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    assert chat.models() == []


def test_settings_come_from_the_environment(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "CRCE_MODEL"):
        monkeypatch.delenv(name, raising=False)
    missing = "set OPENAI_API_KEY or OPENAI_BASE_URL and CRCE_MODEL"
    assert chat.status() == (False, f"no LLM connected: {missing}")
    with pytest.raises(CrceError, match="Set OPENAI_API_KEY or OPENAI_BASE_URL and CRCE_MODEL"):
        Chat.from_env()
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1234/v1")
    monkeypatch.setenv("CRCE_MODEL", "tiny")
    assert chat.status() == (True, "tiny at 127.0.0.1")
    assert Chat.from_env("other").label == "other at 127.0.0.1"


def test_a_key_is_never_shown(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    monkeypatch.setenv("CRCE_MODEL", "tiny")
    assert Chat.from_env().key == "sk-canary"
    assert "canary" not in repr(Chat.from_env()) + chat.status()[1]


def test_a_real_server_and_a_real_model_speak_the_same_protocol(tmp_path):
    """Its words are nonsense: they must arrive one by one, and end in our own error."""
    from tests.tiny_llm import save_tiny_llm, served

    save_tiny_llm(tmp_path)
    text = ""
    with served(tmp_path) as address:
        writing = Chat(str(tmp_path), address).ask(Names, "Which?")
        with pytest.raises(CrceError, match="gave two invalid answers"):
            while True:
                text += next(writing)
    assert len(text) > 10
