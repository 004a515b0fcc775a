"""The judge: an image tower and one prototype for each leaf, trained on real drawings and on their round trips through
the autoencoder, then measured on the art styles that nothing was trained on."""

import copy
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import binomtest
from torch import nn

from crce.judges.embedded import ImageEncoder

from . import vae
from .common import DEVICE, autocast, average, build_dir, keep, load, log, save, shape_of
from .pictures import affine, drawings, floats, outline, recolour, soften
from .vocabulary import emphasis, vocabulary

STEPS, BATCH, RATE = 4400, 96 if DEVICE.type == "cpu" else 256, 1.5e-3
WIDTH = 256
ROUND_TRIPS = (0.0, 0.25, 0.5)  # noise on the latents, in their standard deviations
TUNED_ON, TESTED_ON = "openmoji", "twemoji"  # the threshold is chosen on one unseen style and tested on the other
NEIGHBOURS = 4


class Tower(nn.Module):
    """Pictures [b,3,64,64] → unit vectors [b, 256], and one prototype for each leaf."""

    def __init__(self, leaves: int):
        super().__init__()
        self.tower = ImageEncoder(WIDTH)
        self.prototypes = nn.Parameter(F.normalize(torch.randn(leaves, WIDTH), dim=-1))
        self.scale = nn.Parameter(torch.tensor(14.0).log())

    def leaf_logits(self, features: torch.Tensor) -> torch.Tensor:
        return self.scale.exp().clamp(max=60) * features @ F.normalize(self.prototypes, dim=-1).T


def shipped_scale(folder: Path) -> torch.Tensor:
    """The logarithm of the scale of a shipped judge."""
    return torch.tensor(json.loads((folder / "config.json").read_text())["scale"]).log()


def fresh() -> tuple[Tower, Tower]:
    model = Tower(len(vocabulary().leaves)).to(DEVICE)
    return model, copy.deepcopy(model).requires_grad_(False)


class Batches:
    """Random drawings with augmentation; `emphasis` draws the dataset's concepts more often."""

    def __init__(self, *kinds: str):
        parts, words = [drawings(kind) for kind in kinds or ("coloured",)], vocabulary()
        self.images = torch.cat([images for images, _ in parts])
        self.labels, leaves, self.styles = (
            np.concatenate([columns[k] for _, columns in parts]) for k in ("labels", "leaves", "styles")
        )
        self.leaves = torch.tensor([words.ids[str(n)] for n in leaves])
        share = torch.tensor(emphasis())[self.leaves].sqrt()
        self.weights = share / torch.bincount(self.leaves)[self.leaves].sqrt()

    def pictures(self, source: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """→ x [n,3,64,64], and which drawings they are [n]"""
        index = torch.multinomial(self.weights, n, replacement=True)
        x = soften(recolour(affine(floats(source[index]).to(DEVICE))))
        return x.to(memory_format=torch.channels_last), index


def settle(ema: nn.Module, model: nn.Module, step: int) -> None:
    """The average of the weights, and the batch norms' statistics as they are."""
    average(ema, model, step, 0.998)
    for mine, other in zip(ema.buffers(), model.buffers(), strict=True):
        mine.copy_(other)


@torch.no_grad()
def accuracy(pair: Tower, styles: list[str]) -> dict[str, float]:
    """Top-1 over all leaves on the held-out styles."""
    images, columns = drawings("held out")
    leaves = torch.tensor([vocabulary().ids[str(n)] for n in columns["leaves"]])
    pair.eval()
    found = torch.cat([pair.leaf_logits(pair.tower(floats(b).to(DEVICE))).argmax(1).cpu() for b in images.split(200)])
    return {
        s: round(float((found == leaves)[torch.from_numpy(columns["styles"] == s)].float().mean()), 3) for s in styles
    }


@torch.no_grad()
def round_trips(images: torch.Tensor) -> torch.Tensor:
    """Every drawing through the autoencoder, with more and more noise on its latents. → uint8 [trips, n, 3, 64, 64]"""
    path = build_dir() / "trips.pt"
    if (state := load(path)) is None:
        torch.manual_seed(0)
        model, trips = vae.trained(), []
        for noise in ROUND_TRIPS:
            parts = []
            for part in images.split(64):
                with autocast():
                    z = model.encode(floats(part).to(DEVICE)).latent_dist.mean
                    y = model.decode(z + noise * z.std() * torch.randn_like(z)).sample
                parts.append(((y.float().clamp(-1, 1) + 1) * 127.5).byte().cpu())
            trips.append(torch.cat(parts))
        state = {"trips": torch.stack(trips)}
        save(state, path)
    return state["trips"]


def train(steps: int = STEPS) -> None:
    """Train to `steps`, going on from the last checkpoint; a finished run starts another cycle from its average."""
    path, batches = build_dir() / "judge.pt", Batches("coloured", "plain")
    coloured, _ = drawings()
    pair, ema = fresh()
    optimiser = torch.optim.AdamW(pair.parameters(), RATE, weight_decay=0.05)
    start = begin = 0
    if state := load(path):
        finished = state["step"] >= state["end"]
        pair.load_state_dict(state["ema" if finished else "model"])
        ema.load_state_dict(state["ema"])
        if "optimiser" in state:
            optimiser.load_state_dict(state["optimiser"])
        start = state["step"]
        begin = start if finished else state["begin"]
    torch.manual_seed(start)
    trips, saved = round_trips(coloured), time.time()
    for step in range(start, steps):
        optimiser.param_groups[0]["lr"] = RATE * shape_of(step - begin, steps - begin, decay=0.7)
        index = torch.multinomial(batches.weights, BATCH, replacement=True)
        source = batches.images[index]
        tripped = (torch.rand(BATCH) < 0.5) & (index < len(coloured))
        source[tripped] = trips[torch.randint(len(ROUND_TRIPS), (int(tripped.sum()),)), index[tripped]]
        x = soften(outline(recolour(affine(floats(source).to(DEVICE)), 0.25)))
        pair.train()
        with autocast():
            features = pair.tower(x.contiguous(memory_format=torch.channels_last))
        leaves = batches.leaves[index].to(DEVICE)
        loss = F.cross_entropy(pair.leaf_logits(features.float()), leaves, label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(pair.parameters(), 1.0)
        optimiser.step()
        settle(ema, pair, step)
        if time.time() - saved > 60 or step + 1 == steps:
            keep(path, pair, ema, optimiser, step=step + 1, begin=begin, end=steps)
            seen = accuracy(ema, [TESTED_ON, TUNED_ON])
            log("judge", step=step + 1, loss=round(float(loss.detach()), 3), top1=seen)
            saved = time.time()


def trained() -> Tower:
    """The average as far as it has come, as it will be shipped; frozen."""
    pair, _ = fresh()
    state = load(build_dir() / "judge.pt")
    pair.load_state_dict({k: v.half().to(v.dtype) for k, v in state["ema"].items()})
    return pair.eval().requires_grad_(False)


@torch.no_grad()
def probabilities(pair, images: torch.Tensor) -> torch.Tensor:
    """Floats [n,3,64,64] → share of each leaf [n, leaves]; a picture and its mirror image are looked at together."""
    features = torch.cat([(pair.tower(part) + pair.tower(part.flip(3))) / 2 for part in images.to(DEVICE).split(64)])
    return pair.leaf_logits(features).softmax(1).cpu()


def rate(decisions: list[bool]) -> dict:
    """Share of yes with its Wilson interval."""
    low, high = binomtest(sum(decisions), len(decisions)).proportion_ci(method="wilson")
    return {
        "yes": sum(decisions),
        "n": len(decisions),
        "rate": round(sum(decisions) / len(decisions), 4),
        "interval": [round(low, 4), round(high, 4)],
    }


def questions(pair) -> dict[str, list[tuple[int, str]]]:
    """(leaf shown, term asked) by kind: each leaf's name; its nearest others; the specs' retains, both ways."""
    words = vocabulary()
    leaves = [n.lower() for n in words.leaves]
    asked = {
        "name": [(i, n) for i, n in enumerate(leaves)],
        "neighbour": [],
        "target shown, retain asked": [],
        "retain shown, target asked": [],
        "target": [],
    }
    unit = F.normalize(pair.prototypes, dim=1).cpu()
    near = (unit @ unit.T).argsort(dim=1, descending=True)
    for i in range(len(leaves)):
        others = [
            int(j) for j in near[i] if i not in words.terms[leaves[int(j)]] and int(j) not in words.terms[leaves[i]]
        ]
        asked["neighbour"] += [(i, leaves[j]) for j in others[:NEIGHBOURS]]
    for spec in json.loads((build_dir() / "vocabulary.json").read_text())["specs"]:
        target = spec["target"].lower()
        own = words.terms.get(target, {})
        asked["target"] += [(i, target) for i in own]
        for retain in (r["text"].lower() for r in spec["retains"]):
            kept = words.terms.get(retain, {})
            if own and kept and not set(own) & set(kept):
                asked["target shown, retain asked"] += [(i, retain) for i, w in own.items() if w == 1]
                asked["retain shown, target asked"] += [(i, target) for i, w in kept.items() if w == 1]
    return asked


def decide(share: torch.Tensor, leaves: torch.Tensor, asked: list[tuple[int, str]], threshold: float) -> list[bool]:
    """Verdicts on every picture of the leaf shown. share [n, leaves]"""
    terms = vocabulary().terms
    return [
        bool(share[k, list(terms[term])].sum() >= threshold)
        for leaf, term in asked
        for k in (leaves == leaf).nonzero().flatten()
    ]


def measure() -> dict:
    """Choose the threshold on one held-out style, test on the other; the report that ships with the judge."""
    pair, (images, columns) = trained(), drawings("held out")
    leaves = torch.tensor([vocabulary().ids[str(n)] for n in columns["leaves"]])
    share, asked = probabilities(pair, floats(images)), questions(pair)
    style = {s: torch.from_numpy(columns["styles"] == s) for s in (TUNED_ON, TESTED_ON)}

    def table(name: str, threshold: float) -> dict:
        return {kind: rate(decide(share[style[name]], leaves[style[name]], q, threshold)) for kind, q in asked.items()}

    # The lowest threshold that keeps false yes on neighbours at most 5 % on the style it is tuned on.
    options = [k / 1000 for k in range(20, 501)]
    threshold = next((t for t in options if table(TUNED_ON, t)["neighbour"]["rate"] <= 0.05), options[-1])
    report = {
        "threshold": threshold,
        "threshold chosen on": TUNED_ON,
        "rule": "yes if the leaves of the asked term together have at least the threshold's share of the probability",
        TESTED_ON: table(TESTED_ON, threshold),
        TUNED_ON: table(TUNED_ON, threshold),
        "top-1 of all leaves": accuracy(pair, [TESTED_ON, TUNED_ON]),
    }
    (build_dir() / "judge.json").write_text(json.dumps(report, indent=1))
    log(
        "judge", threshold=threshold, **{k: {q: r["rate"] for q, r in report[k].items()} for k in (TESTED_ON, TUNED_ON)}
    )
    return report
