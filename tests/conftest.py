"""The real but tiny world of the tests: its own home, a tiny model, a concept."""

import os
import shutil
import sys

import pytest
from filelock import FileLock

from crce.concepts.spec import ConceptSpec, Term
from crce.worker.client import lock_file

# The tiny models gain nothing from a second thread, and where other programs use the cores, threads that wait for each
# other take twenty times as long. Set it to have more.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Every test has its own CRCE_HOME, inherited by the processes that it starts."""
    monkeypatch.setenv("CRCE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def no_worker(home):
    """As if a worker were there already, so that none is started."""
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(lock_file("auto")):
        yield


@pytest.fixture(scope="session")
def tiny_sd_dir(tmp_path_factory):
    """A tiny Stable Diffusion in diffusers layout."""
    from tests.tiny import save_tiny_sd

    folder = tmp_path_factory.mktemp("tiny-sd")
    save_tiny_sd(folder)
    return folder


@pytest.fixture(scope="session")
def blind(tiny_sd_dir, tmp_path_factory):
    """The same without a judge, as Stable Diffusion is."""
    folder = shutil.copytree(tiny_sd_dir, tmp_path_factory.mktemp("blind") / "tiny-sd")
    shutil.rmtree(folder / "judge")
    return folder


@pytest.fixture(scope="session")
def tiny_sd(tiny_sd_dir):
    """The tiny model, loaded. Nothing changes its weights for good, so one serves all tests."""
    from crce.models.diffusion import Diffusion

    return Diffusion.load(str(tiny_sd_dir), device="cpu")


@pytest.fixture(scope="session")
def sd_shaped_dir(tmp_path_factory):
    """A tiny base in the very files of Stable Diffusion v1.4, with CLIP's own words."""
    import torch

    from benchmarks.sd_shaped import TINY, save_sd_shaped, short_merges

    folder = tmp_path_factory.mktemp("bases") / "sd-shaped"
    save_sd_shaped(folder, TINY, short_merges(), (torch.float32, torch.float16))
    return folder


@pytest.fixture(scope="session")
def sd_shaped(sd_shaped_dir):
    """That base, loaded."""
    from crce.models.diffusion import Diffusion

    return Diffusion.load(str(sd_shaped_dir), device="cpu")


@pytest.fixture(scope="session")
def vlm_dir(tmp_path_factory):
    """A tiny Qwen2-VL that was taught to say yes to red pictures and no to blue ones."""
    from tests.tiny_judges import save_tiny_vlm

    folder = tmp_path_factory.mktemp("judges") / "tiny-vlm"
    save_tiny_vlm(folder)
    return folder


@pytest.fixture(scope="session")
def dog():
    """A spec with 3 training and 1 test terms in each list."""
    return ConceptSpec(
        "dog",
        sense="animal",
        corefs=(Term("puppy", "very high"), Term("hound", "normal"), Term("pooch"), Term("guide dog", split="test")),
        retains=(Term("cat", "very high"), Term("wolf", "low"), Term("fox"), Term("pig", split="test")),
    )


@pytest.fixture
def broker(home):
    """A worker's: the test answers in its place, or does not, and holds its lock."""
    from filelock import FileLock

    from crce.worker.answers import StatusAnswer
    from crce.worker.broker import RequestBroker
    from crce.worker.client import lock_file

    home.mkdir()
    broker = RequestBroker(lambda: StatusAnswer("cpu"))
    with FileLock(lock_file("auto")):
        broker.open()
        yield broker
        broker.close()


@pytest.fixture
def fake():
    """A Hub in this process, not yet served."""
    from tests.fake_hub import FakeHub

    return FakeHub()


@pytest.fixture
def url(fake):
    """Where that Hub is served."""
    from tests.servers import serving

    with serving(fake.app) as url:
        yield url


@pytest.fixture
def mine(url):
    """That Hub as the owner of `tester` reaches it."""
    from huggingface_hub import HfApi

    from crce.publishing.hub import Hub

    return Hub(HfApi(endpoint=url, token="hf_good"))


@pytest.fixture
def crce(monkeypatch, capsys):
    """Runs the program's entry: the exit code, stdout and stderr."""
    from crce.cli.main import main

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["crce", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return end.value.code, out, err

    return run


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not _has_gpu():
        pytest.skip("needs a GPU")


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A skipped test is a test that did not run: only the lack of a GPU excuses it."""
    report = yield
    if report.skipped and not item.get_closest_marker("gpu"):
        report.outcome, report.longrepr = "failed", f"skipped: {report.longrepr}"
    return report
