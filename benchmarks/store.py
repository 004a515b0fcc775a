"""A large store and a long run: seconds to the first list in a new process, and what an hour of polling takes.

1 000 finished runs of 120 events each with their reports, and 500 concepts of one's own; then alone a run that writes
two events a second. Polled as the open page does, each 1.5 s of the Erase tab and 2 s of the status line; the hour is
not waited for: its events are written and its polls made one after the other. Seconds are those of the processor.

Before events were read incrementally, by the clock of the same busy machine: 9.5 s for the first list, 7.3 s in a later
process, 7.5 s for the same list again (9 492 files opened), 6.7 s and 7 005 files for a poll while one of 1 000 runs
writes; 3 000 events of one run took the process from 209 to 793 MB.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure, make_parser, show
from crce import files
from crce.concepts import csv_json
from crce.concepts.library import find_concept, save_spec
from crce.config import EraseConfig
from crce.files import ROOT
from crce.runs import Job, create, store
from crce.runs.events import CheckpointEvent, DoneEvent, StartEvent, StepEvent

RUNS, CONCEPTS, EVENTS = 1000, 500, 120
ROWS = 20_000  # of an imported table
POLLS = 2400  # of an hour
POLLS_OF_MANY = 20
LATER = 3  # processes


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--concepts", type=int, default=CONCEPTS)
    parser.add_argument("--polls", type=int, default=POLLS)
    options = parser.parse_args()
    show("store", __doc__, measure(options.runs, options.concepts, options.polls), options.keep)


def measure(runs: int, concepts: int, polls: int) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as home:
        os.environ["CRCE_HOME"] = home
        fill(runs, concepts)
        first, *later = (poll(0) for _ in range(1 + LATER))
        yield Figure(f"{runs} runs and {concepts} concepts of one's own listed, the first time", (first["list"],))
        yield Figure("in a process that starts later", tuple(each["list"] for each in later), "with the summaries")
        note = f"files opened: {later[0]['opened']}"
        yield Figure("the same list again", tuple(each["again"] for each in later), note)
        yield Figure("the concepts alone, again", tuple(each["concepts"] for each in later))
        found = poll(POLLS_OF_MANY)
        note = f"files opened: {found['read'] / POLLS_OF_MANY:.1f}"
        yield Figure(f"a poll of {runs} runs while one writes", tuple(found["polls"]), note)
        yield Figure(f"a table of {ROWS} rows read and merged", tuple(import_table(Path(home)) for _ in range(LATER)))
    with tempfile.TemporaryDirectory() as home:
        os.environ["CRCE_HOME"] = home
        fill(1, 0)
        found = poll(polls)
        curve = found["memory"]
        note = f"files opened: {found['read'] / polls:.1f}"
        yield Figure("a poll of one run that writes", tuple(found["polls"]), note)
        shown = ", ".join(f"{size:.0f}" for size in curve)
        yield Figure("memory of the process", (curve[0], curve[-1]), f"at each tenth of the hour: {shown}", "MB")


def import_table(folder: Path) -> float:
    """The seconds of a table that says the same 480 terms again and again: a list has at most 500."""
    file = folder / "table.csv"
    lines = [f"dog,{('coref', 'retain')[n % 2]},term {n % 480},high,train," for n in range(ROWS)]
    file.write_text("\n".join(["concept,kind,term,certainty,split,note", *lines]), encoding="utf-8")
    began = time.process_time()
    csv_json.merge_table(find_concept("dog"), csv_json.read_table(csv_json.read_text(file), file.name), file.name)
    return time.process_time() - began


def fill(runs: int, concepts: int) -> None:
    """The store, written as the program writes it."""
    dog = find_concept("dog")
    for number in range(concepts):
        spec = type(dog)(f"thing {number}", "object", "", dog.corefs, dog.retains)
        save_spec(spec, files.home() / "concepts" / "object" / f"{spec.slug}.json")
    first = create(Job("emoji-sd", dog, EraseConfig()))
    report = read_example()
    for event in (StartEvent(1), *steps(EVENTS - 3), CheckpointEvent(300), DoneEvent(40.0)):
        first.record(event)
    for number in range(runs - 1):
        folder = store() / f"20260801-{number:06d}-dog-aaaa"
        shutil.copytree(first.dir, folder)
        facts = json.loads((folder / "job.json").read_text())
        facts |= {"created": facts["created"] - number, "name": f"n {number}"}
        (folder / "job.json").write_text(json.dumps(facts))
        (folder / "report.json").write_text(report)


def steps(count: int) -> list[StepEvent]:
    return [StepEvent(n + 1, count, {"target": 0.1, "corefs": 0.2, "retains": 0.3}, 10.0) for n in range(count)]


def read_example() -> str:
    (path,) = (ROOT / "tests" / "data").glob("*/done/report.json")
    return path.read_text()


def poll(polls: int) -> dict:
    """In a new process, as the app's: what it measured."""
    command = [sys.executable, "-m", "benchmarks.store_child", str(polls)]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
