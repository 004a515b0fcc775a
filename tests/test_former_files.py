"""What version 0.1 wrote can still be read: a run that was interrupted goes on, and one that is done is shown."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from crce.methods.erased_weights import ErasedWeights
from crce.runs import create, open_run
from crce.runs.events import StepEvent
from crce.runs.execute import execute

DATA = Path(__file__).parent / "data" / "version-0.1"


@pytest.fixture
def former(tiny_sd_dir, tmp_path):
    """The run directory `name` as it was, but for the base, whose place is written into its files."""

    def place(name):
        folder = shutil.copytree(DATA / name, tmp_path / name)
        for path in folder.glob("*.json*"):
            path.write_text(path.read_text().replace("BASE", str(tiny_sd_dir)))
        for path in folder.glob("*.safetensors"):
            with safe_open(path, framework="pt") as file:
                tensors, info = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
            save_file(tensors, path, metadata={**info, "base": str(tiny_sd_dir)})
        return open_run(folder)

    return place


def test_an_interrupted_run_goes_on_from_its_checkpoint(former, tiny_sd, tmp_path):
    run = former("interrupted")
    assert (run.state, run.kept_step, run.job.config.microbatch_size) == ("interrupted", 3, 2)
    assert run.job.config.backbone == "esd-x-strict"
    *events, last = execute(run)
    assert last.kind == "done" and next(e for e in events if isinstance(e, StepEvent)).step == 4
    *_, _ = execute(create(run.job, tmp_path / "whole"))
    mine, whole = (ErasedWeights.load(path / "delta.safetensors") for path in (run.dir, tmp_path / "whole"))
    base = dict(tiny_sd.unet.named_parameters())
    far, moved = (
        sum((w - other[n]).square().sum() for n, w in whole.tensors.items()) for other in (mine.tensors, base)
    )
    # Not equal: the first half was trained on another machine.
    assert far < 0.1 * moved


def test_a_run_that_is_done_has_its_report_and_its_weights(former, tiny_sd):
    run = former("done")
    assert (run.state, run.job.config.method, run.job.config.lr) == ("done", "crce-uce", 0.0)
    assert run.report.warning == "Hardly anything is erased."
    assert set(run.report.metrics) == {"acc_u", "acc_c_train", "acc_c_test", "acc_r_train", "acc_r_test"}
    before = tiny_sd.draw(["dog"], [0], 2, 3.0)
    with ErasedWeights.load(run.weights_path).applied(tiny_sd):
        assert not torch.equal(tiny_sd.draw(["dog"], [0], 2, 3.0), before)
