"""Runs are directories: every state comes from files, and no file, torn or strange, breaks the list."""

import subprocess
import sys

import pytest

from crce import runs
from crce.config import EraseConfig
from crce.errors import CrceError
from crce.files import ROOT
from crce.runs import Busy, EvaluationRequest, Job, Progress, Run
from crce.runs.events import CheckpointEvent, DoneEvent, FailedEvent, PhaseEvent, StartEvent, StepEvent, StoppedEvent

HOLD = """
import sys, time
from pathlib import Path
from crce.runs import Run
with Run(Path(sys.argv[1])).hold():
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def job(tiny_sd_dir, dog):
    return Job(str(tiny_sd_dir), dog, EraseConfig(corefs=2, retains=2))


@pytest.fixture
def run(job):
    return runs.create(job)


@pytest.fixture
def holder(run):
    """Another process that holds the run."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, run.dir], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_new_run_is_queued_and_found_by_its_id(run, job, dog):
    assert run.state == "queued"
    assert run.dir.parent == runs.store() and runs.ID.fullmatch(run.id) and "-dog-animal-" in run.id
    assert runs.find(run.id) == run
    assert (run.job.spec, run.title) == (dog, "dog (animal)")
    assert (run.job.config.steps, run.job.config.lr) == (6, 1e-3)


def test_a_run_in_a_folder_of_ones_own_waits_for_no_worker(job, tmp_path):
    run = runs.create(job, tmp_path / "deep" / "out", queued=False)
    assert run.dir == tmp_path / "deep" / "out"
    assert run.state == "interrupted"
    assert runs.all_runs() == []
    with pytest.raises(CrceError, match="is in use"):
        runs.create(job, tmp_path / "deep" / "out")


@pytest.mark.parametrize("short", ["corefs", "retains"])
def test_fewer_terms_than_a_step_draws_make_no_run(job, short):
    config = EraseConfig(**{"corefs": 2, "retains": 2, short: 9})
    with pytest.raises(CrceError, match=f"3 training {short} and each step draws 9"):
        runs.create(Job(job.base, job.spec, config))
    assert runs.all_runs() == []


def test_a_folder_that_is_there_and_empty_will_do(job, tmp_path):
    assert runs.open_run(runs.create(job, tmp_path).dir).state == "queued"


def test_a_relative_base_is_found_from_anywhere(job, tiny_sd_dir, monkeypatch):
    monkeypatch.chdir(tiny_sd_dir.parent)
    run = runs.create(Job(tiny_sd_dir.name, job.spec, job.config))
    assert run.job.base == str(tiny_sd_dir)


@pytest.mark.parametrize("base", ["nowhere", "/", "a/b/c"])
def test_a_base_that_is_no_model_makes_no_run(job, base):
    with pytest.raises(CrceError, match="no base model|no diffusers model"):
        runs.create(Job(base, job.spec, job.config))
    assert not runs.store().exists()


def test_a_place_that_cannot_be_written_is_named(job, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CrceError, match="file/out cannot be written: Not a directory"):
        runs.create(job, tmp_path / "file" / "out")


def test_states_follow_the_events(run):
    run.record(StartEvent(pid=1))
    assert run.state == "interrupted"
    run.request_resume()
    assert run.state == "queued"
    run.record(StartEvent(pid=2))
    run.clear("resume")
    assert run.state == "interrupted"
    for ending in runs.ENDINGS:
        run.record(ending())
        assert run.state == ending.kind


def test_held_is_running_until_the_holder_is_killed(run, holder):
    run.record(StartEvent(pid=holder.pid))
    assert run.state == "running"
    for forbidden in (run.delete, run.request_resume):
        with pytest.raises(CrceError):
            forbidden()
    run.request_stop()
    assert run.stopping
    holder.kill()
    holder.wait()
    assert run.state == "interrupted"


def test_a_run_is_held_once_also_within_a_process(run):
    with run.hold(), pytest.raises(Busy), run.hold():
        pass
    with run.hold():
        pass


def test_a_run_that_cannot_be_locked_is_no_ones_and_says_why(run):
    run.record(StartEvent(pid=1))
    (run.dir / "lock").mkdir()
    assert run.state == "interrupted"
    with pytest.raises(CrceError, match=f"{run.dir} cannot be written: Is a directory"), run.hold():
        pass


def test_stop_takes_a_waiting_run_out_of_the_queue(run):
    run.request_stop()
    assert run.state == "stopped" and not run.stopping
    run.request_resume()
    assert run.state == "queued"
    run.request_stop()
    assert run.state == "stopped"


def test_stop_leaves_an_ended_run_as_it_was(run):
    run.record(FailedEvent(message="no"))
    run.request_stop()
    assert run.state == "failed" and not run.stopping


def test_an_evaluation_queues_a_run_that_has_ended_and_stop_calls_it_off(run):
    run.record(DoneEvent(seconds=1))
    with pytest.raises(CrceError, match="nothing to resume"):
        run.request_resume()
    run.request_evaluate(3)
    assert run.evaluation == EvaluationRequest(3, "target") and run.state == "queued"
    run.request_stop()
    assert run.state == "done"
    run.record(FailedEvent(message="no"))
    run.request_evaluate(3)
    assert run.state == "queued"
    with pytest.raises(CrceError, match="images is 0"):
        run.request_evaluate(0)


def test_a_request_that_is_no_file_is_obeyed_or_told(run):
    (run.dir / "stop").mkdir()
    run.request_stop()
    assert run.state == "stopped" and not run.stopping
    (run.dir / "resume").symlink_to("resume")
    with pytest.raises(CrceError, match="cannot be written: Too many levels"):
        run.request_resume()


def test_progress_is_that_of_the_last_attempt(run):
    assert run.progress is None
    run.record(PhaseEvent(phase="bank", done=3, of=50, seconds_left=4.0))
    assert run.progress == Progress("bank", 3, 50, 4.0)
    run.record(StepEvent(step=2, of=6, losses={"target": 1.0}, seconds_left=None))
    run.record(CheckpointEvent(step=2))
    assert run.progress == Progress("train", 2, 6, None)
    assert run.kept_step == 2
    run.record(StartEvent(pid=1))
    assert run.progress is None


def test_a_torn_line_hides_neither_what_came_before_nor_what_comes_after(run):
    events = [run.record(StepEvent(step=i, of=3, losses={"target": 0.5})) for i in range(3)]
    path = run.dir / "events.jsonl"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        run.record(StoppedEvent(step=0))
        assert [event.kind for event in run.events()][-1] == "stopped"
        complete = [event for event in run.events() if event.kind == "step"]
        assert complete == events[: len(complete)] and len(complete) >= whole[:length].count(b"\n")


def test_strange_lines_are_no_events(run):
    (run.dir / "events.jsonl").write_bytes(b'3\n[]\n{"no": "kind"}\n\xff\xfe\n\n{"kind": "start"}')
    assert [event.kind for event in run.events()] == ["start"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b"\xff", b'{"spec": 3, "config": {}}', b'{"spec": {}, "config": null}', None]
)
def test_a_broken_run_is_left_out_of_the_list_and_explained_when_asked_for(run, job, content):
    broken = runs.create(job)
    (broken.dir / "job.json").unlink()
    if content is not None:
        (broken.dir / "job.json").write_bytes(content)
    assert runs.all_runs() == [run]
    with pytest.raises(CrceError, match="job.json"):
        runs.find(broken.id)


def test_other_things_in_the_store_are_no_runs(run):
    (runs.store() / "notes.txt").touch()
    (runs.store() / ".new-20260801-093015-dog-3fa2").mkdir()
    (runs.store() / "20260801-093015-dog-3fa2").touch()
    assert runs.all_runs() == [run]


@pytest.mark.parametrize(
    "name", ["", "..", "../runs", "/", "20260801-093015-dog-3fa2", "x" * 61, "A" * 20, "a" * 12 + "\n"]
)
def test_only_ids_of_the_store_are_found(run, name):
    with pytest.raises(CrceError, match="There is no run"):
        runs.find(name)


def test_a_run_whose_events_cannot_be_written_is_not_stopped_and_says_why(run):
    events = run.dir / "events.jsonl"
    events.unlink(missing_ok=True)
    events.symlink_to(events.name)
    with pytest.raises(CrceError, match="cannot be written"):
        run.request_stop()


def test_a_link_out_of_the_store_is_not_followed(job, run, tmp_path):
    outside = runs.create(job, tmp_path / "outside")
    (runs.store() / "20260801-093015-link-3fa2").symlink_to(outside.dir)
    with pytest.raises(CrceError, match="There is no run"):
        runs.find("20260801-093015-link-3fa2")


def test_newest_first(job):
    made = [runs.create(Job(job.base, job.spec, job.config, created=1_800_000_000 + i / 10)) for i in range(3)]
    assert runs.all_runs() == made[::-1]


def test_rename_changes_what_people_read(run):
    run.rename("  the second try ")
    assert run.title == "the second try" and runs.find(run.id).job.name == "the second try"
    run.rename("")
    assert run.title == "dog (animal)"
    for bad in ("x" * 101, "two\nlines"):
        with pytest.raises(CrceError, match="is no name"):
            run.rename(bad)


def test_delete_leaves_nothing(run):
    assert run.size == sum(path.stat().st_size for path in run.dir.iterdir())
    run.delete()
    assert list(runs.store().iterdir()) == [] and runs.all_runs() == []


def test_opened_names_what_is_missing(tmp_path):
    with pytest.raises(CrceError, match="holds no run: job.json is missing"):
        runs.open_run(tmp_path)
    assert Run(tmp_path).events() == ()


def test_a_report_that_cannot_be_read_is_none(run):
    """And one of an earlier version, in which the warning was called alarm, is read."""
    for broken in ("", "[]", "{}", '{"metrics": 3}', '{"metrics": {"acc_u": {"n": 1}}}'):
        (run.dir / "report.json").write_text(broken)
        assert run.report is None
    (run.dir / "report.json").write_text('{"metrics": {}, "alarm": "a", "also": [{"metrics": {}, "alarm": "b"}]}')
    assert (run.report.warning, run.report.also[0].warning) == ("a", "b")


@pytest.mark.parametrize("broken", ["", "[]", "{}", '{"images": 0}', '{"images": "many"}'])
def test_a_request_that_cannot_be_read_is_none(run, broken):
    run.record(DoneEvent())
    (run.dir / "evaluate.json").write_text(broken)
    assert run.evaluation is None and run.state == "done"


@pytest.mark.parametrize(("images", "ask", "says"), [(0, "target", "images is 0"), (1, "both", "ask is 'both'")])
def test_an_evaluation_that_makes_no_sense_is_refused_before_it_is_asked_for(images, ask, says):
    with pytest.raises(CrceError, match=says):
        EvaluationRequest(images, ask)
