"""Imports go one way: app → crce without torch ← crce with torch. So the page is there in seconds."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from crce.files import ROOT

HEAVY = {"torch", "diffusers", "transformers"}


def imported(path: Path) -> set[str]:
    """The top-level packages that a file names anywhere in it."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return {
        n.split(".")[0] for n in [*plain, *(node.module or "" for node in nodes if isinstance(node, ast.ImportFrom))]
    }


@pytest.mark.parametrize("path", sorted((ROOT / "app").rglob("*.py")) + [ROOT / "app.py"], ids=lambda p: p.name)
def test_the_app_names_no_model_library(path):
    assert not imported(path) & HEAVY


@pytest.mark.parametrize("path", sorted((ROOT / "crce").rglob("*.py")), ids=lambda p: p.name)
def test_the_library_names_no_ui(path):
    assert not imported(path) & {"gradio", "app"}


@pytest.mark.parametrize(
    "module",
    ["app.main", "crce.cli", "crce.jobs", "crce.runs", "crce.glances", "crce.dataset", "crce.hub", "crce.propose"],
)
def test_importing_it_loads_no_torch(module):
    code = f"import sys, {module}; print(sorted({HEAVY!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout.strip() == "[]", result.stderr


def test_torch_modules_need_nothing_that_a_bare_gpu_machine_lacks():
    """Torch, diffusers, transformers, safetensors, numpy, PIL and the library's own plain facts.

    `files` asks platformdirs only where CRCE_HOME is not set.
    """
    allowed = HEAVY | {"safetensors", "numpy", "PIL", "crce", "platformdirs"} | set(sys.stdlib_module_names)
    plain = ["errors", "concepts", "config", "bases", "files", "answers"]
    heavy = [
        "diffusion",
        "adapters",
        "delta",
        "erase",
        "judge",
        "evaluate",
        "methods/__init__",
        "methods/pulls",
        "methods/esd",
        "methods/crce",
    ]
    for name in plain + heavy:
        assert not imported(ROOT / "crce" / f"{name}.py") - allowed, name


def at_the_top(path: Path) -> set[str]:
    """The modules that importing the file imports: not those named in functions, or for types alone."""
    statements = ast.parse(path.read_text(encoding="utf-8")).body
    plain = {alias.name for s in statements if isinstance(s, ast.Import) for alias in s.names}
    froms = [s for s in statements if isinstance(s, ast.ImportFrom)]
    # `from crce import runs` imports a module, `from crce.runs import Run` does not.
    return plain | {s.module for s in froms} | {f"{s.module}.{alias.name}" for s in froms for alias in s.names}


def ours(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


def test_the_gpu_benchmark_reaches_nothing_that_a_bare_gpu_machine_lacks():
    seen, waiting = set(), ["benchmarks.gpu"]
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += at_the_top(path) if (path := ours(module)) else []
    allowed = HEAVY | {"safetensors", "numpy", "PIL", "crce", "benchmarks"} | set(sys.stdlib_module_names)
    assert "crce.methods.speed" in seen
    assert not {module.split(".")[0] for module in seen} - allowed
