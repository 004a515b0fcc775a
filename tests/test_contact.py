"""All methods on one concept: drawn once each, and what they cost."""

from PIL import Image

from crce.catalogue import METHOD_FACTS
from crce.config import EraseConfig
from crce.experiments.contact_sheet import SIDE, contact_sheet
from crce.files import read_json
from crce.picture_grid import GAP, HEAD
from crce.runs import Job


def test_every_method_has_a_row_and_a_cost(tiny_sd_dir, dog, tmp_path):
    job = Job(str(tiny_sd_dir), dog, EraseConfig(corefs=1, retains=1, preview_every=0))
    started = {event.method for event in contact_sheet(job, tmp_path) if event.event.kind == "start"}
    assert started == METHOD_FACTS.keys()
    sheet = Image.open(tmp_path / "methods.png")
    assert sheet.height == HEAD + (1 + len(METHOD_FACTS)) * (SIDE + GAP)
    assert read_json(tmp_path / "seconds.json")["methods"].keys() == METHOD_FACTS.keys()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["methods.png", "seconds.json"]


def test_a_stopped_sheet_goes_on_where_it_was(tiny_sd_dir, dog, tmp_path):
    job = Job(str(tiny_sd_dir), dog, EraseConfig(corefs=1, retains=1, preview_every=0))
    first, second = list(METHOD_FACTS)[:2]
    for event in (events := contact_sheet(job, tmp_path)):
        if event.method == second:
            events.close()
    # The first would come before the second, so what comes after that tells nothing more.
    again = next(event.method for event in contact_sheet(job, tmp_path))
    assert again == second != first
