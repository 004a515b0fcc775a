"""A GPU is used, or it is said why not. nvidia-smi is a program here, written for the test."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from app.tabs import erase, status_bar
from app.tabs.erase_form import EraseForm
from crce import bases, devices
from crce.cli.bases import prepare
from crce.devices import Nvidia, Torch, find_problem, visible
from crce.errors import CrceError
from crce.files import ROOT
from crce.models.diffusion import describe_missing, pick_device

CARD = Nvidia(("NVIDIA H100",), "550.54", "12.4")

PROGRAM = """#!/bin/sh
case "$1" in
  --query-gpu=*) printf 'NVIDIA L4, 470.82.01\\nNVIDIA L4, 470.82.01\\n' ;;
  *) echo '| NVIDIA-SMI 470.82.01   Driver Version: 470.82.01   CUDA Version: 11.4  |' ;;
esac
"""

# Of a machine with a card that does not compute bf16, and one that does.
TWO_CARDS = """#!/bin/sh
case "$1" in
  --query-gpu=compute_cap) printf '7.5\\n9.0\\n' ;;
  --query-gpu=*) printf 'Tesla T4, 580.82.07\\nNVIDIA H100, 580.82.07\\n' ;;
  *) echo '| NVIDIA-SMI 580.82.07   Driver Version: 580.82.07   CUDA Version: 13.0  |' ;;
esac
"""
ON_TWO_CARDS = """
import asyncio, sys
import gradio as gr
from app.tabs import erase
from crce import devices

print(*(devices.describe(device) for device in ("auto", "cuda:1", "cpu")), sep="; ")

async def lines():
    values = {"concept": "dog", "base": "emoji-sd", "device": "cpu"}
    told = [line async for line in erase.estimate(gr.Request(session_hash="tab"), **values)]
    return [line for line in told if line != gr.skip()]

print(asyncio.run(lines())[-1])
"""


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Puts a program of this name first on the path, and forgets what the real one said."""

    def install(program):
        path = tmp_path / "nvidia-smi"
        path.write_text(program)
        path.chmod(0o755)
        devices.find_nvidia.cache_clear()

    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    yield install
    devices.find_nvidia.cache_clear()


def test_what_nvidia_smi_says_is_read(nvidia_smi):
    nvidia_smi(PROGRAM)
    assert devices.find_nvidia() == Nvidia(("NVIDIA L4", "NVIDIA L4"), "470.82.01", "11.4")
    nvidia_smi("#!/bin/sh\necho 'NVIDIA-SMI has failed because it could not communicate with the driver.'\nexit 9\n")
    assert devices.find_nvidia().failure.startswith("NVIDIA-SMI has failed")
    assert "nvidia-smi fails (NVIDIA-SMI has failed" in find_problem(devices.find_nvidia(), Torch("2.13", "13.0"))
    nvidia_smi("#!/bin/sh\necho 'No devices were found'\nexit 6\n")
    assert devices.find_nvidia() == Nvidia()


def test_the_installed_torch_is_known_without_importing_it():
    code = "import sys; from crce.devices import find_torch; print(find_torch(), 'torch' in sys.modules)"
    said = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).strip()
    import torch

    assert said == f"{Torch(torch.__version__, torch.version.cuda or '')!r} False"


@pytest.mark.parametrize(
    ("nvidia", "torch", "said"),
    [
        (CARD, Torch("2.13.0+cpu"), "The GPU (NVIDIA H100) is not used: the installed torch 2.13.0+cpu has no CUDA."),
        (CARD, Torch("2.13.0", "13.0"), "its driver 550.54 runs CUDA up to 12.4, and the installed torch needs 13.0."),
        (CARD, Torch("2.9.0", "12.8"), ""),
        (Nvidia(), Torch("2.13.0+cpu"), ""),
    ],
)
def test_a_card_that_is_not_used_is_named_with_the_reason(nvidia, torch, said):
    problem = find_problem(nvidia, torch)
    assert said in problem and bool(said) == bool(problem)


@pytest.mark.parametrize(
    ("setting", "seen"),
    [(None, "abc"), ("", ""), ("-1", ""), ("2,0", "ca"), ("1", "b"), ("0,7,1", "a"), ("GPU-12", ["GPU-12"])],
)
def test_cards_that_are_hidden_are_not_counted(setting, seen):
    assert visible(("a", "b", "c"), setting) == tuple(seen)


@pytest.mark.parametrize(
    ("queued", "running", "cards", "workers"),
    [
        ([], 3, 2, []),
        (["auto"], 0, 0, ["auto"]),
        (["auto", "auto"], 0, 1, ["auto"]),
        (["auto"], 0, 4, ["auto"]),
        (["auto", "auto", "auto"], 0, 2, ["auto", "cuda:1"]),
        (["auto"], 1, 2, ["auto", "cuda:1"]),
        # What is not there goes to the first worker, which says so.
        (["cuda:7"], 0, 0, ["auto"]),
        (["cpu"], 0, 0, ["auto"]),
    ],
)
def test_runs_are_spread_over_the_cards(queued, running, cards, workers):
    assert devices.plan_workers(queued, running, cards) == workers


def test_a_device_that_is_not_there_is_refused_with_the_reason(nvidia_smi):
    assert describe_missing("cuda:7", 1) == (
        "The device 'cuda:7' is not there: torch sees one card, cuda:0. Choose one of them, or auto."
    )
    nvidia_smi(PROGRAM)
    import torch

    if torch.version.cuda is None:
        with pytest.raises(
            CrceError, match="'cuda' is not there. The GPU .NVIDIA L4. is not used: the installed torch"
        ):
            pick_device("cuda")
        assert devices.choices() == ["auto", "cpu"] and devices.describe() == "the CPU in fp32"


def test_a_card_that_is_not_used_is_named_wherever_a_run_is_started(nvidia_smi, capsys):
    """On the command line, in the status line, and beside Start."""
    nvidia_smi(PROGRAM)
    prepare(bases.EMOJI_SD)
    form = EraseForm("dog")
    places = [capsys.readouterr().err, status_bar.render_status(), erase.describe_run(form)]
    assert all("The GPU (NVIDIA L4) is not used: " in " ".join(text.split()) for text in places)
    prepare(bases.EMOJI_SD, device="cpu")
    assert capsys.readouterr().err == "" and "GPU" not in erase.describe_run(replace(form, device="cpu"))


@pytest.fixture
def cuda_torch(tmp_path):
    """A folder with the files by which an installed torch with CUDA is known, for a process that never imports it."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('only its files are here')")
    (tmp_path / "torch" / "version.py").write_text("cuda: Optional[str] = '13.0'")
    facts = tmp_path / "torch-2.13.0.dist-info" / "METADATA"
    facts.parent.mkdir()
    facts.write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.13.0\n")
    return tmp_path


def test_the_precision_is_that_of_the_card(nvidia_smi, cuda_torch):
    """And the memory of the first card says nothing of a run on the processor."""
    nvidia_smi(TWO_CARDS)
    path = os.pathsep.join([str(cuda_torch), str(ROOT)])
    command = [sys.executable, "-c", ON_TWO_CARDS]
    cards, line = subprocess.check_output(command, env={**os.environ, "PYTHONPATH": path}, text=True).splitlines()[:2]
    assert cards == "cuda:0 (Tesla T4) in fp16; cuda:1 (NVIDIA H100) in bf16; the CPU in fp32"
    assert "steps on the CPU in fp32." in line and "What it needs on cpu is not estimated here." in line
