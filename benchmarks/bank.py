"""Whether the bank costs accuracy: CRCE with latents of ESD's public loop, fresh in each step, against ours.

python -m benchmarks.bank dog cat   erases with both kinds of fresh latents, keeps the reports in docs/results/bank/
python -m benchmarks.bank           writes docs/bank.md from them and from the README's reports
"""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.loop import Reference
from crce.cli.terminal import result
from crce.concepts.library import find_concept
from crce.config import EraseConfig, resolve_config
from crce.cost import machine
from crce.evaluation.evaluate import evaluate_steps
from crce.evaluation.metrics import HEADS, summarise
from crce.evaluation.report import read_report
from crce.experiments.studies import pooled, varied
from crce.experiments.tables import reports
from crce.files import DOCS, RESULTS, write_atomic
from crce.judges.embedded import EmbeddedJudge
from crce.methods.erased_weights import ErasedWeights
from crce.models.diffusion import Diffusion

FOLDER, WRITTEN = RESULTS / "bank", DOCS / "bank.md"
IMAGES = 10  # as in the README's table
WAYS = {"frozen": "fresh, frozen model", "tuned": "fresh, tuned model"}
PAGE = """\
# Does the bank cost accuracy?

CRCE with the preset over {{concepts}}.
*Bank*: our loop, whose latents are sampled at once by the frozen model (the reports of the README's table).
*Fresh*: ESD's public loop, which samples a latent for each step anew, from the frozen model as ESD's code does, or from
the one being tuned as in ESD's paper.
Pictures per prompt: 10 (50 for Acc_U), seeds from 0. `python -m benchmarks.bank` writes this page from
`docs/results/bank/`.

{{table}}
Differences, paired by concept; one whose interval holds 0 is not shown to be any:

{{differences}}
So ESD's loop left the target in 2 % fewer pictures. That was the luck of one draw: it throws dice for the times of the
schedule that its steps fall on, with seed 0 the same for every concept. Counts over {few}, where the bank
leaves anything of the target, with banks of more noises (with the preset's 300 steps it has trajectories of 6; the last
has a noise for each step, so that its latents are distributed as fresh ones are), and with ESD's loop and another seed,
on two of the three:

| latents | {heads} |
|---|---|---|---|---|---|---|
{rows}

With seed 1 ESD's loop leaves what the bank leaves, and more noises show no trend. On "automobile" our loop with the
latents of ESD's seed 0 leaves 0 of 50 pictures, with the same latents in three other orders 0, 2 and 1, with the bank
and seeds 0 to 3 it leaves 2, 3, 3 and 2. So runs of different seeds differ by more than the two ways to sample do, and
the bank is not enlarged. The intervals above hold between concepts, not between seeds.
"""
LATENTS = ("6 noises (bank)", "12 noises", "12 noises, 25 steps", "24 noises", "300 noises", "ESD's loop, seed 1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("concepts", nargs="*", metavar="CONCEPT")
    for name in parser.parse_args().concepts:
        for way in WAYS:
            measure(name, way)
    write_atomic(WRITTEN, page())


def measure(name: str, way: str) -> None:
    """Erases and judges, unless that was done."""
    model, spec = Diffusion.load(dtype="bf16"), find_concept(name)
    config = resolve_config(EraseConfig(), model.base)
    target = FOLDER / "loop" / f"{spec.slug}-{way}.json"
    if target.exists():
        return
    answers = result(
        f"{name}: judging",
        evaluate_steps(model, EmbeddedJudge.load(model.base), spec, erased(model, spec, config, way), IMAGES),
    )
    facts = {"method": WAYS[way], "config": asdict(config), "images": IMAGES, "dtype": "bf16", "machine": machine()}
    write_atomic(target, json.dumps(asdict(summarise(spec, answers, **facts)), ensure_ascii=False) + "\n")


def erased(model: Diffusion, spec, config: EraseConfig, way: str) -> ErasedWeights:
    reference = Reference(model, spec, config, tuned=way == "tuned")
    for _ in range(config.steps):
        reference.step()
    return reference.weights()


def page(folder: Path = FOLDER) -> str:
    """docs/bank.md: ESD's loop beside ours, and banks of more noises."""
    more = [read_report(path) for path in sorted((folder / "noises").glob("*.json"))]
    few = sorted({r.concept for r in more})
    ours = [replace(r, method=LATENTS[0]) for r in reports() if r.method == "crce" and r.concept in few]
    loop = [read_report(path) for path in sorted((folder / "loop").glob("*-frozen.json"))]
    alike = {name: [r for r in (*ours, *more) if r.method == name] for name in LATENTS}
    alike["ESD's loop, seed 0"] = [r for r in loop if r.concept in few]
    rows = "\n".join(f"| {name} | {pooled(of)} |" for name, of in alike.items())
    whole = PAGE.format(few=", ".join(few), heads=" | ".join(HEADS.values()), rows=rows)
    return varied(folder / "loop", whole, "bank", [(WAYS["tuned"], WAYS["frozen"])])


if __name__ == "__main__":
    main()
