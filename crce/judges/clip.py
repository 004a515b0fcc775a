"""CLIP as a judge, zero-shot (Radford et al., 2021, §3.1): which of the given concepts does the picture show?"""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, CLIPModel

from crce.errors import CrceError
from crce.judges.judge import THRESHOLD, Judge, JudgeFacts, Verdict, fill
from crce.judges.weights import in_batches, load, load_weights, version_of
from crce.models.diffusion import pick_device
from crce.models.memory import free_memory

PROMPT = "a photo of <X>"
BATCH = 64


class ClipJudge(Judge):
    """The share of a concept among its neighbours, by the likeness of picture and text.

    It compares: `among` gives it the neighbours, and without any it cannot judge.
    """

    def __init__(
        self,
        model: Any,
        parts: tuple[Any, Any],
        facts: JudgeFacts,
        device: str = "auto",
        rivals: Sequence[str] = (),
    ):
        """parts: CLIP's tokenizer and image processor. rivals: the concepts that a picture may show instead."""
        self.model, self.facts, self.rivals, self._parts = model, facts, tuple(rivals), parts
        self.device = torch.device(pick_device(device))

    @classmethod
    def load(cls, name: str, place: str, device: str = "auto") -> "ClipJudge":
        """name: as it was chosen; place: a folder or a Hub id. Raises CrceError if it cannot be loaded."""
        here = {"local_files_only": True}
        config = load(place, lambda: AutoConfig.from_pretrained(place, **here))
        parts = (AutoTokenizer, AutoImageProcessor)
        tokenizer, processor = load(place, lambda: [part.from_pretrained(place, **here) for part in parts])
        facts = JudgeFacts(name, version_of(place, config), PROMPT, THRESHOLD)
        return cls(load_weights(CLIPModel, place, device), (tokenizer, processor), facts, device)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(repr((self.facts, self.rivals)).encode()).hexdigest()

    def among(self, concepts: Sequence[str]) -> "ClipJudge":
        return ClipJudge(self.model, self._parts, self.facts, str(self.device), tuple(dict.fromkeys(concepts)))

    def classify(self, images: list[Image], concept: str) -> list[Verdict]:
        rivals = [rival for rival in self.rivals if rival != concept]
        if not rivals:
            raise CrceError(f"CLIP compares {concept!r} with its neighbours, and it has none. Add retains, or choose "
                            "another judge.")  # fmt: skip
        self.model.to(self.device)
        texts = self._embed_texts([fill(self.facts.prompt, text) for text in (concept, *rivals)])
        shares = in_batches(lambda part: self._compare(part, texts), images, BATCH)
        return [Verdict(share >= self.facts.threshold, share) for share in shares]

    @torch.inference_mode()
    def _embed_texts(self, texts: list[str]) -> Tensor:
        """Unit vectors [texts, width] in fp32."""
        tokens = self._parts[0](texts, padding=True, truncation=True, return_tensors="pt").to(self.device)
        found = self.model.get_text_features(tokens["input_ids"], tokens["attention_mask"])
        return torch.nn.functional.normalize(found.pooler_output.float(), dim=-1)

    @torch.inference_mode()
    def _compare(self, images: Sequence[Image], texts: Tensor) -> list[float]:
        """The share of the first text for each picture."""
        pictures = [image.convert("RGB") for image in images]
        pixels = self._parts[1](images=pictures, return_tensors="pt")["pixel_values"]
        found = self.model.get_image_features(pixels.to(self.device, self.model.dtype)).pooler_output.float()
        likeness = torch.nn.functional.normalize(found, dim=-1) @ texts.T
        return (self.model.logit_scale.float().exp() * likeness).softmax(dim=-1)[:, 0].tolist()

    def rest(self) -> None:
        self.model.to("cpu")
        free_memory()
