"""How well the base draws, by its own judge: names over all leaves, and which guidance and step count serve best."""

import json
import random
from collections.abc import Callable

import torch

from crce.bases import defaults

from . import judge
from .common import build_dir, log, save
from .open_words import OPEN_WORDS
from .unet import MISSED, Artist, former
from .vocabulary import vocabulary

Draw = Callable[..., torch.Tensor]  # texts, seed and sampling to pictures [n, 3, 64, 64] in -1…1


def share(artist: Artist, pair, terms: list[str], **sampling) -> float:
    """Mean probability of what was asked for, one picture a term: finer than the share of yes."""
    terms_of = vocabulary().terms
    p = judge.probabilities(pair, artist(terms, 0, **sampling))
    return float(torch.stack([p[k, list(terms_of[t])].sum() for k, t in enumerate(terms)]).mean())


def sampling() -> dict:
    """The strongest guidance and the smallest step count that are nearly as good as any, over every fourth leaf and as
    many other words among the captions."""
    artist, pair, names = Artist(), judge.trained(), [n.lower() for n in vocabulary().leaves[::4]]
    terms = [*names, *random.Random(6).sample(worded("coref", "synonym", "kind", "paraphrase"), len(names))]
    found = {g: share(artist, pair, terms, guidance=g, steps=20) for g in (2.0, 3.0, 4.0, 5.0, 7.0)}
    guidance = max(g for g, s in found.items() if s >= max(found.values()) - 0.01)
    steps = {n: share(artist, pair, terms, guidance=guidance, steps=n) for n in (10, 15, 20, 30)}
    best = next(n for n, s in steps.items() if s >= max(steps.values()) - 0.025)
    state = {"guidance": guidance, "steps": best}
    save(state, build_dir() / "sampling.pt")
    log(
        "measure",
        pictures=len(terms),
        guidance={str(k): round(v, 3) for k, v in found.items()},
        steps={str(k): round(v, 3) for k, v in steps.items()},
        chosen=state,
    )
    return state


def draw_as_before(texts: list[str], seed: int, guidance: float, steps: int) -> torch.Tensor:
    """What `Artist` draws, by the model shipped before."""
    pipe, drawn = former(), []
    for start in range(0, len(texts), 64):
        generator = torch.Generator().manual_seed(seed + start)
        part = pipe(texts[start : start + 64], num_inference_steps=steps, guidance_scale=guidance,
                    generator=generator, output_type="pt")  # fmt: skip
        drawn.append(part.images * 2 - 1)
    return torch.cat(drawn)


def shown(artist: Draw, pairs: list[tuple[str, str]], threshold: float, best: dict, seeds: int) -> dict:
    """Draw each text, ask for its term: share of yes, and share whose first guess is one of the term's leaves."""
    pair, terms = judge.trained(), vocabulary().terms
    yes, first = torch.zeros(len(pairs)), torch.zeros(len(pairs))
    for seed in range(seeds):
        p = judge.probabilities(pair, artist([text for text, _ in pairs], seed, **best))
        for k, (_, term) in enumerate(pairs):
            leaves = list(terms[term.lower()])
            yes[k] += float(p[k, leaves].sum() >= threshold)
            first[k] += float(int(p[k].argmax()) in leaves)
    return {"yes": yes / seeds, "first": first / seeds}


def facts(
    stage: str, pairs: list[tuple[str, str]], threshold: float, best: dict, seeds: int = 2, artist: Draw | None = None
) -> list[str]:
    """One line of the log: the shares over pairs of (text drawn, term asked), and the texts never drawn. → the texts
    that were not drawn on every seed"""
    found = shown(artist or Artist(), pairs, threshold, best, seeds)
    never = [text for (text, _), share in zip(pairs, found["yes"], strict=True) if share == 0]
    shares = {stage: round(float(found["yes"].mean()), 4), "first guess": round(float(found["first"].mean()), 4)}
    log("measure", **best, n=len(pairs) * seeds, **shares, never=never[:80])
    return [text for (text, _), share in zip(pairs, found["yes"], strict=True) if share < 1]


def names(threshold: float, best: dict) -> None:
    """The names of all leaves; those that were not drawn are left to the denoiser's next cycle (`unet.MISSED`)."""
    missed = facts("names", [(n.lower(), n) for n in vocabulary().leaves], threshold, best)
    (build_dir() / MISSED).write_text(json.dumps(missed))


def worded(*kinds: str) -> list[str]:
    """The words of these kinds among the captions, in a fixed order."""
    return sorted({t for of in vocabulary().kinds for k in kinds for t in of[k]})


def synonyms(threshold: float, best: dict, n: int = 400) -> None:
    """A random choice of the synonyms, kinds and paraphrases that are captions."""
    rng, kinds = random.Random(5), ("coref", "synonym", "kind")
    for stage, chosen in (("synonyms", kinds), ("paraphrases", ("paraphrase", "deep kind", "near"))):
        texts = worded(*chosen)
        facts(stage, [(t, t) for t in rng.sample(texts, min(n, len(texts)))], threshold, best, 1)


def open_words(threshold: float, best: dict) -> None:
    """Phrases that no caption holds; also by the model shipped before, with its own sampling, where it is here."""
    facts("open words", OPEN_WORDS, threshold, best)
    if former():
        preset = defaults(str(build_dir() / "former"))
        best_before = {"guidance": preset.guidance, "steps": preset.sample_steps}
        facts("open words before", OPEN_WORDS, threshold, best_before, 1, draw_as_before)


def dataset(threshold: float, best: dict) -> None:
    """The specs' terms that can be drawn: corefs are asked for their target, retains for themselves."""
    terms = vocabulary().terms
    corefs, retains = [], []
    for spec in json.loads((build_dir() / "vocabulary.json").read_text())["specs"]:
        target = spec["target"].lower()
        if target in terms:
            corefs += [(c["text"].lower(), target) for c in spec["corefs"]]
            retains += [(r["text"].lower(),) * 2 for r in spec["retains"] if r["text"].lower() in terms]
    facts("corefs", corefs, threshold, best)
    facts("retains", retains, threshold, best)
