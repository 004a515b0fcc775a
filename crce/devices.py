"""The NVIDIA cards of this machine, and whether the installed torch can use them. No torch here: the page asks, too."""

import os
import re
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

AUTO, CPU = "auto", "cpu"
DTYPES = ("fp32", "bf16", "fp16")
_QUERY = ("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
_CAPABILITY = ("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader")
_BF16_SINCE = 8.0  # the compute capability from which on a card computes bf16, by torch's own rule
_SECONDS = 20  # that nvidia-smi may take; on a machine with sleeping cards it takes some


@dataclass(frozen=True)
class Nvidia:
    """What nvidia-smi says.

    cards: their names; driver: its version; cuda: the newest CUDA that it runs, such as "12.4"; failure: why
    nvidia-smi, which is there, says nothing. capabilities: of the cards to compute, such as "7.5", where it knows them.
    """

    cards: tuple[str, ...] = ()
    driver: str = ""
    cuda: str = ""
    failure: str = ""
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True)
class Torch:
    """The installed torch, and the CUDA that it was built for; "" for a build without."""

    version: str = ""
    cuda: str = ""


@lru_cache(maxsize=1)
def find_nvidia() -> Nvidia:
    """Asks nvidia-smi, once per process. Without it there is no card that torch could use."""
    try:
        listed = _run(*_QUERY)
        header, capabilities = _run("nvidia-smi"), _run(*_CAPABILITY)
    except FileNotFoundError:
        return Nvidia()
    except (OSError, subprocess.SubprocessError) as error:
        return Nvidia(failure=str(error))
    if listed.returncode:
        said = (listed.stdout or listed.stderr).strip().splitlines()
        none = not said or "No devices" in said[0]
        return Nvidia(failure="" if none else said[0])
    rows = [line.rpartition(",") for line in listed.stdout.splitlines() if "," in line]
    cuda = re.search(r"CUDA Version:\s*([\d.]+)", header.stdout)
    names, driver = tuple(name.strip() for name, _, _ in rows), rows[0][2].strip() if rows else ""
    computes = re.findall(r"^\d+\.\d+$", capabilities.stdout, re.MULTILINE)  # an old one does not know the question
    return Nvidia(names, driver, cuda[1] if cuda else "", capabilities=tuple(computes))


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)


@lru_cache(maxsize=1)
def find_torch() -> Torch:
    """Reads torch's files: importing it takes seconds."""
    try:
        found, spec = version("torch"), find_spec("torch")
    except PackageNotFoundError:
        return Torch()
    text = Path(spec.origin).with_name("version.py").read_text() if spec and spec.origin else ""
    cuda = re.search(r"^cuda\b[^=]*=\s*'([\d.]+)'", text, re.MULTILINE)
    return Torch(found, cuda[1] if cuda else "")


def find_problem(nvidia: Nvidia, torch: Torch) -> str:
    """Why torch cannot use the cards that are there; "" where it can, or where there are none."""
    if nvidia.failure:
        return f"The GPU is not used: nvidia-smi fails ({nvidia.failure}). Repair the NVIDIA driver."
    if not nvidia.cards:
        return ""
    unused = f"The GPU ({nvidia.cards[0]}) is not used:"
    if not torch.cuda:
        return f"{unused} the installed torch {torch.version} has no CUDA. Install a build of torch for CUDA."
    if nvidia.cuda and int(nvidia.cuda.split(".")[0]) < int(torch.cuda.split(".")[0]):
        return (
            f"{unused} its driver {nvidia.driver} runs CUDA up to {nvidia.cuda}, and the installed torch needs "
            f"{torch.cuda}. Update the driver, or install a torch for that CUDA."
        )
    return ""


def visible(cards: tuple[str, ...], setting: str | None) -> tuple[str, ...]:
    """The cards that torch sees, in its order, under this CUDA_VISIBLE_DEVICES. A UUID counts as a card of its own."""
    if setting is None:
        return cards
    chosen = []
    for part in filter(None, map(str.strip, setting.split(","))):
        if not part.lstrip("-").isdigit():
            chosen.append(part)
        elif 0 <= int(part) < len(cards):
            chosen.append(cards[int(part)])
        else:
            break  # CUDA ignores what follows a number that is no card's
    return tuple(chosen)


def usable_cards() -> tuple[str, ...]:
    """The names of the cards that torch can use: cuda:0, cuda:1, …"""
    if find_problem(find_nvidia(), find_torch()):
        return ()
    return visible(find_nvidia().cards, os.environ.get("CUDA_VISIBLE_DEVICES"))


def problem() -> str:
    """Why a card of this machine is not used, in a line for people; "" where nothing is wrong."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") is not None and not visible(
        find_nvidia().cards, os.environ["CUDA_VISIBLE_DEVICES"]
    ):
        return ""  # they are hidden on purpose
    return find_problem(find_nvidia(), find_torch())


def choices() -> list[str]:
    """The devices that a person may choose from here."""
    return [AUTO, *(f"cuda:{i}" for i in range(len(usable_cards()))), CPU]


def resolve(device: str) -> str:
    """The device that a name means here: "auto" is the first card, and the CPU where there is none."""
    if device == AUTO:
        return "cuda:0" if usable_cards() else CPU
    return "cuda:0" if device == "cuda" else device


def resolve_dtype(dtype: str, device: str) -> str:
    """ "auto" is bf16 on a card, fp16 on one that does not compute bf16, and fp32 elsewhere."""
    if dtype != AUTO:
        return dtype
    card = _number_of(resolve(device))
    if card is None:
        return "fp32"
    able = dict(enumerate(visible(find_nvidia().capabilities, os.environ.get("CUDA_VISIBLE_DEVICES")))).get(card, "")
    return "fp16" if re.fullmatch(r"\d+\.\d+", able) and float(able) < _BF16_SINCE else "bf16"


def _number_of(device: str) -> int | None:
    """Of a card; None for the CPU."""
    return int(device.partition(":")[2] or 0) if device.startswith("cuda") else None


def describe(device: str = AUTO, dtype: str = AUTO) -> str:
    """ "the GPU (NVIDIA H100) in bf16", and why a card is not used, if one is not."""
    chosen, cards = resolve(device), usable_cards()
    number = _number_of(chosen)
    name = "the CPU" if chosen == CPU else chosen
    if number is not None and number < len(cards):
        name = f"the GPU ({cards[number]})" if len(cards) == 1 else f"{chosen} ({cards[number]})"
    return f"{name} in {resolve_dtype(dtype, device)}"


def worker_of(device: str) -> str:
    """The name of the worker that works on this device. The one named "auto" has the first card, or the CPU where there
    is none, and also what is not there at all: it says so."""
    chosen = resolve(device)
    there = chosen in choices()
    return AUTO if chosen == resolve(AUTO) or not there else chosen


def plan_workers(queued: list[str], running: int, cards: int) -> list[str]:
    """The workers that these runs need: one on each device that a run names, and as many on the cards, the first
    first, as there are runs for any.

    queued: the devices of the queued runs; running: how many are being worked on; cards: how many there are.
    """
    anywhere = queued.count(AUTO)
    spread = [AUTO, *(f"cuda:{i}" for i in range(1, cards))][: anywhere + running] if anywhere else []
    return list(dict.fromkeys([*(worker_of(device) for device in queued if device != AUTO), *spread]))
