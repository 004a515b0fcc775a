"""Canaries: keys and tokens that servers echo reach neither a page nor a file, nor an error, nor what is published."""

import base64
import json
import os
import subprocess
import sys

import pytest

from app.components import render
from app.session import drafts, transcript
from app.tabs import curate_chat
from crce import files, redact
from crce.concepts.library import own_path
from crce.errors import CrceError
from crce.files import ROOT
from crce.proposers import chat
from tests.scripted_llm import ScriptedLLM, meaning, phrases
from tests.servers import serving

KEY = "sk-canary-0123456789"


@pytest.fixture
def llm(monkeypatch):
    """A server that says the key wherever it can."""
    scripted = ScriptedLLM()
    retains = phrases("CANARY", "neighbour 1")
    scripted.answer = {"meanings": [meaning("", phrases("name 0", "my CANARY is"), retains)], "says": "CANARY, hm"}
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("CRCE_MODEL", "tiny")
    with serving(scripted.app) as url:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{url}/v1")
        yield scripted


def everything(home) -> bytes:
    """All bytes of all files in our home."""
    return b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())


def test_an_echoed_key_is_on_no_page_and_in_no_talk(llm, home):
    opened = drafts.open_concept("dog")
    pages = [str(shown) for shown in curate_chat.ask(opened, "more breeds", "")]
    assert KEY in json.dumps(llm.keys), "the server was told"
    after = transcript.take(opened, 1)
    pages.append(curate_chat.render_chat(after.spec))
    talk = transcript.read_entries("dog")[-1]
    assert talk["who"] == "proposer" and redact.HIDDEN in json.dumps(talk, ensure_ascii=False)
    assert "canary" not in "".join(pages) and b"canary" not in everything(home)
    assert own_path(after.spec).exists()


def test_an_echoed_key_is_in_no_error(llm, home):
    llm.mode = "echoes"
    list(curate_chat.ask(drafts.open_concept("dog"), "more breeds", ""))
    trouble = transcript.read_entries("dog")[-1]
    assert trouble["who"] == "trouble" and f"not for Bearer {redact.HIDDEN}" in trouble["text"]
    assert b"canary" not in everything(home), "not even the half before which the message is cut"


def test_a_key_among_the_models_is_hidden(llm):
    llm.models = ["tiny", f"for {KEY}"]
    assert chat.models() == [f"for {redact.HIDDEN}", "tiny"]


def test_the_program_prints_no_key(llm):
    command = [sys.executable, "-m", "crce", "propose", "dog", "--json"]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and redact.HIDDEN in done.stdout, done.stderr
    assert "canary" not in done.stdout + done.stderr


def test_a_password_in_an_address_is_hidden_too(llm, home, monkeypatch):
    address = os.environ["OPENAI_BASE_URL"].replace("http://", "http://ann:pa55word!@")
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    llm.mode = "echoes"
    list(curate_chat.ask(drafts.open_concept("dog"), "more breeds", ""))
    sent = base64.b64encode(b"ann:pa55word!").decode()
    assert set(llm.keys) == {f"Basic {sent}"}
    kept = everything(home)
    assert b"not for Basic " in kept and b"pa55word" not in kept and sent[:10].encode() not in kept


@pytest.mark.parametrize("other", ["", "sk-canary", "sk-canary-1", "6789-another"])
def test_a_key_is_hidden_while_it_is_being_written(other, monkeypatch, dog):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("HF_TOKEN", other)
    text = f"the key is {KEY}, and more" + "." * 200
    for end in range(len(text)):
        page = curate_chat.render_writing(dog, "tiny", text[:end])
        assert not [size for size in (5, 10, 20) if any(KEY[i : i + size] in page for i in range(len(KEY) - size + 1))]


def test_a_trace_shows_no_secret():
    code = (
        "from crce import redact; redact.guard_output(); import logging; logging.error('%s', KEY); raise KeyError(KEY)"
    )
    code = f"KEY = {KEY!r}; {code}"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "HF_TOKEN": KEY}, capture_output=True,
                          text=True, cwd=ROOT)  # fmt: skip
    assert done.stderr.count(redact.HIDDEN) >= 2 and "KeyError" in done.stderr and "canary" not in done.stderr


def test_the_values_are_looked_for_and_not_a_pattern(monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    assert redact.redact("none of hf_abcdefghijklmnop") == "none of hf_abcdefghijklmnop"
    monkeypatch.setenv("HF_TOKEN", "Nobody's+key/=")
    monkeypatch.setenv("CRCE_AUTH", "ann:pa55word!,bob:secret-22")
    monkeypatch.setenv("ALL_PROXY", "socks5://me:proxy%40word@10.0.0.1:1080")
    told = "Nobody's+key/= Nobody%27s%2Bkey%2F%3D pa55word! secret-22 proxy%40word proxy@word ann"
    assert redact.redact({"a": [told]}) == {"a": [" ".join([redact.HIDDEN] * 6 + ["ann"])]}
    assert str(CrceError(told)).endswith("ann") and "Nobody" not in str(CrceError(told))
    files.write_atomic(tmp_path / "x.json", told)
    assert "Nobody" not in (tmp_path / "x.json").read_text(encoding="utf-8")
    assert "secret-22" not in render("line", text=told)


@pytest.mark.parametrize(
    ("url", "shown"), [("https://a:b@example.org/v1", "https://example.org/v1"), ("http://[", "http://[")]
)
def test_an_address_is_shown_without_its_user(url, shown):
    assert redact.public_url(url) == shown
