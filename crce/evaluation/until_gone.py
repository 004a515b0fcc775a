"""Is the concept gone yet? A look at a few pictures while an erasure trains, on seeds that no report uses."""

from collections.abc import Sequence

from crce.concepts.drawn import read_covered
from crce.concepts.spec import ConceptSpec
from crce.evaluation.evaluate import judge_images, name_target
from crce.evaluation.questions import Question
from crce.judges.embedded import EmbeddedJudge
from crce.methods.erased_weights import ErasedWeights
from crce.models.diffusion import Diffusion

EVERY = 15  # training steps of each concept between two looks
PICTURES = 20  # at most, of each concept
NAMES = 3  # training corefs beside the target
FIRST_SEED = 1_000_000
GONE = 1  # pictures that may still show a concept that is gone


def is_gone(model: Diffusion, judge: EmbeddedJudge, specs: Sequence[ConceptSpec], erased: ErasedWeights) -> bool:
    """Whether the judge sees every concept in at most one of its pictures.

    Raises CrceError for a target that the judge does not know.
    """
    return all(count_seen(model, judge, spec, erased) <= GONE for spec in specs)


def count_seen(model: Diffusion, judge: EmbeddedJudge, spec: ConceptSpec, erased: ErasedWeights) -> int:
    """In how many of the pictures the judge sees the target."""
    asked = choose_questions(model, judge, spec)
    return sum(verdict.yes for verdicts in judge_images(model, judge, asked, erased) for verdict in verdicts)


def choose_questions(model: Diffusion, judge: EmbeddedJudge, spec: ConceptSpec) -> list[Question]:
    """The target and its most certain training corefs, as many pictures of each: those that the base draws, since a
    name that it does not draw is never seen. Raises CrceError for a target that the judge does not know."""
    target, covered = name_target(spec, judge), read_covered(model.covered_file).covered
    drawn = [term.text for term in spec.train_corefs if covered.get((term.text, target), True)]
    texts = [spec.target, *drawn[:NAMES]]
    seeds = tuple(range(FIRST_SEED, FIRST_SEED + PICTURES // len(texts)))
    return [Question("target", text, "train", target, seeds) for text in texts]
