"""A new method is one file, one row of the catalogue and one entry in the registry: with these three it erases, is
listed, exported and shown in the app. Each is made here in a copy of the source and used from another process."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from crce.files import ROOT

FILE = '''\
"""Toy: V of the cross-attention, halved."""

from torch import nn

from crce.methods.base import ClosedForm, Specs, Tensors
from crce.methods.parameters import values
from crce.models.diffusion import Diffusion


class Toy(ClosedForm):
    def trainable(self, unet: nn.Module) -> list[str]:
        return values(unet)

    def solve(self, model: Diffusion, specs: Specs, names: list[str]) -> Tensors:
        parameters = dict(model.unet.named_parameters())
        return {name: parameters[name].detach().float() / 2 for name in names}
'''
ROW = '    MethodFacts("toy", "Toy", CLOSED_FORM, "attn2 V", "Halves V.", "ours"),\n)  # fmt: skip\n'
ENTRY = '    "toy": Toy(),\n}\n'


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The source with the method added: a file, a row, an entry with its import."""
    root = tmp_path_factory.mktemp("copy")
    for name in ("crce", "app"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("assets", "corefconcept"):
        (root / name).symlink_to(ROOT / name)
    (root / "crce/methods/toy.py").write_text(FILE)
    catalogue, registry = root / "crce/catalogue.py", root / "crce/methods/registry.py"
    catalogue.write_text(catalogue.read_text().replace(")  # fmt: skip\n", ROW, 1))
    entered = registry.read_text().replace("}\n", ENTRY, 1)
    registry.write_text(
        entered.replace("from crce.methods.uce", "from crce.methods.toy import Toy\nfrom crce.methods.uce")
    )
    return root


def run(copy, home, *command):
    env = {**os.environ, "CRCE_HOME": str(home), "PYTHONPATH": str(copy)}
    done = subprocess.run([sys.executable, *command], cwd=copy, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_listed_and_erases(copy, home, tiny_sd_dir, tmp_path):
    listed = json.loads(run(copy, home, "-m", "crce", "methods", "--json"))
    assert [row["title"] for row in listed if row["key"] == "toy"] == ["Toy"]
    out = tmp_path / "out"
    told = run(copy, home, "-m", "crce", "erase", "dog", "--method", "toy", "--base", str(tiny_sd_dir),
               "--out", str(out), "--json")  # fmt: skip
    assert json.loads(told)["method"] == "toy" and (out / "delta.safetensors").exists()
    formats = ("weights", "diff", "lora", "pipeline", "checkpoint")
    options = [word for key in formats for word in ("--format", key)]
    made = json.loads(run(copy, home, "-m", "crce", "export", str(out), *options, "--out", str(tmp_path), "--json"))
    assert [each["format"] for each in made] == [*formats] and all(os.path.exists(each["path"]) for each in made)


def test_the_app_offers_it(copy, home):
    code = (
        "from app.tabs import erase_form\n"
        "import gradio as gr\n"
        "with gr.Blocks(): print(erase_form.build_choice()['method'].choices[-1])"
    )
    assert "('Toy', 'toy')" in run(copy, home, "-c", code)
