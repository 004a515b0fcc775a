"""A run belongs to one version of its base: on another it is refused everywhere, with one line that says so."""

import dataclasses
import shutil

import pytest
from safetensors.torch import load_file, save_file

from app.tabs import compare, erase
from crce import runs
from crce.base_version import find_digest
from crce.config import EraseConfig
from crce.errors import CrceError
from crce.evaluation.accuracies import check_one_base
from crce.evaluation.report import Report
from crce.experiments.tables import measure
from crce.files import read_json, write_json
from crce.methods.erased_weights import ErasedWeights, combine
from crce.models.diffusion import Diffusion
from crce.publishing import export
from crce.publishing.cards import weights_card
from crce.runs import EvaluationRequest, Job
from crce.runs.execute import execute
from crce.runs.models import Models
from crce.training.loop import erase_steps
from crce.worker import handlers
from crce.worker.requests import Column, GenerateRequest

SHORT = EraseConfig(steps=2, corefs=1, retains=1, preview_every=0, checkpoint_every=1)
OTHER = "belongs to another version of base"


@pytest.fixture
def base(tiny_sd_dir, tmp_path):
    return shutil.copytree(tiny_sd_dir, tmp_path / "base")


def change(base):
    """Another model in the same folder, of the same size."""
    file = base / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor * 1.01 for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})


@pytest.fixture
def run(base, dog, tmp_path):
    made = runs.create(Job(str(base), dog, SHORT))
    *_, last = execute(made)
    assert last.kind == "done"
    return made


@pytest.fixture
def stale(run, base):
    """A run whose base has changed since."""
    change(base)
    return run


def forget(run):
    """As a version wrote it that did not know versions of a base."""
    write_json(run.dir / "job.json", {k: v for k, v in read_json(run.dir / "job.json").items() if k != "base_digest"})
    weights = ErasedWeights.load(run.weights_path)
    info = {key: value for key, value in weights.info.items() if key != "base_digest"}
    dataclasses.replace(weights, info=info).save(run.weights_path)


def test_the_digest_is_of_weights_and_settings_alone(base, tiny_sd_dir):
    digest = find_digest(str(base))
    assert len(digest) == 64 and digest == find_digest(str(tiny_sd_dir))
    (base / "README.md").write_text("words")
    (base / "crce.json").write_text("{}")
    shutil.rmtree(base / "judge")
    (base / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"a variant")
    assert find_digest(str(base)) == digest
    settings = base / "unet" / "config.json"
    settings.write_text(settings.read_text() + "\n")
    changed = find_digest(str(base))
    change(base)
    assert len({digest, changed, find_digest(str(base))}) == 3


def test_a_base_that_is_not_here_has_no_digest(tmp_path):
    (tmp_path / "model_index.json").write_text("{}")
    assert find_digest(str(tmp_path)) == find_digest("nobody/nothing") == ""


def test_job_weights_and_report_name_the_version(run, base):
    digest = find_digest(str(base))
    assert run.job.base_digest == ErasedWeights.load(run.weights_path).info["base_digest"] == digest
    *_, last = execute(run, evaluation=EvaluationRequest(1))
    assert last.kind == "done" and run.report.base_digest == digest
    assert digest in weights_card(run.job, None, [], "you/no-dog") and digest[:8] in erase.render_details(run)


def test_evaluating_is_refused(stale):
    *_, last = execute(stale, evaluation=EvaluationRequest(1))
    assert last.kind == "failed" and OTHER in last.message and len(last.message.splitlines()) == 1


def test_drawing_and_combining_are_refused(stale, base):
    model, weights = Diffusion.load(str(base), device="cpu"), ErasedWeights.load(stale.weights_path)
    with pytest.raises(CrceError, match=f"The erasure of 'dog' {OTHER}"), weights.applied(model):
        pass
    with pytest.raises(CrceError, match=OTHER):
        combine([weights, weights], model)


def test_generate_is_refused(stale, crce, tmp_path):
    code, _, err = crce("generate", "a dog", "--run", stale.dir, "--out", tmp_path / "pictures")
    assert code == 1 and "The run 'dog (animal)' belongs to another version" in err
    assert not (tmp_path / "pictures").exists()


def test_exporting_is_refused(stale, tmp_path):
    for name in export.FORMATS:
        with pytest.raises(CrceError, match=OTHER):
            export.export(stale, [name], tmp_path)


def test_compare_and_the_worker_refuse(stale, base):
    with pytest.raises(CrceError, match=OTHER):
        compare._find_common([stale])
    request = GenerateRequest("tab", str(base), [Column(stale.id)], ["dog"], [0], [None])
    with pytest.raises(CrceError, match=OTHER):
        handlers.generate(request, Diffusion.load(str(base), device="cpu"), None, lambda: False)


def test_runs_of_two_versions_do_not_stand_side_by_side(stale, base, dog):
    with pytest.raises(CrceError, match="different versions of base"):
        compare._find_common([stale, runs.create(Job(str(base), dog, SHORT))])


def test_resuming_is_refused(base, dog, tmp_path):
    run = runs.create(Job(str(base), dog, SHORT))
    events = execute(run)
    while run.kept_step == 0:
        next(events)
    events.close()
    checkpoint = run.dir / "checkpoint.safetensors"
    change(base)
    *_, last = execute(run)
    assert last.kind == "failed" and OTHER in last.message
    model = Diffusion.load(str(base), device="cpu")
    with pytest.raises(CrceError, match=f"checkpoint.safetensors {OTHER}"):
        next(erase_steps(model, dog, SHORT, checkpoint=checkpoint, resume=True))


def test_a_run_without_a_version_fits_and_says_so(stale, base, crce, tmp_path):
    forget(stale)
    assert compare._find_common([stale])[0] == str(base)
    form = compare.CompareForm([], "", [], 1, 1, 1, False, "")
    assert "not recorded" in compare._list_titles(str(base), [stale], form)[1].about
    assert "not recorded" in erase.render_details(stale)
    code, _, err = crce("generate", "a dog", "--run", stale.dir, "--out", tmp_path / "pictures")
    assert code == 0 and "records no version of base" in err.replace("\n", " ")
    assert export.export(stale, ["diff"], tmp_path)


def test_a_model_in_memory_gives_way_to_a_new_version(base):
    models = Models("cpu")
    first = models.get(str(base))
    assert models.get(str(base)) is first is models.get_loaded(str(base))
    change(base)
    assert models.get_loaded(str(base)) is not first and models.get(str(base)).digest == find_digest(str(base))


def test_reports_of_two_versions_are_not_compared(base, dog, tmp_path):
    reports = [Report({}, base_digest=digest) for digest in ("", "a" * 64, "b" * 64)]
    check_one_base(reports[:2])
    with pytest.raises(CrceError, match="different versions of the base .aaaaaaaa, bbbbbbbb"):
        check_one_base(reports)
    jobs = [Job(str(base), dog, EraseConfig("crce-uce", preview_every=0))]
    list(measure(jobs, 1, tmp_path / "reports"))
    change(base)
    with pytest.raises(CrceError, match=f"The report .*json {OTHER}"):
        list(measure(jobs, 1, tmp_path / "reports"))
