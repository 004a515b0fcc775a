"""Judges of the real classes, too small to know anything, and taught in seconds that red pictures show a dog."""

import json
from pathlib import Path

import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, PreTrainedTokenizerFast, Qwen2VLImageProcessorPil

from crce.judges import clip
from crce.judges.judge import PROMPT, RESTRICTION, fill
from crce.judges.vlm import VlmJudge
from tests.tiny import tiny_tokenizer

# The part of Qwen's template that a question about one picture needs.
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
           "<|video_pad|>"]  # fmt: skip
MROPE = {"type": "mrope", "mrope_section": [1, 1, 2], "rope_type": "default"}
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 1024}  # fmt: skip
SEES = {"depth": 2, "num_heads": 2, "spatial_merge_size": 2, "temporal_patch_size": 2, "in_channels": 3}
# For each kind: its class, what its text part and its eye have of their own, and the side of a patch.
KINDS: dict[str, tuple[str, dict, dict]] = {
    "Qwen2VL": (
        "Qwen2VL", {"rope_scaling": MROPE},
        {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2, "patch_size": 14},
    ),
    "Qwen2_5_VL": (
        "Qwen2_5_VL", {"rope_scaling": MROPE},
        {"hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 64, "patch_size": 14, "window_size": 56,
         "fullatt_block_indexes": [1]},
    ),
    "Qwen3VL": (
        "Qwen3VL", {"head_dim": 8, "rope_scaling": {**MROPE, "mrope_interleaved": True}},
        {"hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 64, "patch_size": 16,
         "num_position_embeddings": 64, "deepstack_visual_indexes": [0]},
    ),
}  # fmt: skip


def plain(colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", (56, 56), colour)


RED, BLUE = plain((220, 20, 20)), plain((20, 20, 220))


def save_tiny_vlm(folder: Path, kind: str = "Qwen2VL") -> None:
    """Writes a model of this kind, laid out as on the Hub, that says yes to red pictures and no to blue ones."""
    torch.manual_seed(0)
    tokenizer = _tokenizer()
    model = _model(kind, tokenizer)
    images = Qwen2VLImageProcessorPil(
        min_pixels=28 * 28, max_pixels=112 * 112, patch_size=model.config.vision_config.patch_size
    )
    for part in (images, tokenizer, model):
        part.save_pretrained(folder)
    # On the Hub the files name the processor that also wants videos.
    settings = folder / "preprocessor_config.json"
    named = {**json.loads(settings.read_text()), "processor_class": f"{kind}Processor"}
    settings.write_text(json.dumps(named))
    judge = VlmJudge.load(kind, str(folder), "cpu")
    _teach(judge)
    judge.model.save_pretrained(folder)


def _tokenizer() -> PreTrainedTokenizerFast:
    """Bytes and a few words: yes and no are one token each."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=SPECIAL, initial_alphabet=letters, show_progress=False)
    bpe.train_from_iterator(["yes", "no", "Yes", "No", fill(PROMPT, "dog"), RESTRICTION] * 50, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=TEMPLATE
    )


def _model(kind: str, tokenizer: PreTrainedTokenizerFast) -> torch.nn.Module:
    name, text, eye = KINDS[kind]
    names = {"image": "<|image_pad|>", "video": "<|video_pad|>", "vision_start": "<|vision_start|>",
             "vision_end": "<|vision_end|>"}  # fmt: skip
    ids = {f"{part}_token_id": tokenizer.convert_tokens_to_ids(token) for part, token in names.items()}
    words = {"vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0}
    config = getattr(transformers, f"{name}Config")(
        text_config={**SMALL, **words, **text}, vision_config={**SEES, **eye}, tie_word_embeddings=False, **ids
    )
    return getattr(transformers, f"{name}ForConditionalGeneration")(config)


def _teach(judge: VlmJudge) -> None:
    """Red shows a dog, blue does not."""
    model = judge.model.train().requires_grad_(True)
    adam, dice = torch.optim.Adam(model.parameters(), 1e-2), torch.Generator().manual_seed(0)
    for _ in range(80):
        red, pictures = _draw_lesson(dice)
        logits = model(**judge.prepare(pictures, "dog"), logits_to_keep=1).logits[:, -1]
        right = torch.where(red, judge.yes[0], judge.no[0])
        torch.nn.functional.cross_entropy(logits, right).backward()
        adam.step()
        adam.zero_grad()
    model.eval()


def _draw_lesson(dice: torch.Generator) -> tuple[torch.Tensor, list[Image.Image]]:
    """Eight pictures in shades of red and blue, and which of them are red."""
    red = torch.rand(8, generator=dice) > 0.5
    shades = torch.randint(180, 256, (8,), generator=dice).tolist()
    both = zip(red.tolist(), shades, strict=True)
    return red, [plain((shade, 0, 0) if is_red else (0, 0, shade)) for is_red, shade in both]


def save_tiny_clip(folder: Path) -> None:
    """Writes a CLIP to which a red picture is a dog and a blue one is a cat."""
    torch.manual_seed(0)
    tokenizer, images = tiny_tokenizer(folder), CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=16)
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    words = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, **ends}
    eye = {**small, "image_size": 16, "patch_size": 8}
    model = CLIPModel(CLIPConfig(text_config={**small, **words}, vision_config=eye, projection_dim=16))
    adam, dice = torch.optim.Adam(model.parameters(), 3e-3), torch.Generator().manual_seed(0)
    texts = tokenizer([fill(clip.PROMPT, name) for name in ("cat", "dog")], padding=True, return_tensors="pt")
    for _ in range(60):
        red, pictures = _draw_lesson(dice)
        pixels = images(images=pictures, return_tensors="pt")["pixel_values"]
        likeness = model(texts["input_ids"], pixels, texts["attention_mask"]).logits_per_image
        torch.nn.functional.cross_entropy(likeness, red.long()).backward()
        adam.step()
        adam.zero_grad()
    for part in (model, tokenizer, images):
        part.save_pretrained(folder)
