"""The paper's judge (§4.1): a vision-language model is asked, and the first word of its answer is read."""

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from PIL.Image import Image
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer
from transformers.processing_utils import ProcessorMixin

from crce.errors import CrceError
from crce.judges.judge import PROMPT, RESTRICTION, THRESHOLD, Judge, JudgeFacts, Verdict, fill
from crce.judges.weights import in_batches, load, load_weights, version_of
from crce.models.diffusion import pick_device
from crce.models.memory import free_memory

BATCH = 16
YES = ("yes", "Yes", "YES", " yes", " Yes")
NO = ("no", "No", "NO", " no", " No")


class ImageProcessor(ProcessorMixin):
    """Text and pictures for Qwen's models. The library's own processor also prepares videos, for which it needs
    torchvision, which not every installation of torch has.
    """

    return_mm_token_type_ids = True

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None):
        self.image_token = getattr(tokenizer, "image_token", "<|image_pad|>")
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs: Any) -> str:
        """One token for each patch that the model sees, after it has merged neighbouring ones."""
        patches = image_inputs["image_grid_thw"][image_idx].prod() // self.image_processor.merge_size**2
        return self.image_token * int(patches)

    @property
    def model_input_names(self) -> list[str]:
        return [*super().model_input_names, "mm_token_type_ids"]


class VlmJudge(Judge):
    """Any model that transformers loads as image-text-to-text: Qwen2-VL, Qwen2.5-VL, Qwen3-VL and others.

    P(yes) is the share of yes among yes and no in the first token's probabilities.
    """

    def __init__(self, model: Any, processor: Any, facts: JudgeFacts, device: str = "auto"):
        self.model, self.processor, self.facts = model, processor, facts
        self.device = torch.device(pick_device(device))
        processor.tokenizer.padding_side = "left"  # the answer follows the last token of every row
        self.yes, self.no = (_first_tokens(processor.tokenizer, words) for words in (YES, NO))
        if set(self.yes) & set(self.no):
            raise CrceError(f"The judge {facts.name!r} writes yes and no with the same first token; choose another.")

    @classmethod
    def load(cls, name: str, place: str, device: str = "auto") -> "VlmJudge":
        """name: as it was chosen; place: a folder or a Hub id. Raises CrceError if it cannot be loaded."""
        config = load(place, lambda: AutoConfig.from_pretrained(place, local_files_only=True))
        processor = load(place, lambda: load_processor(place))
        model = load_weights(AutoModelForImageTextToText, place, device)
        prompt = f"{PROMPT}. {RESTRICTION}"
        return cls(model, processor, JudgeFacts(name, version_of(place, config), prompt, THRESHOLD), device)

    def classify(self, images: list[Image], concept: str) -> list[Verdict]:
        self.model.to(self.device)
        shares = in_batches(lambda part: self._ask(part, concept), images, BATCH)
        return [Verdict(share >= self.facts.threshold, share) for share in shares]

    def prepare(self, images: Sequence[Image], concept: str) -> dict[str, Tensor]:
        """The model's inputs: the question about each picture, in the model's precision and on its device."""
        inputs = self.processor(
            text=[self._write(concept)] * len(images),
            images=[image.convert("RGB") for image in images],
            padding=True,
            return_tensors="pt",
        ).to(self.model.device)
        return {name: each.to(self.model.dtype) if each.is_floating_point() else each for name, each in inputs.items()}

    @torch.inference_mode()
    def _ask(self, images: Sequence[Image], concept: str) -> list[float]:
        """P(yes) for each picture."""
        logits = self.model(**self.prepare(images, concept), logits_to_keep=1).logits[:, -1].float()
        yes, no = (logits[:, tokens].logsumexp(dim=-1) for tokens in (self.yes, self.no))
        return torch.sigmoid(yes - no).tolist()

    def _write(self, concept: str) -> str:
        question = {"type": "text", "text": fill(self.facts.prompt, concept)}
        chat = [{"role": "user", "content": [{"type": "image"}, question]}]
        return self.processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)

    def rest(self) -> None:
        self.model.to("cpu")
        free_memory()


def load_processor(place: str) -> Any:
    """The model's processor. Without torchvision AutoProcessor gives a bare tokenizer or fails for Qwen's models."""
    try:
        processor = AutoProcessor.from_pretrained(place, local_files_only=True)
    except (ImportError, AttributeError, ValueError, OSError):
        processor = None
    if hasattr(processor, "image_processor"):
        return processor
    tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
    # The picture's token is written into the text as often as there are patches, as Qwen's models want it.
    if "<|image_pad|>" not in tokenizer.get_vocab():
        raise CrceError(f"The judge {place!r} needs torchvision, in the version that belongs to the installed torch.")
    images = AutoImageProcessor.from_pretrained(place, local_files_only=True)
    return ImageProcessor(images, tokenizer, tokenizer.chat_template)


def _first_tokens(tokenizer: transformers.PreTrainedTokenizerBase, words: Sequence[str]) -> list[int]:
    """The tokens that begin these words; those that are a whole word, if there are any."""
    ids = [tokenizer(word, add_special_tokens=False).input_ids for word in words]
    whole = {i[0] for i in ids if len(i) == 1}
    return sorted(whole or {i[0] for i in ids})
