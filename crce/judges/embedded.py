"""Does this picture show X? The default model's own judge: a small image–text model, trained on real drawings only."""

import hashlib
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from crce import bases
from crce.errors import CrceError
from crce.files import read_json
from crce.judges.choices import EMBEDDED
from crce.judges.judge import Judge, JudgeFacts, Verdict

SIZE = 64


class Residual(nn.Module):
    """Two 3×3 convolutions beside a shortcut; the first may halve the picture."""

    def __init__(self, inside: int, outside: int, stride: int):
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(inside, outside, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outside),
            nn.SiLU(),
            nn.Conv2d(outside, outside, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outside),
        )
        self.shortcut = nn.Conv2d(inside, outside, 1, stride, bias=False) if inside != outside else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.path(x) + self.shortcut(x))


class ImageEncoder(nn.Module):
    """Pictures [b,3,64,64] in -1…1 → unit vectors [b, width]."""

    def __init__(self, width: int = 256, channels: tuple[int, ...] = (48, 64, 128, 192, 208)):
        super().__init__()
        first, *rest = channels
        self.stem = nn.Sequential(nn.Conv2d(3, first, 4, 2, 1, bias=False), nn.BatchNorm2d(first), nn.SiLU())
        strides = [1] + [2] * (len(rest) - 1)
        self.blocks = nn.Sequential(*[Residual(a, b, s) for a, b, s in zip(channels, rest, strides, strict=False)])
        self.head = nn.Linear(channels[-1], width)

    def forward(self, x: Tensor) -> Tensor:
        features = self.blocks(self.stem(x)).mean(dim=(2, 3))
        return F.normalize(self.head(features), dim=-1)


class EmbeddedJudge(Judge):
    """Compares a picture with every concept that it knows; X is shown if its share of the probability is enough.

    A concept has one or more leaves (kinds of drawing): "dog" has those of the poodle and of the guide dog too.
    """

    def __init__(self, tower: nn.Module, prototypes: Tensor, concepts: dict, scale: float, threshold: float):
        self.tower, self.prototypes = (
            tower.eval().requires_grad_(False),
            F.normalize(prototypes.float(), dim=-1),
        )
        self.names: list[str] = concepts["leaves"]
        self.terms: dict[str, list[int]] = concepts["terms"]
        # What an ambiguous word stands for here: "bat" is the animal.
        self.senses: dict[str, str] = concepts.get("senses", {})
        self.scale, self.threshold = scale, threshold
        self.facts = JudgeFacts(EMBEDDED, self.fingerprint[:12], threshold=threshold)

    @classmethod
    def load(cls, base: str = bases.EMOJI_SD) -> "EmbeddedJudge":
        """The judge beside a base's files. Raises CrceError for a base without one."""
        folder = Path(bases.resolve(base)) / "judge"
        if not folder.is_dir():
            raise CrceError(
                f"The base {base!r} brings no judge of its own. Compare the pictures by eye, "
                f"or use the base {bases.EMOJI_SD!r}."
            )
        config, tensors = read_json(folder / "config.json"), load_file(folder / "judge.safetensors")
        tower = ImageEncoder(**config["tower"])
        prototypes = tensors.pop("prototypes")
        tower.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        return cls(tower, prototypes, read_json(folder / "concepts.json"), config["scale"], config["threshold"])

    @cached_property
    def fingerprint(self) -> str:
        """Tells one judge from another."""
        facts = f"{self.threshold} {self.scale} {self.prototypes.double().sum()} {sorted(self.terms)}"
        return hashlib.sha256(facts.encode()).hexdigest()

    def name_of(self, concept: str) -> str | None:
        """What the judge calls it: its "bat" is "bat (animal)", and "bat (sports equipment)" is none of its own."""
        word, _, sense = concept.removesuffix(")").partition(" (")
        if concept.lower() in self.terms:
            return concept
        same = self.senses.get(word.lower(), sense) == sense
        return word if sense and same and word.lower() in self.terms else None

    def classify(self, images: list[Image.Image], concept: str) -> list[Verdict]:
        """Whether each image shows the concept, decided against all others. Raises CrceError for an unknown one."""
        name = self.name_of(concept)
        if name is None:
            raise CrceError(
                f"The judge does not know {concept!r}. It knows {len(self.names)} concepts by "
                f"{len(self.terms)} names; use one of those, or judge by eye."
            )
        leaves = self.terms[name.lower()]
        shares = self.probabilities(pixels(images))
        top, best = shares.max(dim=1)
        rows = zip(shares[:, leaves].sum(dim=1).tolist(), best.tolist(), top.tolist(), strict=True)
        return [Verdict(p >= self.threshold, p, self.names[leaf], top, leaf in leaves) for p, leaf, top in rows]

    @torch.no_grad()
    def probabilities(self, pictures: Tensor) -> Tensor:
        """Pictures [n, 3, 64, 64] in −1 … 1 to the share of each leaf [n, leaves]."""
        # A drawing and its mirror image show the same: together they are judged better than either alone.
        parts = [(self.tower(part) + self.tower(part.flip(3))) / 2 for part in pictures.split(64)]
        return (self.scale * torch.cat(parts) @ self.prototypes.T).softmax(dim=-1)


def pixels(images: list[Image.Image]) -> Tensor:
    """PIL images to [n, 3, 64, 64] in −1 … 1."""
    small = [image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR) for image in images]
    flat = [torch.frombuffer(bytearray(i.tobytes()), dtype=torch.uint8).view(SIZE, SIZE, 3) for i in small]
    return torch.stack(flat).permute(0, 3, 1, 2).float() / 127.5 - 1
