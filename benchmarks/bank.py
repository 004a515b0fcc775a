"""Does the latent cache cost accuracy? Compares CRCE with latents sampled anew for each step, as in ESD's code.

python -m benchmarks.bank dog cat   erases with both kinds of fresh latents and stores reports in docs/results/bank/
python -m benchmarks.bank           writes docs/bank.md from these and the README's reports
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from benchmarks.loop import Reference
from crce.cli.terminal import show_progress
from crce.concepts.library import find_concept
from crce.config import EraseConfig, resolve_config
from crce.cost import machine
from crce.evaluation.accuracies import summarise
from crce.evaluation.evaluate import evaluate_steps
from crce.evaluation.report import report_to_dict
from crce.experiments.studies import render_variants
from crce.files import DOCS, RESULTS, write_atomic
from crce.judges.embedded import EmbeddedJudge
from crce.models.diffusion import Diffusion

FOLDER, WRITTEN = RESULTS / "bank", DOCS / "bank.md"
IMAGES = 10  # as in the README's table
WAYS = {"frozen": "fresh, frozen model", "tuned": "fresh, tuned model"}
PAGE = """\
# Does the latent cache cost accuracy?

CRCE with the preset over {concepts}, training seed 0.
*Bank*: our training loop, which samples a bank (cache) of latents once from the frozen model; these are the reports of
the README's table.
*Fresh*: ESD's public loop, which samples a new latent for each step, either from the frozen model as in ESD's code, or
from the model being trained as in ESD's paper.
Pictures per prompt: 10 (50 for Acc_U), seeds from 0. `python -m benchmarks.bank` writes this page from
`docs/results/bank/`.

{table}
Differences, paired by concept; an interval that contains 0 shows no difference:

{differences}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("concepts", nargs="*", metavar="CONCEPT")
    for name in parser.parse_args().concepts:
        for way in WAYS:
            measure(name, way)
    write_atomic(WRITTEN, render_page())


def measure(name: str, way: str) -> None:
    """Erases and judges, unless the report exists."""
    model, spec = Diffusion.load(dtype="fp32"), find_concept(name)
    config, target = resolve_config(EraseConfig(), model.base), FOLDER / f"{spec.slug}-{way}.json"
    if target.exists():
        return
    reference = Reference(model, spec, config, tuned=way == "tuned")
    reference.train(config.steps)
    judging = evaluate_steps(model, EmbeddedJudge.load(model.base), spec, reference.delta(), IMAGES)
    facts = {"base": model.base, "base_digest": model.digest, "method": WAYS[way], "config": asdict(config),
             "steps": config.steps, "images": IMAGES, "dtype": "fp32", "machine": machine()}  # fmt: skip
    report = summarise(spec, show_progress(f"{name}: judging", judging), **facts)
    write_atomic(target, json.dumps(report_to_dict(report), ensure_ascii=False) + "\n")


def render_page(folder: Path = FOLDER) -> str:
    """docs/bank.md: ESD's loop compared with ours."""
    return render_variants(folder, PAGE, "bank", [(WAYS["tuned"], WAYS["frozen"])])


if __name__ == "__main__":
    main()
