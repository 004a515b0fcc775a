"""Large stores and long runs: what was read once is not read again, counted in files and bytes and never in seconds."""

import dataclasses
import json
import os
import shutil
import sys
import time

import pytest

from app.tabs import erase, run_view, status_bar
from crce import runs
from crce.config import EraseConfig
from crce.runs import Job, Run
from crce.runs.events import (
    CheckpointEvent,
    DoneEvent,
    EvaluatedEvent,
    FailedEvent,
    NoteEvent,
    NotJudgedEvent,
    PreviewEvent,
    StartEvent,
    StepEvent,
)
from crce.runs.history import POINTS, Curve, History
from crce.runs.summary import UNSAVED, details_of, summary_of

STEP = StepEvent(1, 6, {"target": 1.0}, 2.0)
_opened: list[str] = []
_counting: list[str] = []


def _count(event, arguments):
    if event == "open" and _counting and str(arguments[0]).startswith(_counting[0]):
        _opened.append(str(arguments[0]))


sys.addaudithook(_count)  # cannot be taken away again: it counts only between the two ends of `opened`


@pytest.fixture
def opened(home):
    """The files below home that are opened from here on."""
    _opened.clear()
    _counting[:] = [str(home)]
    yield _opened
    _counting.clear()


@pytest.fixture
def run(tiny_sd_dir, dog):
    return runs.create(Job(str(tiny_sd_dir), dog, EraseConfig(corefs=2, retains=2)))


@pytest.fixture
def done(run):
    noted = NoteEvent("slow"), EvaluatedEvent()
    for event in (StartEvent(pid=1), STEP, CheckpointEvent(6), *noted, DoneEvent(seconds=3.0)):
        run.record(event)
    return run


def forget():
    """As in a process that has just started."""
    for cached in (summary_of, details_of, runs.run._read_job):
        cached.cache_clear()


def spoil(path, kept=0):
    """Bytes that are no events in place of all but the last `kept`: who reads them again loses what they said."""
    data = path.read_bytes()
    path.write_bytes(b"x" * (len(data) - kept) + data[len(data) - kept :])


def test_events_are_read_once(done):
    assert done.state == "done" and done.kept_step == 6
    spoil(done.dir / "events.jsonl", kept=40)
    done.record(StartEvent(pid=2))
    done.record(dataclasses.replace(STEP, step=4))
    assert (done.state, done.kept_step, done.progress.done) == ("interrupted", 6, 4)
    assert (done.history.counts["step"], done.notes, done.last(DoneEvent).seconds) == (2, ("slow",), 3.0)
    assert len(done.curve.points) == 1


def test_a_new_process_reads_the_summary_and_not_the_events_nor_the_job(done):
    assert runs.all_runs() == [done]
    cards = erase.render_runs(runs.all_runs(), None)
    for name in ("events.jsonl", "job.json"):
        path = done.dir / name
        found = path.stat()
        stamp, text = found.st_mtime_ns, "x" * found.st_size
        with open(path, "r+") as file:  # the same file, of the same size and time
            file.write(text)
        os.utime(path, ns=(stamp, stamp))
    forget()
    assert runs.all_runs() == [done] and erase.render_runs(runs.all_runs(), None) == cards
    assert "Done in" in cards and done.notes == ("slow",)


def test_a_list_opens_one_file_a_run_and_then_none(done, opened):
    for number in range(20):
        shutil.copytree(done.dir, runs.store() / f"20260801-0930{number:02d}-dog-3fa2")
    assert len(runs.all_runs()) == 21
    forget()
    _opened.clear()
    page = erase.render_runs(runs.all_runs(), None)
    assert page.count("<article") == 21
    assert [name.rpartition("/")[2] for name in opened] == ["summary.json"] * 21
    _opened.clear()
    erase.render_runs(runs.all_runs(), None)
    assert opened == []


def test_a_poll_reads_what_is_new_and_nothing_else(done, run, opened):
    run.record(StartEvent(pid=2))
    with run.hold():
        *_, seen = erase.refresh(run.id, erase.Seen())
        run.record(STEP)
        _opened.clear()
        *_, seen = erase.refresh(run.id, seen)
        assert {name.rpartition("/")[2] for name in opened} <= {"events.jsonl", "lock"}
        before = run.history.offset
        run.record(STEP)
        assert run.history.offset - before == len((run.dir / "events.jsonl").read_bytes().splitlines()[-1]) + 1
        status_bar.render_status()


def test_the_summary_of_a_running_run_is_written_seldom(run):
    run.record(StartEvent(pid=1))
    runs.all_runs()
    path, note = run.dir / "summary.json", NoteEvent("x" * 1000)
    first = path.read_bytes()
    run.record(note)
    runs.all_runs()
    assert path.read_bytes() == first
    for _ in range(UNSAVED // 1000 + 1):
        run.record(note)
    runs.all_runs()
    written = path.read_bytes()
    assert written != first
    run.record(STEP)
    runs.all_runs()
    assert path.read_bytes() == written
    run.record(DoneEvent())
    runs.all_runs()
    assert path.read_bytes() != written


@pytest.mark.parametrize("content", ["", "{", "[]", "5", '{"job": 3}', "[" * 100_000, None])
def test_a_damaged_or_missing_summary_is_made_again(done, content):
    (found,) = runs.all_runs()
    whole = json.loads((done.dir / "summary.json").read_text())
    (done.dir / "summary.json").unlink()
    if content is not None:
        (done.dir / "summary.json").write_text(content)
    forget()
    assert runs.all_runs() == [found] and found.state == "done"
    # The size counts the damaged file too.
    assert json.loads((done.dir / "summary.json").read_text()) | {"size": 0} == whole | {"size": 0}


def test_a_store_that_cannot_be_written_has_no_summaries_and_is_listed(done):
    (done.dir / "summary.json").mkdir()
    assert runs.all_runs() == [done] and not list(done.dir.glob(".summary*"))


def test_events_that_were_replaced_are_read_from_the_beginning(done):
    """By a shorter file, by another of the same size, and by a longer one that begins otherwise."""
    path = done.dir / "events.jsonl"
    assert done.state == "done"
    whole = path.read_bytes()
    path.write_bytes(whole.splitlines()[0] + b"\n")
    assert done.state == "interrupted"
    path.write_bytes(b" " * (len(whole) - 1) + b"\n")
    assert done.state == "queued" and done.history.counts == {}
    path.write_bytes(b"\n" * len(whole) + whole)
    assert done.state == "done" and done.history.counts["step"] == 1
    path.unlink()
    assert done.state == "queued"


def test_a_summary_of_other_events_is_not_believed(done):
    """As after a power cut, which may take the newest events and leave the summary."""
    runs.all_runs()
    path = done.dir / "events.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    done.record(FailedEvent(message="x" * 500))
    forget()
    assert done.state == "failed" and "done" not in done.history.counts


def test_a_torn_line_waits_for_its_end(run):
    path = run.dir / "events.jsonl"
    run.record(StartEvent(pid=1))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert run.state == "queued"
    path.write_bytes(whole)
    assert run.state == "interrupted"


def test_renamed_judged_and_deleted_runs_are_seen_at_once(done):
    runs.all_runs()
    done.rename("second")
    (found,) = runs.all_runs()
    assert found.title == "second" and run_view.summarize(found, []).scores == ""
    report = {"metrics": {"acc_u": dict(yes=1, n=4, rate=0.25, low=0, high=1, base_rate=1, ratio=None)}}
    (done.dir / "report.json").write_text(json.dumps(report))
    assert run_view.summarize(found, []).scores.endswith("25% (n=4)")
    done.delete()
    assert runs.all_runs() == [] and list(runs.store().iterdir()) == []


def test_the_latest_of_several_kinds_is_the_last_written(run):
    for event in (EvaluatedEvent(time=9.0), NotJudgedEvent("no judge", time=1.0)):
        run.record(event)
    assert run.not_judged == "no judge"
    run.record(EvaluatedEvent(time=0.0))
    assert run.not_judged == ""


@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_a_long_curve_has_few_points_with_the_means_of_all_steps(at_once):
    """However many steps come at once, and losses that come and go."""
    later = {"corefs": 1.0}
    steps = [StepEvent(n, 1000, {"target": float(n)} | (later if n > 700 else {})) for n in range(1, 1001)]
    curve = Curve()
    for start in range(0, 1000, at_once):
        curve = curve.add(iter(steps[start : start + at_once]))
    assert POINTS / 2 <= len(curve.points) <= POINTS and curve.points[-1].step == 1000
    assert sum(point.steps for point in curve.points) == 1000
    assert sum(point.losses["target"] * point.steps for point in curve.points) == pytest.approx(sum(range(1, 1001)))
    assert {point.steps for point in curve.points[:-1]} == {curve.width}
    assert curve.points[-1].losses["corefs"] == pytest.approx(1.0)


def test_a_history_holds_as_much_after_many_events_as_after_few():
    events = [STEP, CheckpointEvent(1), NoteEvent("n"), PreviewEvent(1, ("a",), (0,), ("a.png",))]
    few, many = (History().add(iter(events * count)) for count in (1, 500))
    assert [event for _, event in few.last.values()] == [event for _, event in many.last.values()]
    assert (many.counts["step"], many.notes) == (500, ("n",))


def test_the_newest_runs_are_shown_and_older_ones_when_asked_for(done):
    found = [Run(runs.store() / f"20260801-0930{number:02d}-dog-3fa2") for number in range(60)]
    for number, each in enumerate(found):
        shutil.copytree(done.dir, each.dir)
        facts = json.loads((each.dir / "job.json").read_text())
        facts |= {"name": f"run {number}", "created": time.time() - number}
        (each.dir / "job.json").write_text(json.dumps(facts))
    found[59].record(StartEvent(pid=1))
    (found[59].dir / "resume").touch()
    cards, _, _, _, _, seen = erase.refresh(None, erase.Seen())
    # 50 of 61, and the one that waits.
    assert cards.count("<article") == 51 and "10 more" in cards and 'value="run 59"' in cards
    assert erase.refresh(None, erase.show_older(seen))[0].count("<article") == 61
