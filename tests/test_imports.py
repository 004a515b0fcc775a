"""Imports go one way, by folder; and who may know torch or gradio. So the page is there in seconds."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from crce.files import ROOT

HEAVY = {"torch", "diffusers", "transformers"}
# Who may name torch; `worker/handlers` is the one file of a folder that else may not.
TORCH = {"models", "judges", "methods", "training", "evaluation", "worker/handlers"}
# Each folder, and the folders below it that it may import. Files directly in crce/ are facts that all may know.
BELOW = {
    "concepts": set(),
    "proposers": {"concepts"},
    "models": {"concepts"},
    "judges": {"models"},
    "methods": {"concepts", "models"},
    "evaluation": {"concepts", "models", "judges", "methods"},
    "training": {"concepts", "models", "judges", "methods", "evaluation"},
    "runs": {"concepts", "models", "judges", "methods", "training", "evaluation"},
    "worker": {"concepts", "models", "judges", "methods", "training", "evaluation", "runs"},
    "publishing": {"concepts", "evaluation/metrics", "evaluation/report", "runs"},
    "experiments": {"concepts", "models", "judges", "methods", "training", "evaluation", "runs"},
    "cli": {"concepts", "proposers", "models", "judges", "methods", "training", "evaluation", "runs", "worker",
            "publishing", "experiments"},
}  # fmt: skip
CRCE = sorted((ROOT / "crce").rglob("*.py"))
APP = sorted((ROOT / "app").rglob("*.py")) + [ROOT / "app.py"]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").as_posix()


def statements(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """All imports of a file, also those in functions and for types alone."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]


def imported(path: Path) -> set[str]:
    """The top-level packages that a file names anywhere in it."""
    found = statements(path)
    plain = {alias.name for node in found if isinstance(node, ast.Import) for alias in node.names}
    return {name.split(".")[0] for name in plain | {n.module or "" for n in found if isinstance(n, ast.ImportFrom)}}


def ours(module: str) -> Path | None:
    """The file of a module of this project."""
    path = ROOT.joinpath(*module.split("."))
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


def reached(path: Path) -> set[str]:
    """The modules of crce that a file imports, as `folder/module`; those directly in crce/ are left out."""
    froms = [node for node in statements(path) if isinstance(node, ast.ImportFrom)]
    # `from crce import runs` imports a module, `from crce.runs import Run` does not.
    named = {f"{n.module}.{a.name}" for n in froms for a in n.names} | {n.module for n in froms}
    files = [p for module in named if module.split(".")[0] == "crce" and (p := ours(module))]
    parts = [p.relative_to(ROOT / "crce").with_suffix("").as_posix().removesuffix("/__init__") for p in files]
    return {part for part in parts if (ROOT / "crce" / part.split("/")[0]).is_dir()}


@pytest.mark.parametrize("path", APP, ids=name_of)
def test_the_app_names_no_model_library(path):
    assert not imported(path) & HEAVY


@pytest.mark.parametrize("path", CRCE, ids=name_of)
def test_the_library_names_no_ui(path):
    assert not imported(path) & {"gradio", "app"}


@pytest.mark.parametrize("path", CRCE, ids=name_of)
def test_torch_is_named_only_where_tensors_are(path):
    inside = name_of(path).removeprefix("crce/")
    assert not imported(path) & HEAVY or {inside, inside.split("/")[0]} & TORCH


@pytest.mark.parametrize("folder", BELOW)
def test_a_folder_imports_only_folders_below_it(folder):
    allowed = BELOW[folder] | {folder}
    for path in sorted((ROOT / "crce" / folder).rglob("*.py")):
        above = {part for part in reached(path) if not {part, part.split("/")[0]} & allowed}
        assert not above, f"{name_of(path)} imports {', '.join(sorted(above))}"


def test_every_folder_has_its_place():
    folders = {path.parent.name for path in (ROOT / "crce").glob("*/__init__.py")}
    assert folders == BELOW.keys()
    for folder, below in BELOW.items():
        assert folder not in {name for lower in below for name in BELOW.get(lower, ())}, f"{folder} is in a circle"


@pytest.mark.parametrize(
    "module",
    ["app.main", "crce", "crce.cli.main", "crce.runs.execute", "crce.worker.client", "crce.worker.service",
     "crce.concepts.dataset", "crce.publishing.hub", "crce.proposers.proposers", "crce.evaluation.accuracies"],
)  # fmt: skip
def test_importing_it_loads_no_torch(module):
    code = f"import sys, {module}; print(sorted({HEAVY!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout.strip() == "[]", result.stderr


def at_the_top(path: Path) -> set[str]:
    """The modules that importing the file imports: not those named in functions, or for types alone."""
    found = ast.parse(path.read_text(encoding="utf-8")).body
    plain = {alias.name for s in found if isinstance(s, ast.Import) for alias in s.names}
    froms = [s for s in found if isinstance(s, ast.ImportFrom)]
    return plain | {s.module or "" for s in froms} | {f"{s.module}.{alias.name}" for s in froms for alias in s.names}


def closure(*modules: str) -> set[str]:
    """These modules and all that importing them imports; `a.b.c` also imports `a` and `a.b`."""
    seen: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += [module.rpartition(".")[0]] if "." in module else []
            waiting += at_the_top(path) if (path := ours(module)) else []
    return seen - {""}


@pytest.mark.parametrize("start", ["benchmarks.gpu", "crce.training.loop", "crce.evaluation.evaluate"])
def test_a_bare_gpu_machine_has_all_that_training_and_judging_need(start):
    """Torch, diffusers, transformers, safetensors, numpy and PIL, and nothing else from a package registry."""
    allowed = HEAVY | {"safetensors", "numpy", "PIL", "crce", "benchmarks"} | set(sys.stdlib_module_names)
    seen = closure(start)
    assert "crce.methods.speed" in seen
    assert not {module.split(".")[0] for module in seen} - allowed
