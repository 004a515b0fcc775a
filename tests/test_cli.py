"""The command line as a person and as a program use it."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from PIL import Image

from crce import runs
from crce.catalogue import METHOD_FACTS
from crce.cli.erase import _is_of
from crce.concepts import library
from crce.concepts.spec import ConceptSpec, Term
from crce.config import EraseConfig
from crce.files import ROOT, home, read_json
from crce.runs import Job
from crce.worker.client import lock_file
from tests.fake_hub import FakeHub
from tests.scripted_llm import ScriptedLLM, phrases, revised
from tests.servers import serving

LISTS = ("--corefs", "2", "--retains", "2")


@pytest.fixture
def spec(dog, tmp_path):
    path = tmp_path / "dog.json"
    library.save_spec(dog, path)
    return path


@pytest.fixture
def erased(crce, spec, tiny_sd_dir, tmp_path):
    """A finished run's folder."""
    code, _, err = crce("erase", spec, "--base", tiny_sd_dir, *LISTS, "--out", tmp_path / "run")
    assert code == 0, err
    return tmp_path / "run"


COMMANDS = [
    "erase", "generate", "evaluate", "demo", "methods", "concepts", "runs", "stop", "resume", "worker", "calibrate",
    "cover", "measure", "sweep", "table", "export", "propose", "refine", "suggest", "distances", "preview", "download",
]  # fmt: skip


GROUPED = [["publish", "dataset"], ["publish", "weights"], ["dataset", "check"], ["dataset", "card"]]


@pytest.mark.parametrize("command", [*([c] for c in COMMANDS), *GROUPED])
def test_every_command_explains_itself(crce, command):
    code, out, _ = crce(*command, "--help")
    assert code == 0 and len(out.split()) > 20


def test_help_lists_every_command_and_loads_no_torch():
    code = "import sys; sys.argv = ['crce', '--help']\nfrom crce.cli.main import main\ntry: main()\n"
    code += "finally: print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout.strip().endswith("False")
    assert all(command in result.stdout for command in [*COMMANDS, "publish", "dataset"])


def test_lists_are_one_json_document(crce, tiny_sd_dir, dog):
    run = runs.create(Job(str(tiny_sd_dir), dog, EraseConfig(corefs=2, retains=2)))
    assert [card["key"] for card in json.loads(crce("methods", "--json")[1])] == list(METHOD_FACTS)
    assert {c["slug"] for c in json.loads(crce("concepts", "--json")[1])} == set(library.library())
    found = json.loads(crce("runs", "--json")[1])
    assert [(f["id"], f["state"], f["digest"]) for f in found] == [(run.id, "queued", dog.digest)]
    for command in ("methods", "concepts", "runs"):
        code, out, err = crce(command)
        assert (code, err) == (0, "") and len(out.splitlines()) > 1


def test_dataset_check_ends_with_one_where_something_is_wrong(crce, tmp_path):
    code, out, err = crce("dataset", "check")
    assert (code, err) == (0, "") and out.splitlines()[-1].startswith("50 concepts, 1501 terms: 0 errors, ")
    assert json.loads(crce("dataset", "check", "--json")[1])["problems"] == []

    found = library.library()["mouse-animal"]
    wrong = replace(found, corefs=(replace(found.corefs[0], text="mousekin"), *found.corefs[2:]))
    library.save_spec(wrong, tmp_path / "object" / "mouse-animal.json")
    code, out, _ = crce("dataset", "check", tmp_path)
    assert code == 1 and "error: mouse (animal): 9 train corefs instead of 10." in out.splitlines()
    assert json.loads(crce("dataset", "check", tmp_path, "--json")[1])["concepts"] == 1


def test_an_erasure_leaves_its_weights_and_says_how_to_go_on(erased, crce, spec, tiny_sd_dir, tmp_path):
    assert runs.open_run(erased).state == "done" and not runs.all_runs()
    code, out, _ = crce("erase", spec, "--base", tiny_sd_dir, *LISTS, "--steps", 1, "--json")
    facts = json.loads(out)
    assert code == 0 and facts["state"] == "done" and facts["config"]["steps"] == 1
    assert facts["id"] == runs.all_runs()[0].id and os.path.exists(facts["delta"])


def test_crce_goes_on_the_backbone_that_is_asked_for(crce, spec, tiny_sd_dir, tmp_path):
    asked = ("erase", spec, "--base", tiny_sd_dir, *LISTS, "--steps", 1)
    facts = json.loads(crce(*asked, "--backbone", "ca", "--json")[1])
    assert (facts["method"], facts["config"]["backbone"], facts["state"]) == ("crce on ca", "ca", "done")
    code, _, err = crce(*asked, "--backbone", "uce")
    assert code == 1 and "'uce' is no backbone for CRCE" in err


def test_options_of_before_0_2_are_understood_and_not_shown(crce, spec, tiny_sd_dir):
    asked = ("erase", spec, "--base", tiny_sd_dir, *LISTS, "--steps", 1, "--json")
    config = json.loads(crce(*asked, "--on", "ca", "--rows", 1)[1])["config"]
    assert (config["backbone"], config["microbatch_size"]) == ("ca", 1)
    shown = crce("erase", "--help")[1]
    assert "--backbone" in shown and "--rows" not in shown and "--on " not in shown


def test_a_device_that_is_not_there_is_told_before_there_is_a_run(crce, spec, tiny_sd_dir, tmp_path):
    code, _, err = crce("erase", spec, "--base", tiny_sd_dir, *LISTS, "--out", tmp_path / "run", "--device", "cuda:7")
    assert code == 1 and err.startswith("error: The device 'cuda:7' is not there.")
    assert not (tmp_path / "run").exists() and not runs.all_runs()


def test_what_comes_next_names_a_judge_where_the_base_has_none(crce, spec, tiny_sd_dir, blind):
    asked = ("erase", spec, *LISTS, "--steps", 1, "--base")
    assert "--judge qwen2-vl" in crce(*asked, blind)[1]
    assert "evaluate" in (said := crce(*asked, tiny_sd_dir)[1]) and "--judge" not in said


def test_a_dry_run_tells_the_cost_and_starts_nothing(crce, spec, tiny_sd_dir, tmp_path):
    asked = ("erase", spec, "--base", tiny_sd_dir, *LISTS, "--out", tmp_path / "run", "--dry-run")
    code, out, err = crce(*asked)
    assert code == 0 and re.search(r"About \d+ s to erase, by a step measured here\. Needs about .* of memory", out), (
        err
    )
    assert out.startswith("On the CPU in fp32: About")
    code, out, _ = crce(*asked, "--json")
    assert code == 0 and json.loads(out)["rows"] == 6 * (1 + 2 + 2 + 2) + 2 * 50
    assert not (tmp_path / "run").exists() and not runs.all_runs()


def test_a_dry_run_refuses_what_the_run_would(crce, dog, tiny_sd_dir, tmp_path):
    long = replace(dog, corefs=(*dog.corefs, Term("東西南北春夏秋冬" * 6, split="test")))
    library.save_spec(long, tmp_path / "long.json")
    asked = ("erase", tmp_path / "long.json", "--base", tiny_sd_dir, *LISTS, "--dry-run")
    code, _, err = crce(*asked)
    assert code == 1 and "reads 77 tokens" in err
    assert crce(*asked, "--leave-out-long")[0] == 0


def test_generate_draws_the_same_seeds_before_and_after(erased, crce, tmp_path):
    pictures = tmp_path / "pictures"
    code, out, err = crce("generate", "a dog", "a cat", "--run", erased, "--images", 2, "--seed", 5, "--out", pictures)
    assert code == 0, err
    names = ["01-a-dog-5.png", "01-a-dog-6.png", "02-a-cat-5.png", "02-a-cat-6.png"]
    assert out.split() == [str(pictures / side / name) for side in ("before", "after") for name in names]
    before, after = ([Image.open(pictures / side / n).tobytes() for n in names] for side in ("before", "after"))
    assert len(set(before)) == 4 and all(a != b for a, b in zip(after, before, strict=True))

    crce("generate", "a dog", "--run", erased, "--strength", 0, "--out", tmp_path / "none")
    sides = [Image.open(tmp_path / "none" / side / "01-a-dog-0.png").tobytes() for side in ("before", "after")]
    assert sides[0] == sides[1]


def test_generate_without_a_run_draws_the_base(crce, tiny_sd_dir, tmp_path):
    folder = tmp_path / "deep" / "er"
    code, out, _ = crce("generate", "x/../y", "", "--base", tiny_sd_dir, "--out", folder, "--json")
    names = ["01-x-y-ce84b5aa-0.png", "02-empty-0.png"]
    assert code == 0 and json.loads(out) == {"images": [str(folder / name) for name in names]}


def test_evaluate_prints_the_report(erased, crce):
    code, out, _ = crce("evaluate", erased, "--images", 1, "--json")
    assert code == 0 and json.loads(out) == read_json(erased / "report.json")
    code, out, _ = crce("evaluate", erased, "--images", 1)
    assert code == 0 and "Acc_U" in out and "95 % interval" in out


def test_demo_writes_one_page_that_needs_nothing_else(crce, tiny_sd_dir, tmp_path):
    corefs = ["puppy", "<script>alert(1)</script>", "hound", "pooch", "guide dog"]
    spec = ConceptSpec("dog", corefs=tuple(map(Term, corefs)), retains=tuple(map(Term, ["cat", "wolf", "fox"])))
    library.save_spec(spec, tmp_path / "spec.json")
    folder = tmp_path / "a demo"
    code, out, err = crce("demo", tmp_path / "spec.json", "--base", tiny_sd_dir, "--images", 1, "--out", folder)
    assert code == 0, err
    assert out == f"{folder / 'report.html'}\n"
    page = (folder / "report.html").read_text()
    # The target, 5 corefs and 3 retains; two seeds of the target, one of the others; before and after.
    assert page.count("data:image/png;base64,") == page.count("<img") == 2 * (2 + 5 + 3)
    assert not re.search(r"(src|href)=\"(?!data:)", page) and "http" not in page
    assert "<script" not in page and "&lt;script&gt;" in page


def test_a_demo_without_a_judge_is_for_the_eye(crce, blind, tmp_path):
    spec = ConceptSpec("dog", corefs=tuple(map(Term, "abcde")), retains=tuple(map(Term, ["cat", "wolf", "fox"])))
    library.save_spec(spec, tmp_path / "spec.json")
    code, _, err = crce("demo", tmp_path / "spec.json", "--base", blind, "--out", tmp_path / "demo")
    assert code == 0 and "brings no judge of its own" in err
    page = (tmp_path / "demo" / "report.html").read_text()
    assert "by eye" in page and "Acc_U" not in page and "✓" not in page
    assert page.count("data:image/png;base64,") == 2 * 2 * (1 + 5 + 3)
    code, _, err = crce("evaluate", tmp_path / "demo", "--images", 1)
    assert code == 1 and err.count("brings no judge of its own") == 1 and "has no new report" in err
    assert runs.open_run(tmp_path / "demo").state == "done"


@pytest.mark.parametrize("seed", ["-1", str(10**20)])
def test_a_seed_that_no_picture_has_is_refused(crce, tmp_path, seed):
    code, _, err = crce("generate", "x", "--seed", seed, "--out", tmp_path / "out")
    assert code == 2 and "Invalid value for '--seed'" in err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["erase", "dgo"], "error: There is no concept 'dgo'. Did you mean \"dog\"?"),
        (["erase", "none.json"], "error: 'none.json' cannot be read (No such file or directory)."),
        (["erase", "{broken}"], "broken.json: line 1, column 12 is not valid JSON: Expecting value."),
        (["erase", "dog", "--base", "/"], "error: '/' holds no diffusers model: model_index.json is missing."),
        (["erase", "dog", "--base", "no"], "error: There is no base model 'no'."),
        (["erase", "dog", "--base", "emoji-sd/"], "error: There is no base model 'emoji-sd/'."),
        (["erase", "dog", "--base", 3000 * "a"], "error: There is no base model 'aaaa"),
        (["evaluate", 3000 * "a"], "error: There is no run 'aaaa"),
        (["worker", "--device", "tpu"], "error: There is no device 'tpu'."),
        (["import", "nowhere.zip"], "The bundle nowhere.zip cannot be taken in: No such file or directory."),
        (["erase", "dog", "--method", "magic"], "error: There is no method 'magic'. Choose one of crce,"),
        (["erase", "dog", "--steps", "0"], "error: steps is 0; give a whole number from 1 to 100000."),
        (["erase", "{spec}", "--base", "{base}"], "3 training corefs and each step draws 5 (M). Add corefs, or lower"),
        (["erase", "{empty}", "--base", "{base}"], "has 0 training corefs and each step draws 5 (M)"),
        (["erase", "{empty}", "--base", "{base}", "--corefs", "0"], "has 0 training retains and each step draws 3 (N)"),
        (["erase", "dog", "--base", "{base}", "--out", "{base}"], "is in use. Give an empty or a new folder"),
        (
            ["erase", "dog", "--base", "{base}", "--out", "/proc/x"],
            "error: The run directory /proc/x cannot be written",
        ),
        (["erase", "dog", "--base", "{base}", "--device", "gpu"], "error: There is no device 'gpu'."),
        (["erase", "dog", "--resume"], "error: There is no unfinished run of 'dog' to resume."),
        (["erase", "dog", "--resume", "--out", "{base}"], "holds no run: job.json is missing."),
        (["generate", "a dog", "--run", "20260801-093015-dog-3fa2", "--out", "x"], "error: There is no run '20260801"),
        (["generate", "a dog " * 99, "--base", "{base}", "--out", "x"], "tokens, and"),
        (["generate", "a dog", "--base", "{base}", "--out", "/proc/x"], "error: /proc/x cannot be written"),
        (["generate", "a dog", "--strength", "nan", "--out", "x"], "error: The strength is nan; give a value"),
        (["erase", "dog", "--method", "crce-uce", "--backbone", "ca"], "error: crce-uce has no backbone."),
        (["generate", "a dog", "--strength", "7", "--out", "x"], "error: The strength is 7; give a value"),
        (["evaluate", "nothing"], "error: There is no run 'nothing'. `python -m crce runs` lists them."),
        (["evaluate", ""], "error: No run was named."),
        (["evaluate", "nothing", "--judge", ""], "error: There is no run 'nothing'."),
        (["distances", "dgo", "--base", "no"], "error: There is no concept 'dgo'."),
        (["cover", "dgo", "--base", "no"], "error: There is no concept 'dgo'."),
        (["measure", "dgo", "--base", "no", "--out", "x"], "error: There is no concept 'dgo'."),
        (["demo", "dog", "--images", "0"], "error: images is 0; give a number"),
        (["dataset", "changes", "/proc/none", "{base}"], "error: /proc/none contains no specs."),
        (["stop", "../.."], "holds no run"),
        (["worker", "--device", "tpu"], "error: There is no device 'tpu'."),
        (["publish", "dataset", "x", "dgo"], "error: There is no concept 'dgo'."),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_1(crce, spec, tiny_sd_dir, tmp_path, arguments, said):
    broken, empty = tmp_path / "broken.json", tmp_path / "empty.json"
    broken.write_text('{"target": }')
    library.save_spec(ConceptSpec("dog"), empty)
    given = {"broken": broken, "spec": spec, "empty": empty, "base": tiny_sd_dir}
    code, out, err = crce(*(argument.format(**given) for argument in arguments))
    assert (code, out) == (1, "")
    assert said in err and err.startswith("error: ") and err.count("\n") == 1
    assert arguments[0] != "demo" or runs.all_runs() == []


def test_a_name_in_brackets_is_told_as_it_is(crce, tmp_path):
    odd = tmp_path / "odd.json"
    odd.write_text('{"target": "dog [/b]", "corefs": [{"text": "[red]puppy"}], "retains": [{"text": "cat"}]}')
    _, _, err = crce("publish", "dataset", "me/odd", odd, "--dry-run")
    assert "warning: dog [/b]: no term is in the test split" in err and "Traceback" not in err


def test_wrong_usage_is_exit_code_2(crce):
    assert crce("erase")[0] == 2
    assert crce("erase", "dog", "--steps", "many")[0] == 2


def test_ctrl_c_keeps_the_run_and_resume_ends_it(crce, spec, tiny_sd_dir, tmp_path):
    command = [sys.executable, "-m", "crce", "erase", spec, "--base", tiny_sd_dir, *LISTS, "--steps", "150"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not (found := runs.all_runs()) or not found[0].progress:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    run = found[0]
    assert process.returncode == 130 and f"stopped; step {run.kept_step} is kept" in err
    assert run.state == "stopped"

    code, out, err = crce("erase", spec, "--resume", "--json")
    assert code == 0, err
    assert json.loads(out)["id"] == run.id and run.state == "done"
    assert [e.kind for e in run.events()].count("start") == 3  # created, begun, resumed

    code, _, err = crce("erase", "cat", "--resume", "--out", run.dir)
    assert code == 1 and "There is no unfinished run of 'cat'" in err


def test_a_run_of_other_terms_is_not_resumed(crce, spec, tiny_sd_dir, dog, tmp_path):
    runs.create(Job(str(tiny_sd_dir), dog, EraseConfig(corefs=2, retains=2)), tmp_path / "run", queued=False)
    code, _, err = crce("erase", "cat", "--resume", "--out", tmp_path / "run")
    assert code == 1 and "is for 'dog (animal)' with other terms" in err


def test_long_terms_are_told_and_left_out_by_choice(crce, tiny_sd_dir, tmp_path):
    long = "東西南北春夏秋冬山川草木花鳥風月" * 3
    path = tmp_path / "dog.json"
    spec = ConceptSpec("dog", corefs=(Term("puppy"), Term(long, split="test")), retains=(Term("cat"),))
    library.save_spec(spec, path)
    asked = ("erase", path, "--base", tiny_sd_dir, "--method", "esd-x-strict", "--steps", 1, "--lr", "0.001")
    code, _, err = crce(*asked)
    assert code == 1 and long in "".join(err.split()) and not runs.all_runs()
    assert crce(*asked, "--leave-out-long")[0] == 0
    (run,) = runs.all_runs()
    assert [term.text for term in run.job.spec.corefs] == ["puppy"]
    assert _is_of(run, spec) and not _is_of(run, replace(spec, corefs=(Term("hound"),)))


def test_stop_and_resume_by_id(crce, tiny_sd_dir, dog):
    run = runs.create(Job(str(tiny_sd_dir), dog, EraseConfig(corefs=2, retains=2)))
    # Held here, so that no worker is started.
    with FileLock(lock_file("auto")):
        assert json.loads(crce("stop", run.id, "--json")[1])["state"] == "stopped"
        assert crce("resume", run.id)[1] == f"{run.id}: queued\n"
    assert crce("runs")[1].split()[5:8] == [run.id, "queued", "dog"]


def test_cover_writes_what_the_base_draws(crce, tiny_sd_dir, tmp_path):
    base = shutil.copytree(tiny_sd_dir, tmp_path / "base")
    code, out, err = crce("cover", "--base", base, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found == json.loads((base / "covered.json").read_text())
    assert {"dog", "cat"} <= found["concepts"].keys() and found["seeds"] == list(range(10))


def test_measure_keeps_a_report_for_each_method(crce, tiny_sd_dir, tmp_path):
    terms = {"corefs": tuple(map(Term, "abcde")), "retains": (Term("cat"), Term("wolf"), Term("fox"))}
    library.save_spec(ConceptSpec("dog", **terms), tmp_path / "dog.json")
    methods = ["--method", "crce", "--method", "esd-x-strict"]
    settings = ["--base", tiny_sd_dir, "--images", 1, "--steps", 1, "--out", tmp_path / "reports"]
    code, out, err = crce("measure", tmp_path / "dog.json", *methods, *settings, "--json")
    assert code == 0, err
    found = [json.loads(path.read_text()) for path in map(Path, json.loads(out)["reports"])]
    assert [(r["concept"], r["method"]) for r in found] == [("dog", "crce"), ("dog", "esd-x-strict")]


def test_publishing_goes_out_in_one_commit(erased):
    hub = FakeHub()
    with serving(hub.app) as url:
        environment = {**os.environ, "HF_ENDPOINT": url, "HF_TOKEN": "hf_good", "HF_HOME": str(home() / "hf")}

        def publish(*arguments, **changed):
            command = [sys.executable, "-m", "crce", "publish", *map(str, arguments)]
            return subprocess.run(
                command, cwd=ROOT, env={**environment, **changed}, capture_output=True, text=True
            )  # fmt: skip

        done = publish("dataset", "CorefConcept", "dog", "cat", "--tag", "v1", "--json")
        assert json.loads(done.stdout)["tag"] == "v1", done.stderr
        assert "specs/object/dog.json" in hub.repos["dataset", "tester/CorefConcept"].files
        weights = publish("weights", erased, "no-dog")
        assert weights.stdout.strip().endswith("/tester/no-dog"), weights.stderr
        nobody = publish("dataset", "CorefConcept", "dog", HF_TOKEN="")
        assert (nobody.returncode, nobody.stdout) == (1, "") and "error: Log in with" in nobody.stderr


# Proposing and refining


@pytest.fixture
def no_llm(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "CRCE_MODEL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def llm(monkeypatch):
    scripted = ScriptedLLM()
    with serving(scripted.app) as url:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{url}/v1")
        monkeypatch.setenv("CRCE_MODEL", "tiny")
        yield scripted


def test_propose_shows_terms_as_they_come_and_keeps_a_spec(crce, llm, tmp_path):
    code, out, err = crce("propose", "lighthouse", "--out", tmp_path / "l.json")
    assert code == 0 and err.splitlines()[:2] == ["asking tiny at 127.0.0.1", "  name 0"]
    assert len(err.splitlines()) == 1 + 30
    assert "because name 0" in out and out.splitlines()[-1] == str(tmp_path / "l.json")
    assert len(library.load_spec(tmp_path / "l.json").corefs) == 15


def test_propose_gives_each_sense_a_file(crce, no_llm, tmp_path):
    code, out, _ = crce("propose", "kite", "--out", tmp_path / "kite.json", "--json")
    facts = json.loads(out)
    assert code == 0 and facts["proposer"] == "bundled lexicon (no LLM connected)"
    assert [Path(path).name for path in facts["paths"]] == ["kite-artifact.json", "kite-animal.json"]
    assert [library.load_spec(path).sense for path in map(Path, facts["paths"])] == ["artifact", "animal"]
    code, out, _ = crce("propose", "kite", "--sense", "bird of prey", "--out", tmp_path / "one.json")
    assert code == 0 and library.load_spec(tmp_path / "one.json").name == "kite (bird of prey)"


def test_propose_without_out_keeps_nothing(crce, no_llm, home):
    code, out, _ = crce("propose", "kite")
    assert code == 0 and "Give --out" in out and not list(home.rglob("*.json"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(("propose", "Asterix", "--category", "ip"), "OPENAI_BASE_URL"), (("propose", " "), "Write one"),
     (("propose", "kite", "--out", "kite.txt"), "must end in .json"), (("propose", "qwxyz"), "Check the spelling"),
     (("refine", "qwxyz", "help"), "no concept"), (("refine", "dog", "help", "--out", "dog.txt"), "must end in .json")],
)  # fmt: skip
def test_bad_input_is_one_clear_line(crce, no_llm, arguments, says):
    code, out, err = crce(*arguments)
    assert code == 1 and says in err and not out
    assert [line for line in err.splitlines() if line.startswith("error: ")] == err.splitlines()[-1:]


def test_a_model_that_fails_is_one_clear_line(crce, llm, spec):
    llm.mode, before = "429", spec.read_text()
    for arguments in (("propose", "kite"), ("refine", spec, "more", "--yes"), ("suggest", "ip")):
        code, out, err = crce(*arguments)
        assert code == 1 and not out and err.splitlines()[-1].endswith("Try again in 3600 s.")
    assert spec.read_text() == before


def test_refine_shows_the_difference_and_asks(crce, no_llm, spec, monkeypatch):
    before = spec.read_text()
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    code, out, _ = crce("refine", spec, "drop hound")
    assert (code, out.split("\n")[:2], out.split()[-1]) == (0, ["Dropped: hound.", "− erase: hound"], "changed.")
    assert spec.read_text() == before
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    code, out, _ = crce("refine", spec, "drop hound")
    assert code == 0 and out.split()[-1] == str(spec)
    after = library.load_spec(spec)
    assert "hound" not in {term.text for term in after.corefs}
    assert after.provenance.history[-1].wish == "drop hound"


def test_refine_by_a_model_takes_its_reasons_along(crce, llm, spec):
    llm.answer = revised(
        "One more.", phrases("puppy", "hound", "pooch", "guide dog", "doggo"), phrases("cat"), pig="far"
    )
    code, out, _ = crce("refine", spec, "more", "--json")
    facts = json.loads(out)
    assert code == 0 and facts["says"] == "One more." and not facts["applied"]
    assert "− keep: pig — far" in facts["changes"]
    code, out, _ = crce("refine", spec, "more", "--yes", "--json")
    assert json.loads(out)["applied"] and "doggo" in spec.read_text()


def test_refining_a_concept_of_the_library_makes_an_own_copy(crce, no_llm, home):
    shipped = library.find_concept("frog")
    code, out, _ = crce("refine", "frog", f"drop {shipped.corefs[0].text}", "--yes")
    assert code == 0 and Path(out.splitlines()[-1]) == home / "concepts" / "object" / "frog.json"
    assert len(library.find_concept("frog").corefs) == len(shipped.corefs) - 1


def test_suggest_lists_names(crce, llm, monkeypatch):
    llm.answer = {"names": ["Asterix", "Obelix"]}
    assert crce("suggest", "ip")[1].split() == ["Asterix", "Obelix"]
    monkeypatch.delenv("CRCE_MODEL")
    assert "Tom Cruise" in json.loads(crce("suggest", "celebrity", "--json")[1])


def test_distances_are_listed_nearest_first(crce, tiny_sd_dir, spec):
    code, out, _ = crce("distances", spec, "--base", tiny_sd_dir, "--json")
    found = json.loads(out)
    assert code == 0 and found["terms"][0]["kind"] == "target"
    far = [term["euclidean"] for term in found["terms"]]
    assert far == sorted(far) and far[-1] > 0
    code, out, _ = crce("distances", spec, "--base", tiny_sd_dir)
    lines = out.splitlines()
    assert code == 0 and [line.split()[0] for line in lines] == ["kind", *(term["kind"] for term in found["terms"])]


def test_preview_draws_before_and_after_the_instant_edit(crce, tiny_sd_dir, spec, tmp_path):
    code, out, _ = crce("preview", spec, "--base", tiny_sd_dir, "--out", tmp_path / "seen", "--json")
    written = [Path(path) for path in json.loads(out)["images"]]
    before, after = written[:7], written[7:]
    assert code == 0 and [path.parent.name for path in written] == ["before"] * 7 + ["after"] * 7
    assert [path.name for path in before] == [path.name for path in after] and before[0].name == "01-dog-0.png"
    assert any(one.read_bytes() != other.read_bytes() for one, other in zip(before, after, strict=True))


def test_an_export_says_how_it_is_loaded(crce, erased, tmp_path):
    out = tmp_path / "exported"
    code, told, err = crce("export", erased, "--out", out)
    assert code == 0, err
    assert {path.name for path in out.iterdir()} == {f"without-dog-animal-a23f0f72-crce-{part}.safetensors"
                                                     for part in ("weights", "diff")}  # fmt: skip
    assert "load_state_dict" in told and "LoRA folder" in told
    code, told, _ = crce("export", erased, "--out", out, "--format", "lora", "--fp16", "--json")
    (facts,) = json.loads(told)
    assert code == 0 and Path(facts["path"]).name.endswith("-lora-fp16.safetensors") and facts["size"] > 0
    assert crce("export", erased, "--out", out, "--format", "ckpt")[0] == 1
