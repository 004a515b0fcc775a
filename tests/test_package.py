"""The package: what it needs, what it carries, and that it works far from any checkout."""

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
import tomllib
import zipfile
from urllib.request import urlopen

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import crce
from crce.files import ROOT
from crce.worker import client
from crce.worker.requests import StatusRequest
from tests.servers import find_port

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
SEVEN = ["gradio", "torch", "diffusers", "transformers", "openai", "datasets", "huggingface_hub"]


def lines(name: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_requirements_are_those_of_the_package_with_its_app():
    assert sorted(lines("requirements.txt")) == sorted(PROJECT["dependencies"])
    assert set(EXTRAS["app"]) <= set(PROJECT["dependencies"])
    assert [Requirement(line).name for line in lines("requirements.txt")[:7]] == SEVEN


def test_a_version_that_was_tested_is_known_of_everything_that_is_asked_for():
    pins = {
        canonicalize_name(name): version for name, _, version in (p.partition("==") for p in lines("constraints.txt"))
    }
    for line in [*PROJECT["dependencies"], *EXTRAS["dev"]]:
        asked = Requirement(line)
        assert asked.specifier.contains(pins[canonicalize_name(asked.name)]), line
    assert f"torch=={pins['torch']}" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize(("card", "build"), [("GPU 0: NVIDIA L4", "'torch===2.13.0'"), ("", "torch==2.13.0")])
def test_make_takes_the_build_of_torch_for_the_machine(card, build, tmp_path):
    """With CUDA where nvidia-smi, which is a program of the test here, lists a card; else without it."""
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\necho '{card}'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    command = ["make", "--dry-run", "--always-make", "venv", f"VENV={tmp_path}"]
    said = subprocess.check_output(command, cwd=ROOT, env={**os.environ, "PATH": path}, text=True)
    (line,) = [line for line in said.splitlines() if "import torch" in line]
    assert build in line and ("+cpu" in line) == (not card and sys.platform == "linux")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built here and now."""
    (path,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("wheel")), versions=["standard"])
    return zipfile.ZipFile(path)


def test_the_wheel_carries_all_that_the_program_reads(wheel):
    names = set(wheel.namelist())
    for folder in ("assets/app", "assets/emoji-sd", "assets/lexicon", "corefconcept"):
        files = [path for path in (ROOT / folder).rglob("*") if path.is_file()]
        assert files and not {f"crce/data/{path.relative_to(ROOT).as_posix()}" for path in files} - names
    code = [path for folder in ("crce", "app") for path in (ROOT / folder).rglob("*")]
    wanted = [path for path in code if path.is_file() and path.suffix in (".py", ".html", ".md", ".typed")]
    assert not {path.relative_to(ROOT).as_posix() for path in wanted} - names
    assert {"crce/py.typed", "app/py.typed", "crce/data/assets/emoji-sd/judge/judge.safetensors"} <= names
    assert {name.split("/")[0] for name in names} == {"crce", "app", f"crce_studio-{crce.__version__}.dist-info"}


def test_the_wheel_has_the_one_version_and_both_commands(wheel):
    facts = f"crce_studio-{crce.__version__}.dist-info"
    assert f"\nVersion: {crce.__version__}\n" in wheel.read(f"{facts}/METADATA").decode()
    assert "version" not in PROJECT
    commands = dict(re.findall(r"(\S+) = (\S+)", wheel.read(f"{facts}/entry_points.txt").decode()))
    assert commands == {"crce": "crce.__main__:main", "crce-studio": "app.__main__:main"}


def test_the_source_archive_holds_what_tests_and_builds_need(tmp_path):
    (path,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = ("pyproject.toml", "constraints.txt", "Makefile", "tests/test_package.py", "docs/results/growth.json",
              "assets/emoji-sd/model_index.json", "assets/build/__main__.py", "benchmarks/loop.py")  # fmt: skip
    assert not set(wanted) - names
    assert not {name for name in names if name.startswith((".venv", ".git/", "out/"))}


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Runs Python with the unpacked wheel in place of this checkout, in a folder of the user's."""
    site, folder = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("user")
    wheel.extractall(site)

    def start(*arguments, **options):
        env = {**os.environ, "PYTHONPATH": str(site)}
        return subprocess.Popen([sys.executable, "-P", *map(str, arguments)], cwd=folder, env=env, text=True, **options)

    start.site = site
    return start


def ended(process) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


def test_installed_it_draws_with_the_model_that_it_carries(installed, tmp_path):
    code, out, err = ended(installed("-c", "import crce; print(crce.__file__)", **PIPES))
    assert out.strip() == str(installed.site / "crce" / "__init__.py"), err
    code, out, err = ended(installed("-m", "crce", "generate", "a dog", "--out", tmp_path / "drawn", "--json", **PIPES))
    assert code == 0 and len(json.loads(out)["images"]) == 1, err


def test_installed_it_has_dataset_and_lexicon(installed):
    code, out, err = ended(installed("-m", "crce", "dataset", "check", **PIPES))
    assert (code, out.splitlines()[-1][:11]) == (0, "50 concepts"), err
    code, out, err = ended(installed("-m", "crce", "propose", "lighthouse", "--json", **PIPES))
    assert code == 0 and json.loads(out)["specs"][0]["corefs"], err


@pytest.mark.parametrize("command", ["table", "measure dog cat"])
def test_installed_it_says_what_needs_a_checkout(installed, command):
    code, out, err = ended(installed("-m", "crce", *command.split(), **PIPES))
    assert (code, out) == (1, "") and err.startswith("error: ") and "the repository" in err and err.count("\n") == 1


def test_installed_its_worker_stands_on_its_own(installed, home):
    """It is found and serves, though the folder that it was started from holds no package."""
    code, _, err = ended(installed("-c", "from crce.worker.client import ensure_worker; ensure_worker()", **PIPES))
    assert code == 0, err
    until = time.monotonic() + 120
    while not (home / "worker.json").exists():
        assert time.monotonic() < until, (home / "worker.log").read_text()
        time.sleep(0.1)
    os.kill(client.send(StatusRequest()).pid, signal.SIGTERM)


def test_installed_the_app_shows_its_page(installed):
    port = find_port()
    process = installed("-m", "app", "--port", port)
    try:
        assert "CRCE Studio" in fetched(f"http://127.0.0.1:{port}/", process)
    finally:
        process.terminate()
        process.wait(timeout=30)


def fetched(url: str, process) -> str:
    until = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until:
        try:
            with urlopen(url) as answer:
                return answer.read().decode()
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the app did not start")
