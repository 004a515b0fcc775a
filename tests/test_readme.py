"""What the README says is run and compared: its lines of Python, its commands, its table."""

import os
import re
import subprocess
import sys

import pytest

from benchmarks import bank, figures
from crce.experiments import studies, sweep, tables
from crce.files import ROOT, read_json

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_lines_of_python_run_as_they_stand(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    # Alone on the machine and with real layers, two threads pay.
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True)
    assert result.returncode == 0, result.stderr.decode()
    assert (tmp_path / "after.png").stat().st_size > 0


def test_every_command_that_it_names_is_there():
    named = set(re.findall(r"python -m crce ([a-z]+)", TEXT))
    shown = subprocess.run([sys.executable, "-m", "crce", "--help"], cwd=ROOT, capture_output=True, text=True).stdout
    assert named and all(re.search(rf"\b{name}\b", shown) for name in named)


def test_the_table_is_what_the_reports_say():
    costs = read_json(tables.COSTS) if tables.COSTS.exists() else None
    assert tables.insert_table(TEXT, tables.render(tables.load_reports(), costs)) == TEXT


def test_the_default_models_presets_are_what_the_rule_picks():
    """From the reports that docs/sweeps.md is written from."""
    picked = sweep.list_presets(sweep.choose_all(sweep.load_settings()))
    known = read_json(ROOT / "assets" / "emoji-sd" / "crce.json")
    assert (known["erase_steps"], known["lr"]) == (picked["erase_steps"], picked["lr"])
    assert (known["dampings"], known["methods"]) == (picked["dampings"], picked["methods"])


def test_the_default_model_stays_small():
    """The card says how large it is; a host of files may refuse one above 14 MB."""
    sizes = [path.stat().st_size for path in (ROOT / "assets" / "emoji-sd").rglob("*") if path.is_file()]
    assert max(sizes) < 14e6 and sum(sizes) < 44e6


PAGES = {
    **studies.render_pages(),
    **({bank.WRITTEN: bank.render_page()} if bank.FOLDER.is_dir() else {}),
    figures.WRITTEN: figures.render_page(),
}


@pytest.mark.parametrize(("path", "text"), PAGES.items(), ids=lambda part: getattr(part, "name", ""))
def test_a_page_is_what_its_reports_say(path, text):
    assert path.read_text(encoding="utf-8") == text


def test_every_file_that_it_points_to_is_there():
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", TEXT):
        assert (ROOT / target).exists(), target
