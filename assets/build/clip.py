"""The text encoder and the judge's image tower, trained together on real drawings: a small CLIP.

Three losses share one space: drawings against captions (multi-positive contrastive), drawings against the leaves'
prototypes, and captions against the same prototypes. The text encoder is then frozen for the U-Net; `judge` goes on
with the tower and prototypes alone, on drawings that also went through the autoencoder, as generated ones do.
"""

import copy
import json
import random
import time

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from crce.judges.embedded import ImageEncoder

from .common import DEVICE, autocast, average, build_dir, keep, log, resume, shape_of
from .pictures import affine, drawings, floats, recolour, soften
from .vocabulary import dressed, emphasis, vocabulary

STEPS, BATCH, RATE = 1100, 96, 1.5e-3
WORDS, LENGTH, WIDTH = 2048, 32, 256
SPECIAL = ["<|startoftext|>", "<|endoftext|>"]


def tokenizer() -> CLIPTokenizer:
    """CLIP's byte-level BPE with merges of our own captions; made once, then read."""
    path = build_dir() / "tokenizer"
    if not (path / "tokenizer_config.json").exists():
        words, rng = vocabulary(), random.Random(0)
        texts = [*words.terms, *(p for phrases in words.phrases for p in phrases)]
        texts += [dressed(t, s, rng) for t in words.leaves for s in ("noto", "fluent flat", "fluent")]
        learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
        learner.normalizer = normalizers.Lowercase()
        learner.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.WhitespaceSplit(),
                pre_tokenizers.Punctuation(),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        learner.train_from_iterator(
            texts,
            trainers.BpeTrainer(
                vocab_size=WORDS - 2,
                min_frequency=2,
                initial_alphabet=letters,
                end_of_word_suffix="</w>",
                show_progress=False,
            ),
        )
        merges = [tuple(m) for m in json.loads(learner.to_str())["model"]["merges"]]
        merges = merges[: WORDS - 2 - 2 * len(letters)]
        pieces = [*letters, *(c + "</w>" for c in letters), *("".join(m) for m in merges), *SPECIAL]
        pieces = list(dict.fromkeys(pieces))
        CLIPTokenizer(
            vocab={p: i for i, p in enumerate(pieces)},
            merges=merges,
            model_max_length=LENGTH,
        ).save_pretrained(path)
    return CLIPTokenizer.from_pretrained(path)


def tokens(texts: list[str], full: bool = False) -> torch.Tensor:
    """→ ids [b, 32], or only as long as the longest text: later positions cannot reach earlier ones."""
    encoded = TOKENS(
        texts, padding="max_length" if full else "longest", max_length=LENGTH, truncation=True, return_tensors="pt"
    )
    return encoded.input_ids.to(DEVICE)


class Pair(nn.Module):
    """Text encoder, image tower, and one prototype a leaf, in one space of unit vectors [·, 256]."""

    def __init__(self, leaves: int):
        super().__init__()
        ids = TOKENS.convert_tokens_to_ids(SPECIAL)
        self.text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(TOKENS),
                hidden_size=320,
                intermediate_size=640,
                num_hidden_layers=3,
                num_attention_heads=5,
                max_position_embeddings=LENGTH,
                projection_dim=WIDTH,
                bos_token_id=ids[0],
                eos_token_id=ids[1],
                pad_token_id=ids[1],
            )
        )
        self.projection = nn.Linear(320, WIDTH, bias=False)
        self.tower = ImageEncoder(WIDTH)
        self.prototypes = nn.Parameter(F.normalize(torch.randn(leaves, WIDTH), dim=-1))
        self.scales = nn.Parameter(torch.tensor([14.0, 14.0, 14.0]).log())

    def words(self, ids: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.projection(self.text(ids).pooler_output), dim=-1)

    def leaf_logits(self, features: torch.Tensor, scale: int) -> torch.Tensor:
        return self.scales[scale].exp().clamp(max=60) * features @ F.normalize(self.prototypes, dim=-1).T


def spread(truth: torch.Tensor) -> torch.Tensor:
    """Rows of 0/1 → rows that sum to one."""
    return truth / truth.sum(1, keepdim=True)


def objective(
    pair: Pair, x: torch.Tensor, ids: torch.Tensor, truth: torch.Tensor, leaves: torch.Tensor
) -> torch.Tensor:
    """x [b,3,64,64], ids [b,l], truth [b,leaves] of each caption, leaves [b] of each drawing → loss"""
    with autocast():
        images, texts = pair.tower(x), pair.words(ids)
    images, texts = images.float(), texts.float()
    logits = pair.scales[0].exp().clamp(max=60) * images @ texts.T
    match = truth[:, leaves].T
    contrast = F.cross_entropy(logits, spread(match)) + F.cross_entropy(logits.T, spread(match.T))
    seen = F.cross_entropy(pair.leaf_logits(images, 1), leaves, label_smoothing=0.05)
    said = F.cross_entropy(pair.leaf_logits(texts, 2), spread(truth))
    return contrast / 2 + seen + said


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


def fresh() -> tuple[Pair, Pair]:
    pair = Pair(len(vocabulary().leaves)).to(DEVICE)
    return pair, copy.deepcopy(pair).requires_grad_(False)


def settle(ema: nn.Module, model: nn.Module, step: int) -> None:
    """The average of the weights, and the batch norms' statistics as they are."""
    average(ema, model, step, 0.998)
    for mine, other in zip(ema.buffers(), model.buffers(), strict=True):
        mine.copy_(other)


@torch.no_grad()
def accuracy(pair: Pair, styles: list[str]) -> dict[str, float]:
    """Top-1 over all leaves on the held-out styles."""
    images, columns = drawings("held out")
    leaves = torch.tensor([vocabulary().ids[str(n)] for n in columns["leaves"]])
    pair.eval()
    found = torch.cat(
        [pair.leaf_logits(pair.tower(floats(b).to(DEVICE)), 1).argmax(1).cpu() for b in images.split(200)]
    )
    return {
        s: round(float((found == leaves)[torch.from_numpy(columns["styles"] == s)].float().mean()), 3) for s in styles
    }


def train(steps: int = STEPS) -> None:
    """Train all three parts to `steps`, going on from the last checkpoint."""
    path, words, batches = build_dir() / "clip.pt", vocabulary(), Batches()
    pair, ema = fresh()
    optimiser = torch.optim.AdamW(pair.parameters(), RATE, weight_decay=0.05)
    start = resume(path, pair, ema, optimiser)
    torch.manual_seed(start)
    rng, saved = random.Random(start), time.time()
    for step in range(start, steps):
        optimiser.param_groups[0]["lr"] = RATE * shape_of(step, steps, decay=0.6)
        x, index = batches.pictures(batches.images, BATCH)
        leaves = batches.leaves[index]
        texts, truth = [], torch.zeros(2 * BATCH, len(words.leaves))
        for row, i in enumerate([*index.tolist(), *index.tolist()]):  # two captions a drawing
            text, true = words.caption(int(batches.leaves[i]), str(batches.labels[i]), str(batches.styles[i]), rng)
            texts.append(text)
            truth[row, true] = 1.0
        pair.train()
        loss = objective(pair, x, tokens(texts), truth.to(DEVICE), leaves.to(DEVICE))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(pair.parameters(), 1.0)
        optimiser.step()
        settle(ema, pair, step)
        if time.time() - saved > 60 or step + 1 == steps:
            keep(path, pair, ema, optimiser, step=step + 1)
            log("clip", step=step + 1, loss=round(float(loss), 3), top1=accuracy(ema, ["twemoji", "openmoji"]))
            saved = time.time()


TOKENS = tokenizer()
