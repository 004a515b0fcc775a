"""On a Hugging Face Space: it starts with what a Space gives, visitors are apart, and nobody publishes as another."""

import os
import re
import socket
import subprocess
import sys
from contextlib import closing
from importlib.metadata import version

import gradio as gr
import httpx2
import pytest
import yaml
from packaging.version import Version

from app import guard
from app.session import people
from app.tabs import publish
from crce import files, runs
from crce.config import EraseConfig
from crce.errors import CrceError
from crce.runs import Job
from tests.browser.studio import answers, until
from tests.servers import serving
from tests.test_exposure import guarded

SPACE = files.ROOT / "assets" / "space"


@pytest.fixture
def space(monkeypatch):
    monkeypatch.setenv("SPACE_ID", "someone/studio")


def test_the_front_matter_is_what_the_hub_asks_for():
    header = yaml.safe_load((SPACE / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert (header["sdk"], header["hf_oauth"], len(header["short_description"]) <= 60) == ("gradio", True, True)
    assert (files.ROOT / header["app_file"]).is_file()
    requirement = re.search(r"gradio>=([\d.]+)", (files.ROOT / "requirements.txt").read_text())[1]
    assert Version(requirement) <= Version(header["sdk_version"]) <= Version(version("gradio"))
    assert header["hf_oauth_scopes"] == ["contribute-repos"]


def test_the_container_copies_and_runs_what_is_there():
    text = (SPACE / "Dockerfile").read_text(encoding="utf-8")
    assert 'CMD ["crce-studio"]' in text and "USER user" in text and "CRCE_AUTH=" in text


def test_it_starts_with_what_a_space_gives(tmp_path):
    """No token, an empty home, another working folder, and a host that others reach."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
    environment = {
        **kept, "HOME": str(tmp_path), "SPACE_ID": "someone/studio", "GRADIO_SERVER_NAME": "0.0.0.0",
        "GRADIO_SERVER_PORT": str(port), "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    process = subprocess.Popen([sys.executable, files.ROOT / "app.py"], cwd=tmp_path, env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        until(lambda: answers(process, url))
        cookies = [httpx2.get(url).headers["set-cookie"] for _ in range(2)]
        assert cookies[0] != cookies[1] and all("SameSite=None; Secure; Partitioned" in cookie for cookie in cookies)
        config = httpx2.get(f"{url}/config").json()
        assert not [part for part in config["components"] if part["type"] == "loginbutton"]
    finally:
        process.terminate()
        process.wait(timeout=60)


def test_a_cookie_lives_in_the_frame_of_the_hubs_page_only_there(tmp_path):
    with serving(guarded(tmp_path, hosts=None, token=True, framed=True)) as url:
        assert "SameSite=None; Secure; Partitioned" in httpx2.get(url).headers["set-cookie"]
    with serving(guarded(tmp_path, hosts=None, token=True)) as url:
        assert "SameSite=Lax" in httpx2.get(url).headers["set-cookie"]
    assert guard.MAX_UPLOADED


def test_a_visitor_publishes_with_their_own_login_alone(space, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_space")
    with pytest.raises(CrceError, match="Log in with Hugging Face"):
        people.find_token("use the Hub", None)
    login = gr.OAuthToken(token="hf_of_the_visitor", scope="", expires_at=0)
    assert people.find_token("use the Hub", login) == "hf_of_the_visitor"
    with pytest.raises(gr.Error, match="Log in with Hugging Face"):
        publish.show_difference(["dog"], "someone/data")
    with pytest.raises(gr.Error, match="Log in with Hugging Face"):
        publish.publish_weights(run_id="x", formats=[], fp16=False, dataset="", seen="", repo="a/b", private=True,
                                pull_request=False, tag="")  # fmt: skip
    assert "Log in to publish under your own name" in publish.render_login()


def test_elsewhere_the_token_of_this_machine_is_used(monkeypatch):
    monkeypatch.delenv("SPACE_ID", raising=False)
    assert people.find_token("use the Hub", None) == ""


def test_with_zero_gpu_the_run_is_done_inside_the_decorated_call(space, monkeypatch, tmp_path, tiny_sd_dir, dog):
    """`spaces` exists on Spaces alone; a package of its shape stands in its place."""
    (tmp_path / "spaces.py").write_text(
        "inside = []\n"
        "def GPU(duration):\n"
        "    def decorate(function):\n"
        "        def call(*values):\n"
        "            inside.append(duration)\n"
        "            return function(*values)\n"
        "        return call\n"
        "    return decorate\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    from app.worker import start_work

    run = runs.create(Job(str(tiny_sd_dir), dog, EraseConfig("crce-uce")))
    try:
        start_work(run)
        assert (run.state, run.erased, sys.modules["spaces"].inside) == ("done", True, [60])
    finally:
        for name in ("spaces", "crce.zerogpu"):
            sys.modules.pop(name, None)
