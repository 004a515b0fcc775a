"""How well the base draws, by its own judge: names over all leaves, and which guidance and step count serve best."""

import torch

from . import judge
from .common import build_dir, log, save
from .unet import Artist
from .vocabulary import vocabulary


def share(artist: Artist, pair, terms: list[str], threshold: float, seeds: range, **sampling) -> float:
    """Share of yes when each term is drawn and asked for, over the seeds."""
    words, yes = vocabulary(), []
    for seed in seeds:
        p = judge.probabilities(pair, artist(terms, seed, **sampling))
        yes += [float(p[k, list(words.terms[t])].sum()) >= threshold for k, t in enumerate(terms)]
    return sum(yes) / len(yes)


def sampling(threshold: float) -> dict:
    """The guidance and the smallest step count that are as good as any, over every fourth leaf."""
    artist, pair = Artist(), judge.trained()
    terms = [n.lower() for n in vocabulary().leaves[::4]]
    found = {
        g: share(artist, pair, terms, threshold, range(1), guidance=g, steps=20) for g in (2.0, 3.0, 4.0, 5.0, 7.0)
    }
    guidance = max(found, key=found.get)
    steps = {n: share(artist, pair, terms, threshold, range(1), guidance=guidance, steps=n) for n in (10, 15, 20, 30)}
    best = next(n for n, s in steps.items() if s >= max(steps.values()) - 0.015)
    state = {"guidance": guidance, "steps": best}
    save(state, build_dir() / "sampling.pt")
    log(
        "measure",
        n=len(terms),
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
