"""How well the base draws, by its own judge: names over all leaves, and which guidance and step count serve best."""

import json

import torch

from . import judge
from .common import build_dir, log, save
from .unet import Artist
from .vocabulary import vocabulary


def share(artist: Artist, pair, terms: list[str], **sampling) -> float:
    """Mean probability of what was asked for, one picture a term: finer than the share of yes."""
    terms_of = vocabulary().terms
    p = judge.probabilities(pair, artist(terms, 0, **sampling))
    return float(torch.stack([p[k, list(terms_of[t])].sum() for k, t in enumerate(terms)]).mean())


def sampling() -> dict:
    """The guidance and the smallest step count that are as good as any, over every fourth leaf."""
    artist, pair = Artist(), judge.trained()
    terms = [n.lower() for n in vocabulary().leaves[::4]]
    found = {g: share(artist, pair, terms, guidance=g, steps=20) for g in (2.0, 3.0, 4.0, 5.0, 7.0)}
    guidance = max(found, key=found.get)
    steps = {n: share(artist, pair, terms, guidance=guidance, steps=n) for n in (10, 15, 20, 30)}
    best = next(n for n, s in steps.items() if s >= max(steps.values()) - 0.01)
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


def names(threshold: float, best: dict, seeds: int = 2) -> dict:
    """Share of yes over the names of all leaves, and over those the dataset erases; the worst are named."""
    artist, pair, words = Artist(), judge.trained(), vocabulary()
    terms = [n.lower() for n in words.leaves]
    hits = torch.zeros(len(terms))
    for seed in range(seeds):
        p = judge.probabilities(pair, artist(terms, seed, **best))
        hits += torch.tensor([float(float(p[k, list(words.terms[t])].sum()) >= threshold) for k, t in enumerate(terms)])
    facts = {
        **best,
        "n": len(terms) * seeds,
        "names": round(float(hits.mean()) / seeds, 3),
        "never": [t for t, h in zip(terms, hits, strict=True) if h == 0][:80],
    }
    log("measure", **facts)
    return facts


def dataset(threshold: float, best: dict, seeds: int = 2) -> dict:
    """Share of yes over the dataset's terms that can be drawn: corefs are asked for their target, retains for
    themselves."""
    artist, pair, terms_of = Artist(), judge.trained(), vocabulary().terms
    asked = {"corefs": [], "retains": []}
    for spec in json.loads((build_dir() / "vocabulary.json").read_text())["specs"]:
        target = spec["target"].lower()
        if target in terms_of:
            asked["corefs"] += [(c["text"].lower(), target) for c in spec["corefs"]]
            asked["retains"] += [(r["text"].lower(),) * 2 for r in spec["retains"] if r["text"].lower() in terms_of]
    facts = dict(best)
    for kind, pairs in asked.items():
        yes = []
        for seed in range(seeds):
            p = judge.probabilities(pair, artist([drawn for drawn, _ in pairs], seed, **best))
            yes += [float(p[k, list(terms_of[t])].sum()) >= threshold for k, (_, t) in enumerate(pairs)]
        facts |= {kind: round(sum(yes) / len(yes), 4), f"n {kind}": len(yes)}
    log("measure", **facts)
    return facts
