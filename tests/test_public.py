"""The public face: a dozen names, each there, and none of them loads torch before it is used."""

import subprocess
import sys

import pytest

import crce
from crce.files import ROOT


@pytest.mark.parametrize("name", crce.__all__)
def test_a_name_is_what_its_module_defines(name):
    value = getattr(crce, name)
    if name != "__version__":
        assert value.__name__ == name and value.__module__.startswith("crce.")


def test_what_is_no_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'eraser'"):
        _ = crce.eraser
    assert set(dir(crce)) == set(crce.__all__)


def test_a_name_survives_the_import_of_every_module():
    """A submodule of the same name would take its place. `zerogpu` can be imported on a Space alone."""
    code = (
        "import crce, importlib, pkgutil\n"
        "for module in pkgutil.walk_packages(crce.__path__, 'crce.'):\n"
        "    if not module.name.endswith(('__main__', 'zerogpu')): importlib.import_module(module.name)\n"
        "print([n for n in crce.__all__ if n != '__version__' and not callable(getattr(crce, n))])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).strip() == "[]"


def test_torch_is_loaded_when_a_name_needs_it_and_not_before():
    code = (
        "import crce, sys\n"
        "spec = crce.ConceptSpec('dog', corefs=(crce.Term('puppy'),)), crce.EraseConfig(), crce.find_concept('dog')\n"
        "before = 'torch' in sys.modules\n"
        "crce.erase\n"
        "print(before, 'torch' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split() == ["False", "True"]
