"""The benchmarks run with the present code: the time of a card that is only lent is not lost to an error in them."""

import json
import os
import subprocess
import sys

from crce.files import ROOT


def test_the_gpu_benchmark_reaches_its_last_figure(tmp_path):
    """With the default model, and few steps of each part."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--try"]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "OUT": str(tmp_path)}, check=True, stdout=subprocess.DEVNULL)
    found = [figure["what"] for figure in json.loads((tmp_path / "gpu.json").read_text())["figures"]]
    assert found[0] == "CRCE, 2 steps, from loading to the result" and found[-1] == "the same, compiled"
    assert "of a step: attention" in found and (tmp_path / "gpu-profile.txt").read_text()
