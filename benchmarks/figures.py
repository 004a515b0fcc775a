"""Measured figures: printed as they arrive. --keep stores them in docs/results/speed/ and updates docs/speed.md.

Where the variable OUT names a folder, they are also written there, each once it is measured: what a machine that is
only lent had measured when it was taken back.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks.machine import describe_machine
from crce.files import DOCS, RESULTS, read_json, write_atomic

FOLDER, WRITTEN = RESULTS / "speed", DOCS / "speed.md"
PAGE = """\
# Speed

`make bench` measures this on an otherwise idle machine, with the default model unless stated otherwise, and writes this
page from `docs/results/speed/`. Values are medians of n measurements, with the minimum and maximum if n > 1.
"""


@dataclass(frozen=True)
class Figure:
    """A measured quantity and all its values."""

    what: str
    values: tuple[float, ...]
    note: str = ""
    unit: str = "s"

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def shown(self) -> str:
        spread = f" ({min(self.values):.3f} – {max(self.values):.3f})" if len(self.values) > 1 else ""
        return f"{self.median:.3f} {self.unit}{spread}"

    @property
    def line(self) -> str:
        return f"{self.what}: {self.shown}, n = {len(self.values)}{f'; {self.note}' if self.note else ''}"


def time_call(work: Callable[[], object]) -> float:
    """The seconds that one call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def make_parser(about: str) -> argparse.ArgumentParser:
    """The options of every benchmark. about: the module's docstring."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--keep", action="store_true", help="store them in docs/results/speed/ and update docs/speed.md"
    )
    return parser


def show(name: str, about: str, figures: Iterable[Figure], keep: bool) -> None:
    """Prints each figure once it is measured. name: the benchmark's module. about: its docstring, for the page."""
    print(describe_machine(), flush=True)
    facts: dict = {"about": about.split("\n\n    python")[0].strip(), "machine": describe_machine(), "figures": []}
    for figure in figures:
        facts["figures"].append(asdict(figure))
        print(figure.line, flush=True)
        text = json.dumps(facts, ensure_ascii=False, indent=1) + "\n"
        if out := os.environ.get("OUT"):
            write_atomic(Path(out) / f"{name}.json", text)
        if keep:
            write_atomic(FOLDER / f"{name}.json", text)
            write_atomic(WRITTEN, render_page())


def render_page(folder: Path = FOLDER) -> str:
    """docs/speed.md: a table for each benchmark."""
    return "\n".join([PAGE, *(_render_table(path.stem, read_json(path)) for path in sorted(folder.glob("*.json")))])


def _render_table(name: str, facts: dict) -> str:
    figures = [Figure(**figure) for figure in facts["figures"]]
    rows = [f"| {f.what} | {f.shown} | {len(f.values)} | {f.note} |" for f in figures]
    made = f"`python -m benchmarks.{name}` on {facts['machine']}:\n"
    title = "GPU" if name == "gpu" else name.replace("_", " ").capitalize()
    head = [f"## {title}\n", f"{facts['about']}\n", made]
    return "\n".join([*head, "| | median | n | |", "|---|---|---|---|", *rows, ""])
