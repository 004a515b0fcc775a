"""Strangers: who reaches the app, what another site may do, and whose runs, drafts and talks these are."""

import contextvars
import os
import subprocess
import sys
import time
from pathlib import Path

import gradio as gr
import httpx2
import pytest
from fastapi import FastAPI
from gradio.context import LocalContext
from starlette.middleware import Middleware

from app import guard
from app.main import launch
from app.session import drafts, people, transcript
from app.tabs import compare, erase, publish, start
from crce import files, runs
from crce.concepts.library import library
from crce.config import EraseConfig
from crce.errors import CrceError
from crce.files import ROOT
from crce.runs import Job
from tests.servers import find_port, serving


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_others_are_let_in_only_on_purpose(host):
    with pytest.raises(CrceError, match="can be reached from other machines"):
        launch(host, 1)


@pytest.mark.parametrize("auth", ["ann", "ann:", "ann:short", ":pa55word!", "ann:pa55word!,bob"])
def test_a_password_that_protects_nothing_is_refused(auth):
    with pytest.raises(CrceError, match="has no password of at least 8 characters") as error:
        launch("0.0.0.0", 1, auth=auth)
    assert "short:" not in str(error.value)


def test_the_program_says_so_in_one_line():
    command = [sys.executable, "app.py", "--host", "0.0.0.0"]
    done = subprocess.run(command, env={**os.environ, "CRCE_AUTH": ""}, capture_output=True, text=True, cwd=ROOT)
    assert (
        done.returncode == 1
        and done.stderr.startswith("error: 0.0.0.0 can be reached")
        and done.stderr.count("\n") == 1
    )


def test_behind_a_login_nothing_is_shown_without_one(home):
    port = find_port()
    command = [sys.executable, "app.py", "--host", "0.0.0.0", "--port", str(port)]
    environment = {**os.environ, "CRCE_AUTH": "ann:pa55word!, bob:secret-22", "HTTP_PROXY": "http://127.0.0.1:9"}
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as browser:
            while not _listens(browser):
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.3)
            assert browser.get("/config").status_code == 401
            assert browser.post("/gradio_api/upload", files={"files": ("x.csv", b"a")}).status_code == 401
            assert browser.post("/login", data={"username": "bob", "password": "pa55word!"}).status_code == 400
            assert browser.post("/login", data={"username": "bob", "password": "secret-22"}).status_code == 200
            assert browser.get("/config").json()["title"] == "CRCE Studio"
            # In our home: the folder that all programs of Gradio share may be full of theirs.
            (kept,) = browser.post("/gradio_api/upload", files={"files": ("x.csv", b"a")}).json()
            assert Path(kept).is_relative_to(home.resolve())
    finally:
        process.kill()
        process.communicate()


def _listens(browser):
    try:
        return bool(browser.get("/"))
    except httpx2.TransportError:
        return False


# The guard


def guarded(uploads, hosts=("127.0.0.1", "localhost", "::1"), token=False, framed=False):
    shield = Middleware(guard.Guard, hosts=hosts, token=token, uploads=lambda: str(uploads), framed=framed)
    app = FastAPI(middleware=[shield])
    app.post("/gradio_api/upload")(lambda: "taken")
    app.get("/")(lambda: "page")
    return app


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "", "[::2]:80"])
def test_a_rebound_name_is_not_answered(tmp_path, host):
    with serving(guarded(tmp_path)) as url:
        assert httpx2.get(url, headers={"host": host}).status_code == 421
        assert httpx2.post(f"{url}/gradio_api/upload", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "LocalHost", "[::1]:7860"])
def test_our_own_names_are_answered(tmp_path, host):
    with serving(guarded(tmp_path)) as url:
        assert httpx2.get(url, headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:1"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({}, 200),
    ],
)
def test_another_site_uploads_nothing(tmp_path, headers, status):
    with serving(guarded(tmp_path)) as url:
        assert httpx2.post(f"{url}/gradio_api/upload", headers=headers).status_code == status
        own = {"origin": url, **headers}
        assert httpx2.post(f"{url}/gradio_api/upload", headers=own).status_code == status


def test_behind_a_proxy_its_name_is_ours(tmp_path):
    with serving(guarded(tmp_path, hosts=None)) as url:
        headers = {"origin": "https://studio.example", "x-forwarded-host": "studio.example"}
        assert httpx2.post(f"{url}/gradio_api/upload", headers=headers).status_code == 200


def test_uploads_have_a_quota(tmp_path):
    with serving(guarded(tmp_path)) as url:
        with (tmp_path / "large").open("wb") as file:
            file.truncate(guard.MAX_UPLOADED + 1)
        assert httpx2.post(f"{url}/gradio_api/upload").status_code == 413
        (tmp_path / "large").unlink()
        assert httpx2.post(f"{url}/gradio_api/upload").status_code == 200


def test_an_open_server_gives_each_browser_a_token_once(tmp_path):
    with serving(guarded(tmp_path, hosts=None, token=True)) as url, httpx2.Client(base_url=url) as browser:
        first = browser.get("/")
        assert "HttpOnly" in first.headers["set-cookie"] and len(first.cookies[people.COOKIE]) >= 24
        assert "set-cookie" not in browser.get("/").headers
        assert httpx2.get(url).cookies[people.COOKIE] != first.cookies[people.COOKIE]


# Whose it is


@pytest.fixture
def accounts():
    people.share(people.Sharing(["ann", "bob", "eve"]))
    yield
    people.share(None)


@pytest.fixture
def open_to_all():
    people.share(people.Sharing())
    yield
    people.share(None)


def by(who, call, *arguments, **values):
    """The call as the event of a person: a user name, or a browser's cookies."""
    request = gr.Request(username=who) if isinstance(who, str) else gr.Request(cookies=who)

    def handle():
        LocalContext.request.set(request)
        return call(*arguments, **values)

    return contextvars.copy_context().run(handle)


def press(**facts):
    return gr.EventData(None, facts)


@pytest.fixture
def run(accounts, no_worker, dog, tiny_sd_dir):
    """A run of bob's."""
    return by("bob", erase.queue_run, Job(str(tiny_sd_dir), dog, EraseConfig(steps=20, corefs=3)), 0)


@pytest.mark.parametrize(
    "does",
    [
        lambda id: erase.press_run_button(None, press(id=id, do="stop")),
        lambda id: erase.press_run_button(None, press(id=id, do="resume")),
        lambda id: erase.press_run_button(None, press(id=id, do="delete")),
        lambda id: erase.rename(press(id=id, value="mine now")),
        lambda id: start.stop(press(id=id)),
        lambda id: compare.evaluate([id], 3),
    ],
)
def test_a_run_is_changed_by_its_owner_alone(run, does):
    before = sorted(path.name for path in run.dir.iterdir())
    with pytest.raises(gr.Error, match="belongs to another person"):
        by("eve", does, run.id)
    assert run.dir.exists() and sorted(path.name for path in run.dir.iterdir()) == before and not run.job.name
    by("bob", erase.rename, press(id=run.id, value="bob's"))
    assert run.job.name == "bob's"
    by("ann", erase.press_run_button, None, press(id=run.id, do="delete"))  # the operator
    assert not run.dir.exists()


def test_drafts_and_talks_are_ones_own(accounts):
    def edit(name):
        drafts.create(name, "object", "")
        opened = drafts.open_concept("dog")
        drafts.change(opened, lambda spec: drafts.mark_reviewed(spec, name))
        transcript.say(opened.spec, f"a wish of {name}")

    by("bob", edit, "bobbin")
    by("eve", edit, "evening")
    found = by("bob", library)
    assert "bobbin" in found and "evening" not in found and found["dog"].provenance.reviewer == "bobbin"
    assert [entry["text"] for entry in by("eve", transcript.read_entries, "dog")] == ["a wish of evening"]
    assert {"bobbin", "evening"}.isdisjoint(by("ann", library)) and {"bobbin", "evening"}.isdisjoint(library())
    by("ann", edit, "annex")
    assert (files.home() / "concepts" / "object" / "annex.json").exists(), "the operator's are those of the machine"


def test_only_the_operator_publishes(accounts):
    form = {"concepts": ["dog"], "seen": "", "repo": "me/x", "private": True, "pull_request": False, "tag": ""}
    with pytest.raises(gr.Error, match="Only the operator"):
        by("bob", publish.publish_dataset, **form)
    with pytest.raises(gr.Error, match="Only the operator"):
        by("bob", publish.show_difference, ["dog"], "me/x")
    assert by("ann", people.is_operator)


def test_on_an_open_server_a_token_is_a_person_and_nobody_publishes(open_to_all, no_worker, dog, tiny_sd_dir):
    mine, other = {people.COOKIE: "a"}, {people.COOKIE: "b"}
    run = by(mine, erase.queue_run, Job(str(tiny_sd_dir), dog, EraseConfig(steps=20, corefs=3)), 0)
    with pytest.raises(gr.Error, match="belongs to another person"):
        by(other, erase.press_run_button, None, press(id=run.id, do="delete"))
    with pytest.raises(gr.Error, match="Only the operator"):
        by(mine, publish.show_difference, ["dog"], "me/x")
    by(mine, erase.press_run_button, None, press(id=run.id, do="delete"))
    assert not run.dir.exists()


def test_a_run_that_nobody_started_here_is_the_operators(accounts, dog, tiny_sd_dir):
    run = runs.create(Job(str(tiny_sd_dir), dog, EraseConfig(steps=20, corefs=3)))
    with pytest.raises(gr.Error, match="belongs to another person"):
        by("bob", erase.rename, press(id=run.id, value="x"))


def test_one_person_fills_neither_queue_nor_library(accounts, no_worker, dog, tiny_sd_dir):
    job = Job(str(tiny_sd_dir), dog, EraseConfig(steps=20, corefs=3))
    for _ in range(people.MAX_WAITING):
        by("bob", erase.queue_run, job, 0)
    with pytest.raises(CrceError, match="10 of your runs wait"):
        by("bob", erase.queue_run, job, 0)
    by("eve", erase.queue_run, job, 0)
    with pytest.raises(CrceError, match="200 concepts of your own"):
        by("bob", people.require_shelf, people.MAX_CONCEPTS)


def test_alone_on_this_machine_nobody_is_asked(dog, tiny_sd_dir):
    run = runs.create(Job(str(tiny_sd_dir), dog, EraseConfig(steps=20, corefs=3)))
    erase.rename(press(id=run.id, value="mine"))
    assert run.job.name == "mine" and files.desk() == files.home()
