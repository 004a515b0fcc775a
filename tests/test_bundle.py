"""A run goes out as one file and comes back whole; any other archive is refused, and leaves nothing behind."""

import io
import json
import shutil
import stat
import struct
import zipfile
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from app.tabs import compare, compare_bundle
from crce import files, runs
from crce.config import EraseConfig
from crce.errors import CrceError
from crce.runs import Job
from crce.runs.bundle import pack, unpack
from crce.runs.events import DoneEvent, PreviewEvent, StartEvent, to_line
from crce.runs.execute import execute
from crce.runs.models import Models
from tests.tiny import save_tiny_sd


@pytest.fixture(scope="module")
def whole(tiny_sd_dir, dog, tmp_path_factory):
    """A run that was trained, judged and drawn."""
    settings = EraseConfig(steps=2, corefs=1, retains=1, preview_every=1)
    run = runs.create(Job(str(tiny_sd_dir), dog, settings), tmp_path_factory.mktemp("whole") / "run")
    run.request_evaluate(1)
    list(execute(run, Models("cpu")))
    assert run.report and run.last(PreviewEvent)
    return run


@pytest.fixture(scope="module")
def entries(whole, tmp_path_factory) -> dict[str, bytes]:
    """The files of its bundle."""
    with zipfile.ZipFile(pack(whole, tmp_path_factory.mktemp("bundle") / "dog.zip")) as bundle:
        return {name: bundle.read(name) for name in bundle.namelist()}


@pytest.fixture
def bundled(entries, tmp_path):
    """Writes a real archive of these files, with changes; None leaves one out."""

    def write(**changes) -> Path:
        path = tmp_path / "in.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in {**entries, **changes}.items():
                if data is not None:
                    archive.writestr(name, data)
        return path

    return write


def changed(data: bytes, **facts) -> str:
    return json.dumps({**json.loads(data), **facts})


def refused(path, base, match) -> None:
    with pytest.raises(CrceError, match=match):
        unpack(path, str(base))
    assert not runs.store().exists() or list(runs.store().iterdir()) == []


def test_a_run_goes_out_and_comes_back_whole(whole, tiny_sd_dir, tmp_path):
    done = unpack(pack(whole, tmp_path / "dog.zip"), str(tiny_sd_dir))
    run = done.run
    assert (run.state, run.erased, done.warning, done.versions["crce"]) == ("done", True, "", "0.2.0")
    assert (run.job.spec, run.job.config, run.job.base_digest) == (
        whole.job.spec, whole.job.config, whole.job.base_digest,
    )  # fmt: skip
    assert run.report.metrics == whole.report.metrics and run.report.terms == whole.report.terms
    assert pictures(run) == pictures(whole) and len(pictures(run)) > 4
    assert [run] == runs.all_runs() and runs.find(run.id) == run
    models = Models("cpu")
    assert drawn(run, models) == drawn(whole, models)


def pictures(run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run.dir / "images").rglob("*.png")}


def drawn(run, models) -> bytes:
    from crce.methods.erased_weights import ErasedWeights

    model = models.get(run.job.base, "cpu", "fp32")
    with ErasedWeights.load(run.weights_path).applied(model):
        return model.generate("dog", seed=1).tobytes()


def test_nothing_in_it_tells_of_the_machine(entries, tiny_sd_dir, whole):
    everything = b"".join(data for name, data in entries.items() if not name.endswith(".png"))
    assert str(tiny_sd_dir).encode() not in everything
    assert str(whole.dir.parent).encode() not in everything
    assert not any(json.loads(line).get("pid") for line in entries["events.jsonl"].splitlines())


def test_a_folder_as_base_is_known_again_by_its_digest(whole, tiny_sd_dir, dog, bundled):
    refused(bundled(), "", "a folder of another machine")
    runs.create(Job(str(tiny_sd_dir), dog, EraseConfig(corefs=1, retains=1)))
    assert unpack(bundled()).run.job.base == str(tiny_sd_dir)


def test_another_version_of_the_base_is_told(bundled, tmp_path):
    save_tiny_sd(tmp_path / "other")
    settings = files.read_json(tmp_path / "other" / "scheduler" / "scheduler_config.json")
    files.write_json(tmp_path / "other" / "scheduler" / "scheduler_config.json", {**settings, "beta_end": 0.013})
    done = unpack(bundled(), str(tmp_path / "other"))
    assert "another version of other" in done.warning and "nothing can be drawn" in done.warning
    with pytest.raises(CrceError, match="another version"):
        done.run.check_base(Models("cpu").get(done.run.job.base, "cpu", "fp32").digest)


def test_an_unfinished_run_is_not_packed_and_a_full_place_is_told(tiny_sd_dir, dog, whole, tmp_path):
    with pytest.raises(CrceError, match="no result yet"):
        pack(runs.create(Job(str(tiny_sd_dir), dog, EraseConfig(corefs=1, retains=1))), tmp_path / "x.zip")
    damaged = runs.open_run(shutil.copytree(whole.dir, tmp_path / "damaged"))
    damaged.weights_path.write_bytes(whole.weights_path.read_bytes()[:-100])
    with pytest.raises(CrceError, match="cannot be read as safetensors"):
        pack(damaged, tmp_path / "x.zip")
    (tmp_path / "file").touch()
    with pytest.raises(CrceError, match="cannot be written"):
        pack(whole, tmp_path / "file" / "x.zip")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["file"]


@pytest.mark.parametrize(
    "name",
    ["../evil.txt", "/etc/cron.d/evil", "images/../../evil.png", "images\\..\\evil.png", "C:evil.png", "images/",
     "images/eval/deep/x.png", "lock", "checkpoint.safetensors", "delta.pt", "model.pkl",
     "images/x.svg", "./job.json", "JOB.JSON", "owner", "evaluate.json"],
)  # fmt: skip
def test_any_other_file_is_refused(bundled, tiny_sd_dir, tmp_path, name):
    refused(bundled(**{name: b"evil"}), tiny_sd_dir, "is no file of a bundle|is not what it seems")
    assert not [path for path in tmp_path.rglob("*evil*") if path.is_file()]


def test_a_name_that_is_cut_at_a_nul_is_refused(bundled, tiny_sd_dir):
    path = bundled(**{"images/x.png_.exe": png()})
    path.write_bytes(path.read_bytes().replace(b"x.png_.exe", b"x.png\0.exe"))
    refused(path, tiny_sd_dir, "is not what it seems")


def test_a_link_is_refused(entries, tiny_sd_dir, tmp_path):
    link = zipfile.ZipInfo("images/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
        archive.writestr(link, "/etc/passwd")
    refused(tmp_path / "in.zip", tiny_sd_dir, "is a link")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_twice_is_refused(bundled, entries, tiny_sd_dir):
    path = bundled()
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("job.json", entries["job.json"])
    refused(path, tiny_sd_dir, "'job.json' twice")


def test_what_would_grow_is_refused(bundled, tiny_sd_dir):
    refused(bundled(**{"report.json": b" " * (2 << 20)}), tiny_sd_dir, "would grow to more than 200 times")
    refused(bundled(**{"images/x.png": b"\0" * (17 << 20)}), tiny_sd_dir, "'images/x.png' has 17 MB")


def test_files_that_share_their_bytes_are_refused(bundled, entries, tiny_sd_dir):
    """Each entry of the directory points to the same stored bytes, as in a bomb of overlapping files."""
    path = bundled()
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("images/x.png", np.random.default_rng(0).bytes(100_000), zipfile.ZIP_STORED)
        info = archive.getinfo("images/x.png")
        for number in range(100):
            other = zipfile.ZipInfo(f"images/x{number}.png")
            for field in ("header_offset", "compress_size", "file_size", "CRC", "compress_type"):
                setattr(other, field, getattr(info, field))
            archive.filelist.append(other)
        archive._didModify = True
    refused(path, tiny_sd_dir, "its files overlap")


def test_a_size_that_is_a_lie_is_refused(bundled, tiny_sd_dir):
    """The directory says one byte where the file has more."""
    path = bundled()
    data = bytearray(path.read_bytes())
    place = data.rindex(b"PK\x01\x02", 0, data.rindex(b"job.json"))
    struct.pack_into("<I", data, place + 24, 1)
    path.write_bytes(data)
    refused(path, tiny_sd_dir, "cannot be read as a bundle")


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.999])
def test_a_torn_archive_is_refused(bundled, tiny_sd_dir, keep):
    path = bundled()
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if keep < 1 else keep])
    refused(path, tiny_sd_dir, "cannot be read as a bundle")


def test_a_flipped_byte_is_refused(bundled, tiny_sd_dir):
    path = bundled()
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0xFF
    path.write_bytes(data)
    refused(path, tiny_sd_dir, "refused|cannot be read as a bundle")


@pytest.mark.parametrize("name", ["bundle.json", "job.json", "delta.safetensors"])
def test_a_part_that_is_missing_is_told(bundled, tiny_sd_dir, name):
    refused(bundled(**{name: None}), tiny_sd_dir, f"{name} is missing")


def test_weights_are_safetensors_of_this_erasure(bundled, entries, tiny_sd_dir):
    wrong = "no safetensors file of an erasure|holds no erasure"
    numbers = {"unet.x": np.zeros(3, np.float32)}
    infos = {"kind": "evil"}, {"config": "[]"}, {"config": "{"}
    torn = b"\x80\x04pickle", b"", entries["delta.safetensors"][:-5], b"\xff" * 100
    for data in (*torn, save({}), *(save(numbers, info) for info in infos)):
        refused(bundled(**{"delta.safetensors": data}), tiny_sd_dir, wrong)
    other = save(numbers, {"base_digest": "0" * 64})
    refused(bundled(**{"delta.safetensors": other}), tiny_sd_dir, "different versions of the base")


@pytest.mark.parametrize(
    "facts",
    [{"base": "/etc"}, {"base": "../somewhere"}, {"base": 3}, {"name": "x" * 101}, {"name": "a\x1b[2J"}, {"spec": {}},
     {"spec": []}, {"also": None}, {"config": {"steps": "many"}}, {"config": {"lr": [1]}}, {"config": {"evil": 1}},
     {"created": 1e300}, {"created": "now"}, {"base_digest": "../.."}],
)  # fmt: skip
def test_settings_are_read_as_strictly_as_ones_own(bundled, entries, facts):
    refused(
        bundled(**{"job.json": changed(entries["job.json"], **facts)}),
        "",
        "bundle|cannot be read|no method|JOB|job|steps is|lr is",
    )


def test_an_event_names_no_file_but_the_pictures(bundled, tiny_sd_dir, tmp_path):
    (tmp_path / "secret.png").write_bytes(png())
    for event in (PreviewEvent(1, ("a",), (0,), ("../../../secret.png",)), PreviewEvent(1, (), (), ("images/x.png",))):
        path = bundled(**{"events.jsonl": to_line(event), "images/x.png": png()})
        refused(path, tiny_sd_dir, "is no picture of it|without a prompt")


def test_a_run_that_comes_in_is_never_worked_on(bundled, tiny_sd_dir):
    done = unpack(bundled(**{"events.jsonl": to_line(StartEvent(1)) + b"\nnot an event\n"}), str(tiny_sd_dir))
    assert (done.run.state, done.run.evaluation) == ("done", None)
    assert [type(event) for event in done.run.events()] == [DoneEvent]


def png(side: int = 4) -> bytes:
    file = io.BytesIO()
    Image.new("L", (side, side)).save(file, "PNG")
    return file.getvalue()


def test_pictures_and_texts_are_what_their_names_say(bundled, entries, tiny_sd_dir):
    refused(bundled(**{"images/x.png": b"<svg onload=alert(1)>"}), tiny_sd_dir, "is no picture")
    refused(bundled(**{"images/x.png": png(5000)}), tiny_sd_dir, "5000×5000 pixels")
    refused(bundled(**{"report.json": b"[" * 100_000}), tiny_sd_dir, "is no JSON|cannot be read")
    terms = json.loads(entries["report.json"])["terms"]
    terms[0]["seeds"] = [*terms[0]["seeds"], 7]
    refused(bundled(**{"report.json": changed(entries["report.json"], terms=terms)}), tiny_sd_dir, "cannot be read")
    refused(bundled(**{"person.json": b'{"a": 1}'}), tiny_sd_dir, "person.json cannot be read")
    refused(bundled(**{"bundle.json": b'{"format": 99, "versions": {}}'}), tiny_sd_dir, "of the form 99")


def test_the_commands(crce, whole, tiny_sd_dir, tmp_path):
    code, out, _ = crce("bundle", whole.dir, "--out", tmp_path / "dog.zip", "--json")
    assert (code, json.loads(out)["size"]) == (0, (tmp_path / "dog.zip").stat().st_size)
    code, out, _ = crce("import", tmp_path / "dog.zip", "--base", tiny_sd_dir, "--json")
    told = json.loads(out)
    assert (code, told["state"], told["warning"]) == (0, "done", "") and runs.find(told["id"]).report
    (tmp_path / "no.zip").write_text("no")
    code, _, err = crce("import", tmp_path / "no.zip")
    assert code == 1 and "cannot be read as a bundle" in err


def test_in_the_app_a_run_goes_out_and_comes_in_at_the_same_place(bundled, tiny_sd_dir):
    there = unpack(bundled(), str(tiny_sd_dir)).run
    (path,) = compare_bundle.pack_runs([there.id])["value"]
    opened, told = compare_bundle.take_in(path)
    assert opened != there.id and runs.find(opened).report and "dog (animal) is here, packed with crce" in told
    assert not Path(path).exists()
    assert opened in [name for _, name in compare.list_choices()]
    with pytest.raises(gr.Error, match="Choose a run"):
        compare_bundle.pack_runs([])
