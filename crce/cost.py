"""What a run costs: estimated before it starts, measured once it has trained. No torch here."""

import platform
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """seconds: of the training alone, without loading and previews; None where no estimate is possible.

    memory, disk: bytes, at most. rows: samples through the U-Net, forward, in the whole run; 0 for a closed form.
    free: bytes of the device's memory that the run may take, with those of a base that is loaded already; None where
    it is not known.
    """

    seconds: float | None
    memory: int
    disk: int
    rows: int
    free: int | None = None

    @property
    def fits(self) -> bool:
        """Whether the memory suffices, as far as that is known."""
        return self.free is None or self.memory <= self.free


def describe_time(cost: Cost) -> str:
    """A sentence about the time."""
    if cost.rows == 0:
        return "Solved at once, without training."
    if cost.seconds is None:
        return f"No time estimate: one U-Net pass takes seconds here, and the run needs {cost.rows}."
    return f"About {format_duration(cost.seconds)} to erase, by a step measured here."


def describe_room(cost: Cost) -> str:
    """A sentence about memory, needed and free, and disk, with what to do where the memory does not suffice."""
    free = "" if cost.free is None else f" ({format_size(cost.free)} are free)"
    needs = f"Needs about {format_size(cost.memory)} of memory{free} and up to {format_size(cost.disk)} of disk."
    if cost.fits:
        return needs
    return (
        f"{needs} The memory does not suffice: choose a method that trains fewer weights, set the microbatch to 1, "
        "which needs the least, or free some."
    )


def format_duration(seconds: float) -> str:
    """70 → "1 min 10 s"."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def format_size(count: float) -> str:
    """Bytes: 12_300_000 → "12.3 MB"."""
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.0f} kB"


def machine() -> str:
    """The processor's name, to stand beside a measured time: "2 × Intel(R) Xeon(R) Processor"."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    return f"{len(names)} × {names[0]}" if names else platform.processor() or platform.machine()
