"""Pictures of erased models for a person to judge, beside what the judge says of them.

`python -m assets.build erased` draws 200 pictures, many of them garbled, onto sheets in the build folder. Whoever
answers sees a number, the picture and the question, and writes yes, no or unclear into `erased.tsv`. Run again, it puts
the answers and the judge's verdicts into docs/results/judge/erased.json, which `crce table` makes a page of.
"""

import random
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from PIL import Image, ImageDraw

from crce import erase, find_concept
from crce.config import EraseConfig
from crce.errors import CrceError
from crce.evaluation.evaluate import list_questions
from crce.evaluation.questions import Question
from crce.experiments.by_hand import RESULT, Judged
from crce.files import write_json
from crce.judges.judge import Verdict
from crce.judges.load import load_judge
from crce.models.diffusion import Diffusion

from .common import MODEL, build_dir, log

ANSWERS = Path(__file__).with_suffix(".tsv")
EACH = 20  # pictures of each erasure
SHARES = {"target": 6, "coref": 7, "retain": 7}
COLUMNS, ROWS, SIDE, CAPTION = 8, 5, 128, 30  # of a sheet; a picture and the line below it in pixels


@dataclass(frozen=True)
class Erasure:
    """What is erased and how; half of these erase too little or far too much, since there a judge has to guess."""

    concept: str
    method: str
    steps: int
    lr: float


ERASURES = [
    Erasure("dog", "esd-x-strict", 80, 1e-4), Erasure("horse", "esd-x-strict", 300, 3e-4),
    Erasure("bird", "crce", 100, 2e-4), Erasure("airplane", "esd-x-strict", 150, 2e-4),
    Erasure("truck", "crce", 60, 1e-4), Erasure("frog", "esd-x-strict", 150, 3e-4),
    Erasure("cat", "crce", 150, 3e-4), Erasure("ship", "esd-x-strict", 100, 1e-4),
    Erasure("apple (fruit)", "esd-x-strict", 200, 2e-4), Erasure("mouse (animal)", "crce", 80, 2e-4),
]  # fmt: skip


def make() -> None:
    """Draws what is not drawn yet, and writes the result as far as it is answered."""
    model, rng = Diffusion.load(str(MODEL)), random.Random(0)
    answers = _answers(model.digest)
    judge = load_judge(model.base, "auto", str(model.device))
    pictures: list[Image.Image] = []
    rows: list[Judged] = []
    for erasure in ERASURES:
        spec = find_concept(erasure.concept)
        asked = _choose(list_questions(spec, 1, judge), rng)
        config = EraseConfig(erasure.method, erasure.steps, erasure.lr, preview_every=0)
        with erase(model, spec, config).applied(model):
            drawn = model.generate_batch([q.text for q in asked], [q.seeds[0] for q in asked])
        rows += [_row(erasure, q, judge.classify([image], q.asked)[0]) for q, image in zip(asked, drawn, strict=True)]
        pictures += drawn
        log("erased", **asdict(erasure), pictures=len(pictures))
    _draw_sheets(pictures, rows)
    write_json(RESULT, [asdict(replace(row, answer=answers.get(str(n), ""))) for n, row in enumerate(rows, 1)])


def _answers(digest: str) -> dict[str, str]:
    """The answers by number. Raises CrceError for those to the pictures of another model: the first line names it."""
    answers = dict(line.split("\t") for line in ANSWERS.read_text().splitlines()) if ANSWERS.exists() else {}
    if answers.get("model", digest) != digest:
        raise CrceError(
            f"{ANSWERS.name} answers pictures of the model {answers['model'][:12]}, and this one is {digest[:12]}. "
            "Move it away to judge the pictures of this one, and begin the new file with its own line 'model'."
        )
    return answers


def _choose(questions: list[Question], rng: random.Random) -> list[Question]:
    """One seed each; of the target several, of the lists a random choice."""
    chosen = []
    for kind, n in SHARES.items():
        of = [q for q in questions if q.kind == kind]
        picked = of * n if kind == "target" else rng.sample(of, min(n, len(of)))
        chosen += [replace(q, seeds=(rng.randrange(100, 1000),)) for q in picked]
    rng.shuffle(chosen)
    return chosen


def _row(erasure: Erasure, question: Question, verdict: Verdict) -> Judged:
    return Judged(
        erasure.concept, erasure.method, erasure.steps, erasure.lr, question.kind, question.text, question.asked,
        question.seeds[0], verdict.yes, verdict.strict, round(verdict.p, 4), verdict.guess,
    )  # fmt: skip


def _draw_sheets(pictures: list[Image.Image], rows: list[Judged]) -> None:
    """Sheets of 40 pictures with their numbers and questions, and without the judge's verdicts."""
    for first in range(0, len(rows), COLUMNS * ROWS):
        sheet = Image.new("RGB", (COLUMNS * SIDE, ROWS * (SIDE + CAPTION)), "white")
        pen = ImageDraw.Draw(sheet)
        for place, number in enumerate(range(first, min(first + COLUMNS * ROWS, len(rows)))):
            x, y = place % COLUMNS * SIDE, place // COLUMNS * (SIDE + CAPTION)
            sheet.paste(pictures[number].resize((SIDE, SIDE), Image.Resampling.BICUBIC), (x, y + CAPTION))
            pen.text((x + 4, y + 2), f"{number + 1}\n{rows[number].asked}?", "black")
        sheet.save(build_dir() / f"erased-{first // (COLUMNS * ROWS) + 1}.png")
