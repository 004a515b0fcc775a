"""The Hub's wire as it is: large files through LFS, reads in ranges, bodies that break off, cards that it refuses.

Xet, the Hub's newer way for large files, is a protocol of its own that nothing here plays: LFS is what a client falls
back to, and what HF_HUB_DISABLE_XET asks for.
"""

import hashlib
import os
import subprocess
import sys

import pytest

from crce.concepts import dataset
from crce.concepts.library import find_concept
from crce.errors import CrceError

REPO = "tester/CorefConcept"

PUBLISH = """
from crce.concepts.library import library
from crce.publishing.hub import Hub
found = library()
print(Hub.connect().publish_dataset([found["dog"], found["cat"]], "tester/CorefConcept").commit)
"""
STREAM = """
import datasets
rows = datasets.load_dataset("tester/CorefConcept", "object", split="train", streaming=True)
print(next(iter(rows))["slug"], sum(1 for _ in rows))
"""


@pytest.fixture
def specs():
    return [find_concept(name) for name in ("dog", "cat", "mermaid")]


def repo(fake):
    return fake.repos["dataset", REPO]


def script(code, place, tmp_path) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    settings = {"HF_ENDPOINT": place, "HF_TOKEN": "hf_good", "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run([sys.executable, "-c", code], env={**kept, **settings}, capture_output=True, text=True)
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
    with pytest.raises(AssertionError, match="403"):
        script(PUBLISH, url, tmp_path)
    assert len(repo(fake).commits) == 1
    script(PUBLISH, url, tmp_path)
    assert len(repo(fake).commits) == 2


def test_a_dataset_is_streamed_in_ranges(fake, url, mine, specs, tmp_path):
    mine.publish_dataset(specs[:2], REPO)
    slug, rows = script(STREAM, url, tmp_path).split()
    assert slug in ("cat", "dog") and int(rows) == len(dataset.rows(specs[:2], "train"))
    assert repo(fake).ranges > 0


def test_a_card_that_the_hub_refuses_is_told(fake, mine, specs):
    fake.faults = ['"license" must be one of the known ones']
    with pytest.raises(CrceError, match='refuses the card of tester/CorefConcept, and nothing.*"license" must be'):
        mine.publish_dataset(specs, REPO)
    assert len(repo(fake).commits) == 1
    fake.faults = []
    mine.publish_dataset(specs, REPO)
    assert len(repo(fake).commits) == 2
