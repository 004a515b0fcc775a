"""The worker as a process of its own: it survives bad questions, and its death costs no work."""

import base64
import io
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from functools import partial

import pytest
import torch
from filelock import FileLock
from PIL import Image

from crce import files, runs
from crce.concepts.spec import ConceptSpec, spec_to_dict
from crce.config import EraseConfig
from crce.errors import CrceError
from crce.files import ROOT
from crce.judges.embedded import EmbeddedJudge
from crce.methods.erased_weights import ErasedWeights
from crce.models import text_space
from crce.runs import Job, is_locked
from crce.runs.events import StartEvent
from crce.runs.execute import execute
from crce.training.estimate import estimate
from crce.training.loop import solve_closed_form
from crce.worker import client
from crce.worker.answers import Cell, CoverageAnswer, GenerateAnswer, StatusAnswer
from crce.worker.client import ensure_worker, lock_file
from crce.worker.requests import (
    Column,
    CoverageRequest,
    DistancesRequest,
    GenerateRequest,
    PreviewRequest,
    StatusRequest,
)

PATIENCE = 300  # seconds until a test gives up; nothing here takes that long


@pytest.fixture
def worker(home):
    """`python -m crce worker` in this test's home."""
    process = start()
    yield process
    process.kill()
    process.wait()


def start():
    return subprocess.Popen([sys.executable, "-m", "crce", "worker"], cwd=ROOT)


def until(true):
    """Waits until it is true."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def draw(base, columns=({},), prompts=("dog",), seeds=(0,), ask=None, tab="tab"):
    return {
        "kind": "generate",
        "tab": tab,
        "base": str(base),
        "columns": list(columns),
        "prompts": list(prompts),
        "seeds": list(seeds),
        "ask": list(ask or [None] * len(prompts)),
    }


def ask(request):
    """The JSON of the answer, also to a request that is wrong."""
    return client.exchange(json.dumps(request).encode(), PATIENCE)


def decoded(png):
    return Image.open(io.BytesIO(base64.b64decode(png)))


def picture(cell):
    return decoded(cell["png"])


def long_job(base, dog, steps=60):
    return Job(str(base), dog, EraseConfig(steps=steps, corefs=2, retains=2, preview_every=0, checkpoint_every=5))


def test_killed_and_terminated_in_the_middle_the_run_ends_as_if_nothing_had_been(worker, tiny_sd_dir, dog, tmp_path):
    run = runs.create(long_job(tiny_sd_dir, dog, steps=150))
    until(lambda: run.kept_step >= 10)
    assert run.state == "running" and run.last(StartEvent).pid == worker.pid
    worker.kill()
    worker.wait()
    assert run.state == "interrupted"

    second = start()
    until(lambda: is_locked(lock_file("auto")))
    # It waits for a person: the new worker, which is there, leaves it alone.
    assert "columns" in ask(draw(tiny_sd_dir))
    assert run.state == "interrupted"
    run.request_resume()
    step = run.kept_step
    until(lambda: run.kept_step > step)
    # Tabs are answered while it trains.
    assert "columns" in ask(draw(tiny_sd_dir, prompts=["wolf"]))
    second.terminate()
    assert second.wait(PATIENCE) == 0
    assert run.state == "interrupted"
    assert not (files.home() / "worker.json").exists()

    *_, last = execute(run)
    assert last.kind == "done"
    whole = runs.create(run.job, tmp_path / "whole")
    list(execute(whole))
    one, two = ErasedWeights.load(run.weights_path), ErasedWeights.load(whole.weights_path)
    assert all(torch.equal(one.tensors[name], two.tensors[name]) for name in one.tensors)


def test_pictures_come_with_verdicts_and_bad_questions_with_errors(tiny_sd_dir, tiny_sd, dog, tmp_path):
    """One worker, started by the first question, answers them all; a run that cannot be written does not stop it."""
    stuck = runs.create(long_job(tiny_sd_dir, dog))
    (stuck.dir / "lock").mkdir()
    run = runs.create(long_job(tiny_sd_dir, dog, steps=2), queued=False)
    *_, last = execute(run)
    assert last.kind == "done"
    columns = [{}, {"run": run.id}, {"run": run.id, "strength": 0.0}]
    request = draw(tiny_sd_dir, columns, ["dog", "a cat"], [0, 7], ["dog", None])
    base, erased, none = ask(request)["columns"]
    pid = client.send(StatusRequest(), timeout=PATIENCE).pid

    drawn = tiny_sd.generate_batch(["dog", "dog", "a cat", "a cat"], [0, 7, 0, 7])
    assert [picture(cell).tobytes() for cell in base] == [image.tobytes() for image in drawn]
    assert [cell["png"] for cell in none] == [cell["png"] for cell in base]
    assert [cell["png"] for cell in erased] != [cell["png"] for cell in base]
    assert [cell["yes"] is None for cell in base] == [False, False, True, True]
    assert len(list((files.home() / "pictures").glob("*.png"))) == 4
    assert ask(request)["columns"][0] == base

    wrong = [
        ({"kind": "fly"}, "'fly' found using 'kind' does not match any of the expected tags: 'generate'"),
        ({**request, "ask": []}, "ask has 0 entries for 2 prompts"),
        ({**request, "seeds": list(range(500))}, "more than 512 pictures"),
        ({**request, "seeds": [-1]}, "seeds.0: Input should be greater than or equal to 0"),
        (draw(tiny_sd_dir, prompts=["dog " * 100]), "tokens"),
        (draw(tmp_path), "model_index.json is missing"),
        (draw(tiny_sd_dir, [{"run": "../../etc"}]), "There is no run"),
        (draw(tiny_sd_dir, [{"run": runs.create(long_job(tiny_sd_dir, dog), queued=False).id}]), "no weights yet"),
    ]
    for question, said in wrong:
        assert said in ask(question)["error"]
    next_one = runs.create(long_job(tiny_sd_dir, dog, steps=1))
    until(lambda: next_one.state == "done")
    assert stuck.state == "queued"
    idle = StatusAnswer("cpu", str(tiny_sd_dir), run=None, pid=pid, waiting=0)
    until(lambda: client.send(StatusRequest(), timeout=PATIENCE) == idle)
    os.kill(pid, signal.SIGTERM)
    until(lambda: not (files.home() / "worker.json").exists())


def about(kind, base, spec, **facts):
    return {"kind": kind, "tab": "tab", "base": str(base), "spec": spec_to_dict(spec), **facts}


def test_what_the_curator_sees_comes_also_while_a_run_trains(worker, tiny_sd_dir, tiny_sd, dog):
    """The same model object trains: the instant edit leaves no trace in it."""
    run = runs.create(long_job(tiny_sd_dir, dog, steps=5000))  # more than it has time for
    until(lambda: run.kept_step > 0)
    prompts = ["dog", "puppy", "cat"]
    preview = ask(about("preview", tiny_sd_dir, dog, prompts=prompts, seeds=[3, 0]))
    pairs = [(prompt, seed) for prompt in prompts for seed in (3, 0)]
    draw_all = partial(tiny_sd.generate_batch, [prompt for prompt, _ in pairs], [seed for _, seed in pairs])
    assert [decoded(png).tobytes() for png in preview["before"]] == [image.tobytes() for image in draw_all()]
    with solve_closed_form(tiny_sd, dog, EraseConfig("crce-uce")).applied(tiny_sd):
        edited = draw_all()
    assert [decoded(png).tobytes() for png in preview["after"]] == [image.tobytes() for image in edited]
    assert preview["before"] != preview["after"] and 0 <= preview["edit_seconds"] <= preview["seconds"]

    distances = ask(about("distances", tiny_sd_dir, dog))
    assert distances == json.loads(json.dumps(text_space.measure_distances(tiny_sd, dog)))

    config = EraseConfig(corefs=3, retains=2)
    asked = {"kind": "estimate", "tab": "tab", "base": str(tiny_sd_dir), "specs": [spec_to_dict(dog)]}
    cost = ask({**asked, "config": asdict(config)})
    assert cost["memory"] == estimate(tiny_sd, [dog], config).memory and cost["seconds"] > 0
    assert "each step draws 5" in ask({**asked, "config": {}})["error"]
    assert "config: Value error, eta is -1" in ask({**asked, "config": {"eta": -1}})["error"]

    judge = EmbeddedJudge.load(str(tiny_sd_dir))
    images = {
        term: tiny_sd.generate_batch([term] * 10, range(10)) for term in ("dog", "puppy", "guide dog", "cat", "pig")
    }
    coverage = ask(about("coverage", tiny_sd_dir, dog))["terms"]
    found = {(row["kind"], row["text"]): row["yes"] for row in coverage}
    asked = {"dog": "dog (animal)", "puppy": "dog (animal)", "guide dog": "dog (animal)", "cat": "cat", "pig": "pig"}
    yes = {term: sum(verdict.yes for verdict in judge.classify(images[term], x)) for term, x in asked.items()}
    assert {text: found[kind, text] for kind, text in found if text in yes} == yes
    assert {row["of"] for row in coverage} == {10} and ("target", "dog") in found and ("retain", "wolf") in found

    assert run.state == "running"
    run.request_stop()
    until(lambda: run.state == "stopped")
    again = ask(about("preview", tiny_sd_dir, dog, prompts=prompts, seeds=[3, 0]))
    assert (again["before"], again["after"]) == (preview["before"], preview["after"])


def test_what_cannot_be_seen_is_said(tiny_sd_dir, blind, dog, tmp_path):
    """A model as large as SD on a CPU, one without a judge, a target that the judge does not know, a broken spec."""
    large = shutil.copytree(tiny_sd_dir, tmp_path / "large")
    config = json.loads((large / "unet/config.json").read_text())
    (large / "unet/config.json").write_text(json.dumps({**config, "sample_size": 4096}))
    process = start()
    wrong = [
        (about("preview", large, dog, prompts=["dog"]), "2 pictures of large would take minutes each on a CPU"),
        (about("coverage", large, dog), "would take minutes each on a CPU, so none are drawn."),
        (draw(large, prompts="abcde"), "5 pictures of large would take minutes each on a CPU, so at most 4 are drawn"),
        ({**draw(large), "in_all": 12}, "12 pictures of large would take minutes each on a CPU, so at most 4"),
        (about("coverage", blind, dog), "brings no judge"),
        (about("coverage", tiny_sd_dir, ConceptSpec("unicorn")), "does not know 'unicorn'"),
        (about("preview", tiny_sd_dir, ConceptSpec("dog " * 40), prompts=["dog"]), "tokens"),
        (about("preview", tiny_sd_dir, dog, prompts=[]), "prompts: List should have at least 1 item"),
        (about("preview", tiny_sd_dir, dog, prompts=["dog"] * 300), "more than 512 pictures"),
        ({**about("distances", tiny_sd_dir, dog), "spec": {"target": ""}}, "spec: target"),
    ]
    for question, said in wrong:
        assert said in ask(question)["error"]
    # The map needs no pictures, so the large model has one.
    assert len(ask(about("distances", large, dog))["terms"]) == 9
    process.kill()
    process.wait()


def send_in_thread(answers, name, request):
    """Sends, and keeps the answer under the name. A daemon: one that is never answered must not hold up the exit."""
    send = lambda: answers.__setitem__(name, client.send(request, PATIENCE))  # noqa: E731
    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


def drawing(*pngs):
    return GenerateAnswer((tuple(map(Cell, pngs)),))


def test_a_newer_question_of_the_same_tab_replaces_the_older(broker):
    answers = {}

    def put(name, tab, waiting):
        """Sends, and waits until `waiting` requests wait."""
        thread = send_in_thread(answers, name, GenerateRequest(tab, "emoji-sd", [Column()], [name], [0], [None]))
        until(lambda: broker.waiting() == waiting)
        return thread

    threads = [put("first", "mine", 1), put("other", "yours", 2), put("second", "mine", 2)]
    until(lambda: answers == {"first": None})
    served = [broker.take()]
    served.append(broker.take())
    assert [pending.request.prompts for pending in served] == [["other"], ["second"]]
    threads.append(put("third", "mine", 1))
    assert [pending.replaced for pending in served] == [False, True]
    served.append(broker.take())
    for pending in served:
        pending.reply(drawing(*pending.request.prompts))
    for thread in threads:
        thread.join()
    assert answers["other"] == drawing("other") and answers["third"] == drawing("third")
    assert broker.take() is None


def test_questions_of_other_kinds_stand_beside_each_other_and_long_ones_give_way(broker):
    answers = {}

    def put(name, kind, waiting, **facts):
        thread = send_in_thread(answers, name, kind("tab", "emoji-sd", ConceptSpec(name), **facts))
        until(lambda: broker.waiting() == waiting)
        return thread

    threads = [
        put("long", CoverageRequest, 1),
        put("map", DistancesRequest, 2),
        put("look", PreviewRequest, 3, prompts=["look"]),
    ]
    long = broker.take()
    broker.put_back(long)
    assert [broker.take().request.spec.target for _ in range(3)] == ["map", "look", "long"]
    # While the long one has its turn, the same tab asks anew: what is put back then is replaced.
    threads.append(put("newer", CoverageRequest, 1))
    assert long.replaced
    broker.put_back(long)
    until(lambda: answers == {"long": None})
    newer = broker.take()
    assert newer.request.spec.target == "newer" and broker.take() is None
    newer.reply(CoverageAnswer(()))
    threads[0].join()
    threads[-1].join()
    assert answers["newer"] == CoverageAnswer(())


def test_only_who_has_the_key_is_heard(broker, home):
    assert stat.S_IMODE((home / "worker.json").stat().st_mode) == 0o600
    address = json.loads((home / "worker.json").read_text())
    # One visitor says nothing, one talks nonsense, one has the wrong key; none keeps the others out.
    silent = socket.create_connection((address["host"], address["port"]))
    with socket.create_connection((address["host"], address["port"])) as nonsense:
        nonsense.sendall(b"GET / HTTP/1.1\r\n\r\n")
    files.write_json(home / "worker.json", {**address, "key": "00" * 32})
    with pytest.raises(CrceError, match="does not answer"):
        client.send(StatusRequest(), timeout=PATIENCE)
    files.write_json(home / "worker.json", address)
    assert client.send(StatusRequest(), timeout=PATIENCE) == StatusAnswer("cpu")
    silent.close()


def test_there_is_one_worker_however_often_it_is_asked_for(home):
    home.mkdir()
    with FileLock(lock_file("auto")):
        ensure_worker()
        assert not (home / "worker.log").exists()
        second = subprocess.run([sys.executable, "-m", "crce", "worker"], cwd=ROOT, capture_output=True, text=True)
    assert "A worker for auto is already running." in second.stderr


def test_without_a_worker_the_status_says_so_at_once(home):
    with pytest.raises(CrceError, match="The worker does not answer"):
        client.send(StatusRequest(), timeout=PATIENCE)
