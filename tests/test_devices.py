"""A GPU is used, or it is said why not. nvidia-smi is a program here, written for the test."""

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
