"""The Hub's wire as it is: large files through LFS, reads in ranges, bodies that break off, cards that it refuses.

Xet is the Hub's newer way for large files (see xet_storage). With its package, which the Hub's library brings, large
files go no other way; HF_HUB_DISABLE_XET asks for LFS.
"""

import hashlib
import os
import subprocess
import sys

import numpy
import pytest

from crce.concepts import dataset
from crce.concepts.library import find_concept
from crce.errors import CrceError
from crce.publishing.hub import Publication

REPO = "tester/CorefConcept"

PUBLISH = """
import sys
from crce.errors import CrceError
from crce.concepts.library import library
from crce.publishing.hub import Hub
found = library()
try:
    print(Hub.connect().publish_dataset([found["dog"], found["cat"]], "tester/CorefConcept").commit)
except CrceError as error:
    sys.exit(f"error: {error}")
"""
PUBLISH_NUMBERS = """
import numpy
from crce.publishing.hub import Hub, Publication
data = numpy.linspace(0, 1, 1_000_000, dtype="float32").tobytes()
files = {"README.md": b"# No dog", "a.safetensors": data}
Hub.connect().publish(Publication("tester/no-dog", "model", files, "no dog"))
"""
# It ends at once: threads that a stream leaves behind can abort the interpreter on its way out.
STREAM = """
import os
import datasets
rows = datasets.load_dataset("tester/CorefConcept", "object", split="train", streaming=True)
print(next(iter(rows))["slug"], sum(1 for _ in rows), flush=True)
os._exit(0)
"""


@pytest.fixture
def specs():
    return [find_concept(name) for name in ("dog", "cat", "mermaid")]


def repo(fake):
    return fake.repos["dataset", REPO]


def script(code, place, tmp_path, **settings) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    given = {"HF_ENDPOINT": place, "HF_TOKEN": "hf_good", "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
    env = {**kept, **given, **settings}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_tables_go_through_lfs_and_are_sent_once(fake, url, specs, tmp_path):
    fake.lfs = {}
    first = script(PUBLISH, url, tmp_path)
    there = repo(fake)
    wanted = {name: data for name, data in dataset.files(specs[:2], REPO).items() if name.endswith(".parquet")}
    assert {name: there.files[name] for name in wanted} == wanted
    assert there.large == {name: hashlib.sha256(data).hexdigest() for name, data in wanted.items()}
    sent = fake.calls.count("lfs-storage")
    assert sent == len(wanted) and script(PUBLISH, url, tmp_path) == first
    assert fake.calls.count("lfs-storage") == sent


def test_an_upload_that_fails_publishes_nothing_and_can_be_repeated(fake, url, specs, tmp_path):
    fake.lfs, fake.fail["lfs-storage"] = {}, [403]
    with pytest.raises(AssertionError, match=r"error: This token may not write to tester/CorefConcept \(403\)"):
        script(PUBLISH, url, tmp_path)
    assert len(repo(fake).commits) == 1
    script(PUBLISH, url, tmp_path)
    assert len(repo(fake).commits) == 2


def test_a_hub_that_does_not_take_xet_is_told(fake, url, specs, tmp_path):
    fake.lfs = {}
    with pytest.raises(AssertionError, match="error: .* does not take large files by Xet. Set HF_HUB_DISABLE_XET=1"):
        script(PUBLISH, url, tmp_path, HF_HUB_DISABLE_XET="0")
    assert len(repo(fake).commits) == 1
    script(PUBLISH, url, tmp_path)
    assert len(repo(fake).commits) == 2


def test_tables_go_by_xet_and_are_whole(fake, url, specs, tmp_path):
    storage = fake.take_xet()
    script(PUBLISH, url, tmp_path, HF_HUB_DISABLE_XET="0")
    wanted = {name: data for name, data in dataset.files(specs[:2], REPO).items() if name.endswith(".parquet")}
    there = repo(fake)
    assert {name: there.files[name] for name in wanted} == wanted
    assert set(storage.files.values()) == set(wanted.values()) and "lfs-storage" not in fake.calls
    assert script(STREAM, url, tmp_path) == "cat 41"


def test_weights_go_by_xet_in_many_chunks(fake, url, tmp_path):
    """Of numbers, which are packed in another way than text."""
    storage = fake.take_xet()
    script(PUBLISH_NUMBERS, url, tmp_path, HF_HUB_DISABLE_XET="0")
    (xorb,) = storage.xorbs.values()
    there = fake.repos["model", "tester/no-dog"].files["a.safetensors"]
    assert len(xorb) > 20 and there == numpy.linspace(0, 1, 1_000_000, dtype="float32").tobytes()


def test_a_storage_that_refuses_publishes_nothing_and_can_be_asked_again(fake, url, tmp_path):
    fake.take_xet()
    fake.fail["xet"] = [403] * 9
    with pytest.raises(AssertionError, match="no usable answer for tester/CorefConcept .*403 Forbidden"):
        script(PUBLISH, url, tmp_path, HF_HUB_DISABLE_XET="0")
    assert len(repo(fake).commits) == 1
    fake.fail["xet"] = [503]  # asked again at once
    script(PUBLISH, url, tmp_path, HF_HUB_DISABLE_XET="0")
    assert len(repo(fake).commits) == 2


def test_a_file_whose_upload_breaks_off_is_sent_again(fake, url, specs, tmp_path):
    fake.lfs, fake.cut["lfs-storage"] = {}, ["reset"]
    script(PUBLISH, url, tmp_path)
    assert not fake.cut["lfs-storage"]
    wanted = [name for name in dataset.files(specs[:2], REPO) if name.endswith(".parquet")]
    assert set(repo(fake).large) == set(wanted)


@pytest.mark.parametrize("how", ["reset", "end"])
def test_a_commit_that_breaks_off_publishes_nothing_and_can_be_repeated(fake, mine, how):
    """Large enough that the client still writes when the Hub goes away."""
    made = Publication("tester/no-dog", "model", {"README.md": b"# No dog", "a.bin": bytes(8_000_000)}, "no dog")
    fake.cut["commit"] = [how]
    with pytest.raises(CrceError, match="The connection to http://.* broke off. Check the network, then try again"):
        mine.publish(made)
    there = fake.repos["model", "tester/no-dog"]
    assert len(there.commits) == 1
    done = mine.publish(made)
    assert there.commits[1:] == [(done.commit, {".gitattributes": b"", **made.files})]


@pytest.mark.parametrize(("route", "how"), [("info", "end"), ("refs", "reset"), ("resolve", "reset")])
def test_an_answer_that_breaks_off_is_told_and_can_be_asked_for_again(fake, mine, specs, route, how):
    mine.publish_dataset(specs[:2], REPO)
    head, fake.cut[route] = repo(fake).head, [how]
    with pytest.raises(CrceError, match="The connection to http://.* broke off"):
        mine.publish_dataset(specs, REPO, tag="v1")
    assert repo(fake).head == head and not fake.cut[route]
    mine.publish_dataset(specs, REPO, tag="v1")
    assert {f"specs/{spec.category}/{spec.slug}.json" for spec in specs} < set(repo(fake).files)


def test_a_file_whose_download_ends_too_early_is_asked_for_again(fake, mine, specs):
    mine.publish_dataset(specs[:2], REPO)
    fake.cut["resolve"] = ["end"]
    seen = mine.difference(specs, REPO)
    assert (seen.new, seen.changed, fake.cut["resolve"]) == (("mermaid",), (), [])


def test_a_dataset_is_streamed_in_ranges(fake, url, mine, specs, tmp_path):
    mine.publish_dataset(specs[:2], REPO)
    slug, rows = script(STREAM, url, tmp_path).split()
    assert slug in ("cat", "dog") and int(rows) == len(dataset.rows(specs[:2], "train"))
    assert repo(fake).ranges > 0


def test_a_card_that_the_hub_refuses_is_told(fake, mine, specs):
    fake.faults = ['"license" must be one of the known ones']
    with pytest.raises(CrceError, match='refuses the card of tester/CorefConcept, and nothing.*"license" must be'):
        mine.publish_dataset(specs, REPO)
    assert fake.repos == {}
    fake.faults = []
    mine.publish_dataset(specs, REPO)
    assert len(repo(fake).commits) == 2
