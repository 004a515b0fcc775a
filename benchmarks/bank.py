"""Whether the bank costs accuracy: CRCE with latents of ESD's public loop, fresh in each step, against ours.

python -m benchmarks.bank dog cat   erases with both kinds of fresh latents, keeps the reports in docs/bank/
python -m benchmarks.bank           writes docs/bank.md from them and from the README's reports
"""

import argparse
import json
from dataclasses import asdict

from benchmarks.loop import Reference
from crce.config import EraseConfig, with_defaults
from crce.cost import machine
from crce.delta import Delta
from crce.diffusion import Diffusion
from crce.evaluate import evaluate
from crce.files import ROOT, write_atomic
from crce.judge import EmbeddedJudge
from crce.library import find_spec
from crce.report import summarise
from crce.studies import varied
from crce.terminal import result

FOLDER = ROOT / "docs" / "bank"
IMAGES = 10  # as in the README's table
WAYS = {"frozen": "fresh, frozen model", "tuned": "fresh, tuned model"}
PAGE = """\
# Does the bank cost accuracy?

CRCE with the preset over {concepts}. *Bank*: our loop, whose latents are sampled at once by the frozen model (the
reports of the README's table). *Fresh*: ESD's public loop, which samples a latent for each step anew, from the frozen
model as ESD's code does, or from the one being tuned as in ESD's paper.
Pictures per prompt: 10 (50 for Acc_U), seeds from 0. `python -m benchmarks.bank` writes this page from `docs/bank/`.

{table}
Differences, paired by concept; one whose interval holds 0 is not shown to be any:

{differences}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("concepts", nargs="*", metavar="CONCEPT")
    for name in parser.parse_args().concepts:
        for way in WAYS:
            measure(name, way)
    write_atomic(FOLDER.with_suffix(".md"), varied(FOLDER, PAGE, "bank"))


def measure(name: str, way: str) -> None:
    """Erases and judges, unless that was done."""
    model, spec = Diffusion.load(dtype="bf16"), find_spec(name)
    config = with_defaults(EraseConfig(), model.base)
    target = FOLDER / f"{spec.slug}-{way}.json"
    if target.exists():
        return
    answers = result(
        f"{name}: judging",
        evaluate(model, EmbeddedJudge.load(model.base), spec, erased(model, spec, config, way), IMAGES),
    )
    facts = {"method": WAYS[way], "config": asdict(config), "images": IMAGES, "dtype": "bf16", "machine": machine()}
    write_atomic(target, json.dumps(summarise(spec, answers, facts), ensure_ascii=False) + "\n")


def erased(model: Diffusion, spec, config: EraseConfig, way: str) -> Delta:
    reference = Reference(model, spec, config, tuned=way == "tuned")
    for _ in range(config.steps):
        reference.step()
    return reference.delta()


if __name__ == "__main__":
    main()
