"""What a run costs: foretold by `preflight` before it starts, measured by `jobs` when it has trained. No torch here."""

import platform
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """seconds: of the training alone, without loading and previews; None where nobody can tell.

    memory, disk: bytes, at most. rows: prompts through the U-Net, forward; 0 for a closed form.
    """

    seconds: float | None
    memory: int
    disk: int
    rows: int


def takes(cost: Cost) -> str:
    """The time in words."""
    if cost.rows == 0:
        return "Solved at once, without training."
    if cost.seconds is None:
        return f"No time can be told: a row of this base takes long here, and these are {cost.rows}."
    return f"About {span(cost.seconds)} by a step measured here."


def needs(cost: Cost) -> str:
    """The room in words."""
    return f"Needs about {size(cost.memory)} of memory and up to {size(cost.disk)} of disk."


def span(seconds: float) -> str:
    """70 → "1 min 10 s"."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def size(count: int) -> str:
    """12_300_000 → "12.3 MB"."""
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.0f} kB"


def machine() -> str:
    """The processor, as a person would name it beside a time."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    return f"{len(names)} × {names[0]}" if names else platform.processor() or platform.machine()
