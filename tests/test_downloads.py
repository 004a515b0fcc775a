"""A base from the Hub: nothing large is downloaded unasked, and what is here needs no network."""

import json
import os
import pty
import subprocess
import sys

import pytest
from safetensors.torch import load_file, save_file

from crce import downloads
from crce.files import ROOT
from tests.fake_hub import FakeHub, Repo
from tests.servers import serving

BASE = "tester/sd"
CLOSED = "http://127.0.0.1:9"  # a port on which nobody listens


@pytest.fixture(scope="module")
def sd(tiny_sd_dir):
    """The files of a base as the Hub has them: unused parts, other formats, and a variant in fp16."""
    repo = Repo.of(tiny_sd_dir)
    files = {name: data for name, data in repo.files.items() if not name.startswith("judge/")}
    index = json.loads(files["model_index.json"])
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    files["model_index.json"] = json.dumps(index).encode()
    for unused in ("safety_checker/model.safetensors", "unet/diffusion_flax_model.msgpack", "sd-v1-4.ckpt",
                   "unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.non_ema.safetensors"):  # fmt: skip
        files[unused] = b"x" * 10**7
    repo.change(files)
    return repo


@pytest.fixture
def hub(sd):
    hub = FakeHub()
    hub.repos["model", BASE] = sd
    with serving(hub.app) as url:
        hub.url = url
        yield hub


@pytest.fixture
def crce(hub, home, tmp_path):
    """Runs a program in a process of its own, since the Hub's library reads its settings when it is imported."""

    def run(*arguments, url=hub.url, code=None, **settings):
        names = {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "hf_good", **settings}
        command = ["-c", code, *arguments] if code else ["-m", "crce", *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **names}
        told = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL}
        return subprocess.run([sys.executable, *command], cwd=tmp_path, env=environment, **told)

    return run


def test_a_base_is_downloaded_with_consent_only_and_then_used_without_the_network(crce, hub, home, tmp_path):
    said = crce("erase", "dog", "--base", BASE, "--out", tmp_path / "run")
    assert said.returncode == 1 and not (tmp_path / "run").exists()
    assert f"{BASE} is not on this machine: 0.5 MB to download, about 0.4 MB of memory in fp32." in said.stderr
    assert f"error: {BASE} is not downloaded without consent. Repeat with --yes" in said.stderr
    assert sum(path.stat().st_size for path in (tmp_path / "hf").rglob("*") if path.is_file()) < 20_000

    assert crce(code=f"from crce.cli.bases import prepare; prepare({BASE!r}, yes=True)").returncode == 0
    taken = {path.name for path in (tmp_path / "hf").rglob("snapshots/*/*/*")}
    assert not {name for name in taken if name.endswith((".bin", ".msgpack")) or "non_ema" in name}
    assert not list((tmp_path / "hf").rglob("safety_checker"))
    drawn = crce("generate", "a dog", "--base", BASE, "--out", tmp_path / "out", url=CLOSED)
    assert drawn.returncode == 0 and len(list((tmp_path / "out").glob("*.png"))) == 1
    assert crce("download", BASE, url=CLOSED).stdout.strip().startswith(str(tmp_path / "hf"))
    code = f"from crce.bases import covered_file; print(covered_file({BASE!r}))"
    assert crce(code=code).stdout.strip() == str(home / "covered" / "tester--sd.json")


def test_on_a_terminal_it_is_asked(hub, tmp_path):
    """No is the default, and nothing happens."""
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "hf_good"}
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "crce", "generate", "a dog", "--base", BASE, "--out", tmp_path]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **settings}, stdin=theirs, stderr=subprocess.PIPE)
    os.write(ours, b"n\n")
    said = process.communicate(timeout=300)[1].decode()
    assert "Download it? [y/N]" in said and f"error: {BASE} was not downloaded" in said
    assert process.returncode == 1


VERSION = """
import sys
from crce.judges.load import load_judge
print(load_judge(sys.argv[1], "tester/vlm", "cpu").facts.version)
"""


def test_a_judge_is_downloaded_with_consent_only_and_then_used_without_the_network(crce, hub, tiny_sd_dir, vlm_dir):
    repo = hub.repos["model", "tester/vlm"] = Repo.of(vlm_dir)
    said = crce("calibrate", "dog", "--base", tiny_sd_dir, "--judge", "tester/vlm")
    assert said.returncode == 1 and repo.downloads == 0
    size = f"{sum(path.stat().st_size for path in vlm_dir.iterdir()) / 1e6:.1f} MB"
    assert f"tester/vlm is not on this machine: {size} to download, about" in said.stderr
    assert "Repeat with --yes, or run `crce download --judge tester/vlm`." in said.stderr
    assert crce("download", "--judge", "tester/vlm").returncode == 0 and repo.downloads == 1
    assert crce(tiny_sd_dir, code=VERSION, url=CLOSED).stdout.startswith("tester/vlm@")
    assert "here already" in crce("download", "--judge", "tester/vlm", url=CLOSED).stdout


PLANS = """
import sys
from crce import downloads
from crce.errors import CrceError
for name in sys.argv[1:]:
    try:
        print(downloads.plan(name).describe())
    except CrceError as error:
        print(error)
"""


def test_the_hub_is_quoted_when_it_does_not_give_a_base(crce, hub, sd, tiny_sd_dir):
    hub.repos["model", "tester/gated"] = Repo.of(tiny_sd_dir, gated=True)
    old = {name.replace(".safetensors", ".bin"): data for name, data in sd.files.items()}
    hub.repos["model", "tester/old"] = repo = Repo(private=False)
    repo.change(old)
    hub.repos["model", "tester/data"] = Repo(private=False)
    names = ["tester/none", "tester/gated", "tester/old", "tester/data", "no/such/name"]
    none, gated, old, data, name = crce(*names, code=PLANS).stdout.splitlines()
    assert none.startswith("The Hub has no model 'tester/none'") and "It says: Repository not found" in none
    assert "accepted its conditions" in gated and "It says: Access to this model is restricted." in gated
    assert old == "'tester/old' has no safetensors for its text_encoder. Choose a base that has them."
    assert data.startswith("'tester/data' on the Hub is no diffusers model")
    assert name.startswith("'no/such/name' is no Hub id")
    (away,) = crce(BASE, code=PLANS, url=CLOSED).stdout.splitlines()
    assert away.startswith(f"{BASE} is not on this machine, and {CLOSED} cannot be reached.")
    (offline,) = crce(BASE, code=PLANS, HF_HUB_OFFLINE="1").stdout.splitlines()
    assert offline.endswith("HF_HUB_OFFLINE is set. Unset it to download.")


HALVES = f"""
from crce import downloads
from crce.models.diffusion import Diffusion
found = downloads.plan({BASE!r}, "fp16")
print([name for name, _ in found.files if "safetensors" in name])
*_, last = downloads.fetch(found)
print(last[0] == last[1] == found.size + found.cached, downloads.is_here({BASE!r}), downloads.is_here({BASE!r}, "fp16"))
print(Diffusion.load({BASE!r}, "cpu", "fp16").unet.dtype)
"""


def test_fp16_takes_the_variant_where_every_part_has_one(crce, hub, sd, tmp_path):
    repo = hub.repos["model", BASE] = Repo(private=False)
    repo.change({**sd.files, **dict(halved(sd, tmp_path))})
    files, fetched, dtype = crce(code=HALVES).stdout.splitlines()
    assert files.count(".fp16.safetensors") == files.count(".safetensors") == 3
    # In fp32 there is nothing here yet.
    assert fetched == "True False True" and dtype == "torch.float16"


def halved(repo, folder):
    for name in [name for name in repo.files if name.endswith("model.safetensors") and "safety" not in name]:
        (folder / "whole").write_bytes(repo.files[name])
        save_file({key: tensor.half() for key, tensor in load_file(folder / "whole").items()}, folder / "half",
                  {"format": "pt"})  # fmt: skip
        yield name.replace(".safetensors", ".fp16.safetensors"), (folder / "half").read_bytes()


SHARDS = ["m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors", "m.non_ema.safetensors", "m.bin"]


@pytest.mark.parametrize(
    ("names", "variant", "chosen"),
    [
        (["m.safetensors", "m.fp16.safetensors", "m.bin"], None, ["m.safetensors"]),
        (["m.safetensors", "m.fp16.safetensors"], "fp16", ["m.fp16.safetensors"]),
        (["m.safetensors"], "fp16", []),
        (SHARDS, None, SHARDS[:2]),
        (SHARDS[1:], None, []),
    ],
)
def test_the_weights_of_a_part_are_all_of_one_kind(names, variant, chosen):
    assert downloads._choose_weights(names, variant) == chosen
