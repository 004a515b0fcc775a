"""On a Hugging Face Space: it starts with what a Space gives, visitors are apart, and nobody publishes as another."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from string import Template

import gradio as gr
import httpx2
import pytest
import yaml
from gradio_client import Client
from packaging.version import Version

from app import guard
from app.session import people
from app.tabs import publish
from crce import files, runs
from crce.config import EraseConfig
from crce.errors import CrceError
from crce.runs import Job
from tests.browser.studio import answers, end_worker, until
from tests.servers import find_port, serving
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


def test_the_steps_of_the_container_end_in_an_app_that_wants_a_login(tmp_path):
    command, environment, folder = build_container(tmp_path)
    code, port = list_files(tmp_path), find_port()
    program = shutil.which(command[0], path=environment["PATH"])
    assert program and Path(program).is_relative_to(tmp_path)
    environment |= {"CRCE_AUTH": "ann:pa55word!", "GRADIO_SERVER_PORT": str(port), "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen([program, *command[1:]], cwd=folder, env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        until(lambda: answers(process, url))
        assert httpx2.get(f"{url}/config").status_code == 401
        login = httpx2.post(f"{url}/login", data={"username": "ann", "password": "pa55word!"})
        assert login.json() == {"success": True}
        assert httpx2.get(f"{url}/config", cookies=login.cookies).json()["title"] == "CRCE Studio"
        client = Client(url, auth=("ann", "pa55word!"), verbose=False)
        run = client.predict("dog", "crce-uce", api_name="/erase")["run"]
        until(lambda: client.predict(run, api_name="/status")["state"] not in ("queued", "running"))
        assert client.predict(run, api_name="/status")["state"] == "done"
        # The code could be read-only: whatever is new or changed lies at home.
        home = Path(environment["CRCE_HOME"])
        changed = [path for path, _ in set(list_files(tmp_path).items()) ^ set(code.items())]
        assert changed and all(path.is_relative_to(home) for path in changed), changed
    finally:
        process.terminate()
        process.wait(timeout=60)
        end_worker(Path(environment["CRCE_HOME"]))


def build_container(home: Path) -> tuple[list[str], dict[str, str], Path]:
    """The command, environment and working folder after the Dockerfile's steps, done below an empty home.

    What needs the network or another user is not done: the image, the user, torch, and the package's dependencies, in
    whose place those of this environment stand. `--user` is that home.
    """
    installed = home / ".local" / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(installed), "LANG": "C.UTF-8"}
    command, folder = [], home
    for line in (SPACE / "Dockerfile").read_text(encoding="utf-8").splitlines():
        match line.replace("/home/user", str(home)).split():
            case ["ENV", *pairs]:
                values = dict(pair.split("=", 1) for pair in pairs)
                environment |= {name: Template(value).substitute(environment) for name, value in values.items()}
            case ["WORKDIR", place]:
                folder = Path(place)
                folder.mkdir()
            case ["COPY", "--chown=user", ".", "."]:
                shutil.copytree(files.ROOT, folder, ignore=shutil.ignore_patterns(*ignored()), dirs_exist_ok=True)
            case ["RUN", "pip", *_, "-c", "constraints.txt", "."]:
                here = ["--no-index", "--no-deps", "--no-build-isolation", "--ignore-installed", "--prefix"]
                pip = [sys.executable, "-m", "pip", "install", "-q", *here, home / ".local", "."]
                subprocess.run(pip, cwd=folder, env=environment, check=True)
            case ["RUN", "mkdir", place]:
                Path(place).mkdir()
            case ["CMD", *words]:
                command = json.loads(" ".join(words))
            case [("FROM" | "USER" | "EXPOSE"), _] | ["RUN", "useradd", *_] | []:
                pass
            case ["RUN", "pip", "install", "--no-cache-dir", "--user", torch, "--index-url", _]:
                assert torch in (files.ROOT / "constraints.txt").read_text().splitlines()
            case [word, *_]:
                assert word == "#", line
    return command, environment, folder


def list_files(folder: Path) -> dict[Path, int]:
    """When each file was changed; but for compiled code and caches of libraries."""
    left_out = {"__pycache__", ".cache", ".config"}
    return {
        path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and not left_out & {*path.parts}
    }


def ignored() -> list[str]:
    lines = (SPACE / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("**/") for line in lines if not line.startswith("#")]


def test_it_starts_with_what_a_space_gives(tmp_path):
    """No token, an empty home, another working folder, and a host that others reach."""
    port = find_port()
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
