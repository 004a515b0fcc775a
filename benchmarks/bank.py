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
from crce.evaluation.report import read_report, report_to_dict
from crce.experiments.studies import render_variants
from crce.experiments.tables import REPORTS
from crce.files import DOCS, RESULTS, write_atomic
from crce.judges.embedded import EmbeddedJudge
from crce.models.diffusion import Diffusion

FOLDER, WRITTEN = RESULTS / "bank", DOCS / "bank.md"
WAYS = {"frozen": "fresh, frozen model", "tuned": "fresh, tuned model"}
PAGE = """\
# Does the latent cache cost accuracy?

CRCE with the preset over {concepts}, training seed 0.
*Bank*: our training loop, which samples a bank (cache) of latents once from the frozen model; these are the reports of
the README's table.
*Fresh*: ESD's public loop, which samples a new latent for each step, either from the frozen model as in ESD's code, or
from the model being trained as in ESD's paper.
{pictures}
`python -m benchmarks.bank` writes this page from `docs/results/bank/`.

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
    """Erases and judges as the README's report with the bank did, unless the report exists."""
    spec = find_concept(name)
    target = FOLDER / f"{spec.slug}-{way}.json"
    if target.exists():
        return
    like = read_report(REPORTS / f"{spec.slug}-crce-seed-0.json")
    model = Diffusion.load(dtype=like.dtype)
    config = resolve_config(EraseConfig(), model.base)
    reference = Reference(model, spec, config, tuned=way == "tuned")
    reference.train(config.steps)
    judging = evaluate_steps(model, EmbeddedJudge.load(model.base), spec, reference.delta(), like.images)
    facts = {"base": model.base, "base_digest": model.digest, "method": WAYS[way], "config": asdict(config),
             "steps": config.steps, "images": like.images, "dtype": like.dtype, "machine": machine()}  # fmt: skip
    report = summarise(spec, show_progress(f"{name}: judging", judging), **facts)
    write_atomic(target, json.dumps(report_to_dict(report), ensure_ascii=False) + "\n")


def render_page(folder: Path = FOLDER) -> str:
    """docs/bank.md: ESD's loop compared with ours."""
    return render_variants(folder, PAGE, "bank", [(WAYS["tuned"], WAYS["frozen"])])


if __name__ == "__main__":
    main()
