"""Does the latent cache cost accuracy? Compares CRCE with latents sampled anew for each step, as in ESD's code.

python -m benchmarks.bank dog cat   erases with both kinds of fresh latents and stores reports in docs/results/bank/
python -m benchmarks.bank           writes docs/bank.md from these and the README's reports
"""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.loop import Reference
from crce.cli.terminal import show_progress
from crce.concepts.library import find_concept
from crce.concepts.spec import ConceptSpec
from crce.config import EraseConfig, ResolvedConfig, resolve_config
from crce.cost import machine
from crce.evaluation.accuracies import summarise
from crce.evaluation.evaluate import evaluate_steps
from crce.evaluation.metrics import HEADS
from crce.evaluation.report import read_report, report_to_dict
from crce.experiments.studies import pool_counts, render_variants
from crce.experiments.tables import load_reports
from crce.files import DOCS, RESULTS, write_atomic
from crce.judges.embedded import EmbeddedJudge
from crce.methods.erased_weights import ErasedWeights
from crce.models.diffusion import Diffusion

FOLDER, WRITTEN = RESULTS / "bank", DOCS / "bank.md"
IMAGES = 10  # as in the README's table
WAYS = {"frozen": "fresh, frozen model", "tuned": "fresh, tuned model"}
PAGE = """\
# Does the latent cache cost accuracy?

CRCE with the preset over {{concepts}}.
*Bank*: our training loop, which samples a bank (cache) of latents once from the frozen model; these are the reports of
the README's table.
*Fresh*: ESD's public loop, which samples a new latent for each step, either from the frozen model as in ESD's code, or
from the model being trained as in ESD's paper.
Pictures per prompt: 10 (50 for Acc_U), seeds from 0. `python -m benchmarks.bank` writes this page from
`docs/results/bank/`.

{{table}}
Differences, paired by concept; an interval that contains 0 shows no difference:

{{differences}}
ESD's loop left the target in 2 % fewer pictures. This was luck: it draws the timestep of each step at random, and seed
0 gives the same timesteps for every concept. The table below counts pictures over {few}, where the bank leaves
some pictures of the target. It varies the number of initial noises in the bank: with the preset's 300 steps there are
trajectories from 6 noises, and 300 noises give one per step, so that the latents are distributed like fresh ones. It
also shows ESD's loop with another seed, on two of the three concepts:

| latents | {heads} |
|---|---|---|---|---|---|---|
{rows}

With seed 1, ESD's loop leaves as many pictures as the bank, and more noises show no trend. On "automobile", our loop
with the latents of ESD's seed 0 leaves 0 of 50 pictures; with the same latents in three other orders it leaves 0, 2 and
1; with the bank and seeds 0 to 3 it leaves 2, 3, 3 and 2. Seeds therefore matter more than the way of sampling, and we
did not enlarge the bank. The intervals above cover variation between concepts, not between seeds.
"""
LATENTS = ("6 noises (bank)", "12 noises", "12 noises, 25 steps", "24 noises", "300 noises", "ESD's loop, seed 1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("concepts", nargs="*", metavar="CONCEPT")
    for name in parser.parse_args().concepts:
        for way in WAYS:
            measure(name, way)
    write_atomic(WRITTEN, render_page())


def measure(name: str, way: str) -> None:
    """Erases and judges, unless the report exists."""
    model, spec = Diffusion.load(dtype="bf16"), find_concept(name)
    config = resolve_config(EraseConfig(), model.base)
    target = FOLDER / "loop" / f"{spec.slug}-{way}.json"
    if target.exists():
        return
    answers = show_progress(
        f"{name}: judging",
        evaluate_steps(model, EmbeddedJudge.load(model.base), spec, erase_fresh(model, spec, config, way), IMAGES),
    )
    facts = {"method": WAYS[way], "config": asdict(config), "images": IMAGES, "dtype": "bf16", "machine": machine()}
    write_atomic(target, json.dumps(report_to_dict(summarise(spec, answers, **facts)), ensure_ascii=False) + "\n")


def erase_fresh(model: Diffusion, spec: ConceptSpec, config: ResolvedConfig, way: str) -> ErasedWeights:
    reference = Reference(model, spec, config, tuned=way == "tuned")
    reference.train(config.steps)
    return reference.delta()


def render_page(folder: Path = FOLDER) -> str:
    """docs/bank.md: ESD's loop compared with ours, and banks with more noises."""
    more = [read_report(path) for path in sorted((folder / "noises").glob("*.json"))]
    few = sorted({r.concept for r in more})
    ours = [replace(r, method=LATENTS[0]) for r in load_reports() if r.method == "crce" and r.concept in few]
    loop = [read_report(path) for path in sorted((folder / "loop").glob("*-frozen.json"))]
    alike = {name: [r for r in (*ours, *more) if r.method == name] for name in LATENTS}
    alike["ESD's loop, seed 0"] = [r for r in loop if r.concept in few]
    rows = "\n".join(f"| {name} | {pool_counts(of)} |" for name, of in alike.items())
    whole = PAGE.format(few=", ".join(few), heads=" | ".join(HEADS.values()), rows=rows)
    return render_variants(folder / "loop", whole, "bank", [(WAYS["tuned"], WAYS["frozen"])])


if __name__ == "__main__":
    main()
