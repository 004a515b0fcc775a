"""A real Stable Diffusion, too small to draw anything: real classes, random weights, a byte-level tokenizer."""

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from crce.judges.embedded import ImageEncoder
from crce.models.diffusion import Diffusion

STATES = 32


def save_tiny_sd(folder: Path) -> None:
    """Writes a pipeline of 16×16 pictures (2×2 latents) and a judge to `folder`, the same at every call."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer(folder)
    pipeline = StableDiffusionPipeline(
        vae=_vae(), unet=_unet(), text_encoder=_text_encoder(tokenizer), tokenizer=tokenizer, scheduler=_scheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    _save_settings(folder)
    save_tiny_judge(folder)


def save_tiny_sd_2(folder: Path) -> None:
    """As Stable Diffusion 2.1 differs: v-prediction, linear projections, a head size for each block."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer(folder)
    unet = _unet(use_linear_projection=True, attention_head_dim=(2, 4))
    StableDiffusionPipeline(
        vae=_vae(), unet=unet, text_encoder=_text_encoder(tokenizer), tokenizer=tokenizer,
        scheduler=_scheduler(prediction_type="v_prediction"), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    _save_settings(folder)


def save_tiny_xl(folder: Path) -> None:
    """A pipeline of Stable Diffusion XL with pictures of 16×16: text of 32 + 16 wide, a pooled state of 12."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer(folder)
    second = CLIPTextModelWithProjection(
        _text_config(tokenizer, hidden_size=16, projection_dim=12, num_hidden_layers=3)
    )
    unet = _unet(
        use_linear_projection=True, transformer_layers_per_block=(1, 2), cross_attention_dim=STATES + 16,
        addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=6 * 4 + 12,
    )  # fmt: skip
    StableDiffusionXLPipeline(
        vae=_vae(), unet=unet, text_encoder=_text_encoder(tokenizer), text_encoder_2=second, tokenizer=tokenizer,
        tokenizer_2=tokenizer, scheduler=_scheduler(), add_watermarker=False,
    ).save_pretrained(folder)  # fmt: skip
    _save_settings(folder)


def _save_settings(folder: Path) -> None:
    settings = {"guidance": 3.0, "sample_steps": 4, "erase_steps": 6, "lr": 1e-3, "methods": {}}
    (folder / "crce.json").write_text(json.dumps(settings))


def felt(model: Diffusion, names: Iterable[str]) -> set[str]:
    """Those of the U-Net's weights that a prediction depends on, found by shaking each. Training must move these, on
    every processor; the gradient of the others is zero, but for the noise that some processors make of it.
    """
    parameters, rng = dict(model.unet.named_parameters()), torch.Generator().manual_seed(0)
    asked = model.noise([0, 1]), torch.tensor([500, 500]), model.embed(["dog", "a cat"])
    with torch.no_grad():
        still = model.predict(*asked)

        def far(name: str) -> float:
            weight = parameters[name]
            shaken = weight + 0.1 * torch.randn(weight.shape, generator=rng)
            return ((model.predict(*asked, {name: shaken}) - still).abs().max() / still.abs().max()).item()

        # Rounding does a hundredth of that, and the weakest weight that counts several times as much.
        return {name for name in names if far(name) > 1e-4}


def save_tiny_judge(folder: Path) -> None:
    """A judge of random weights beside the model: its answers mean nothing, its road is the real one."""
    torch.manual_seed(0)
    shape = {"width": 8, "channels": [4, 6, 8]}
    leaves = ["dog", "cat", "wolf", "fox", "pig"]
    judge = folder / "judge"
    judge.mkdir()
    tensors = {**ImageEncoder(**shape).state_dict(), "prototypes": torch.randn(len(leaves), 8)}
    save_file(tensors, judge / "judge.safetensors")
    terms = {leaf: [i] for i, leaf in enumerate(leaves)} | {"puppy": [0], "guide dog": [0], "dog (animal)": [0]}
    (judge / "concepts.json").write_text(json.dumps({"leaves": leaves, "terms": terms}))
    (judge / "config.json").write_text(json.dumps({"tower": shape, "scale": 5.0, "threshold": 0.3}))


def tiny_tokenizer(folder: Path) -> CLIPTokenizer:
    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    vocab = {word: i for i, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77)


def _text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(_text_config(tokenizer))


def _text_config(tokenizer: CLIPTokenizer, **options) -> CLIPTextConfig:
    shape = {"hidden_size": STATES, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
    return CLIPTextConfig(
        vocab_size=len(tokenizer), max_position_embeddings=77, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, **{**shape, **options},
    )  # fmt: skip


def _unet(**options) -> UNet2DConditionModel:
    return UNet2DConditionModel(**{
        "sample_size": 2, "in_channels": 4, "out_channels": 4, "block_out_channels": (8, 16), "layers_per_block": 1,
        "norm_num_groups": 4, "attention_head_dim": 4, "cross_attention_dim": STATES,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), **options,
    })  # fmt: skip


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(8, 8, 8, 8), norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, sample_size=16,
    )  # fmt: skip


def _scheduler(**options) -> DDIMScheduler:
    return DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
                         set_alpha_to_one=False, steps_offset=1, **options)  # fmt: skip
