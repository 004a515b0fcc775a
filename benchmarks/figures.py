"""Measured figures: shown as they come; --keep writes them to docs/results/speed/ and from there to docs/speed.md."""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks.machine import named
from crce.files import DOCS, RESULTS, read_json, write_atomic

FOLDER, WRITTEN = RESULTS / "speed", DOCS / "speed.md"
PAGE = """\
# Speed

`make bench` measures this, with nothing else running, on the default model unless said otherwise; it writes this page
from `docs/results/speed/`. The median of n, and least to most where n is more than 1.
"""


@dataclass(frozen=True)
class Figure:
    """What was measured, and what came out each time."""

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


def clocked(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def options(about: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="write them to docs/results/speed/ and docs/speed.md")
    return parser


def show(name: str, about: str, figures: Iterable[Figure], keep: bool) -> None:
    """Prints each figure when it is there. name: the benchmark's module. about: its docstring, for the page."""
    print(named(), flush=True)
    found = []
    for figure in figures:
        found.append(asdict(figure))
        print(figure.line, flush=True)
    if keep:
        facts = {"about": about.split("\n\n    python")[0].strip(), "machine": named(), "figures": found}
        write_atomic(FOLDER / f"{name}.json", json.dumps(facts, ensure_ascii=False, indent=1) + "\n")
        write_atomic(WRITTEN, page())


def page(folder: Path = FOLDER) -> str:
    """docs/speed.md: a table for each benchmark."""
    return "\n".join([PAGE, *(_table(path.stem, read_json(path)) for path in sorted(folder.glob("*.json")))])


def _table(name: str, facts: dict) -> str:
    figures = [Figure(**figure) for figure in facts["figures"]]
    rows = [f"| {f.what} | {f.shown} | {len(f.values)} | {f.note} |" for f in figures]
    made = f"`python -m benchmarks.{name}` on {facts['machine']}:\n"
    head = [f"## {name.replace('_', ' ').capitalize()}\n", f"{facts['about']}\n", made]
    return "\n".join([*head, "| | median | n | |", "|---|---|---|---|", *rows, ""])
