"""A base model shaped like SD v1.4: its architecture, vocabulary and files as CompVis ships them, with random values.

    python -m benchmarks.sd_shaped FOLDER           860 M values of the U-Net, 2.1 GB in bf16
    python -m benchmarks.sd_shaped FOLDER --tiny    the same files, small enough for a test

It draws noise, but costs what SD v1.4 costs, and is read by the same code. The full one has CLIP's whole vocabulary,
whose merges are taken from PyPI's `open_clip_torch` (1.5 MB, kept in the user's folder); the tiny one has the first
4000 of them, with the same numbers for the words that both know.
"""

import argparse
import gzip
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from crce.files import home

START, END = "<|startoftext|>", "<|endoftext|>"
MERGES = 49152 - 256 - 2  # of CLIP's vocabulary; the file holds more
BPE = "open_clip/bpe_simple_vocab_16e6.txt.gz"
SHORT_MERGES = Path(__file__).with_name("clip_merges.txt")

SCHEDULER = {
    "_class_name": "PNDMScheduler", "_diffusers_version": "0.7.0.dev0", "beta_end": 0.012, "beta_start": 0.00085,
    "beta_schedule": "scaled_linear", "num_train_timesteps": 1000, "set_alpha_to_one": False, "skip_prk_steps": True,
    "steps_offset": 1, "trained_betas": None, "clip_sample": False,
}  # fmt: skip
UNET = {
    "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.2.2", "act_fn": "silu", "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280], "center_input_sample": False, "cross_attention_dim": 768,
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"], "downsample_padding": 1,
    "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": 4, "layers_per_block": 2, "mid_block_scale_factor": 1,
    "norm_eps": 1e-05, "norm_num_groups": 32, "out_channels": 4, "sample_size": 64,
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
}  # fmt: skip
VAE = {
    "_class_name": "AutoencoderKL", "_diffusers_version": "0.2.2", "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512], "down_block_types": ["DownEncoderBlock2D"] * 4, "in_channels": 3,
    "latent_channels": 4, "layers_per_block": 2, "out_channels": 3, "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}  # fmt: skip
# The bos, eos and pad of this file are not those of the vocabulary; CompVis ships it so.
TEXT_ENCODER = {
    "_name_or_path": "openai/clip-vit-large-patch14", "architectures": ["CLIPTextModel"], "attention_dropout": 0.0,
    "bos_token_id": 0, "dropout": 0.0, "eos_token_id": 2, "hidden_act": "quick_gelu", "hidden_size": 768,
    "initializer_factor": 1.0, "initializer_range": 0.02, "intermediate_size": 3072, "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77, "model_type": "clip_text_model", "num_attention_heads": 12,
    "num_hidden_layers": 12, "pad_token_id": 1, "torch_dtype": "float32", "transformers_version": "4.21.0.dev0",
}  # fmt: skip
PARTS = {
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
FEATURES = {
    "crop_size": 224, "do_center_crop": True, "do_convert_rgb": True, "do_normalize": True, "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "size": 224,
}  # fmt: skip
# What the attention of the VAE was called when CompVis's file was written.
FORMER = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}


@dataclass(frozen=True)
class Size:
    """What of the configurations differs from SD v1.4's."""

    unet: dict[str, Any]
    vae: dict[str, Any]
    text_encoder: dict[str, Any]


FULL = Size({}, {}, {})
# For a U-Net of an older version than 0.9, diffusers takes every sample_size below 64 for a mistake.
TINY = Size(
    {"_diffusers_version": "0.9.0", "block_out_channels": [32, 32, 64, 64], "cross_attention_dim": 64,
     "sample_size": 8, "attention_head_dim": 4},
    {"block_out_channels": [32, 32, 32, 32], "sample_size": 64},
    {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
)  # fmt: skip


def save_sd_shaped(
    folder: Path, size: Size, merges: list[str], dtypes: Iterable[torch.dtype] = (torch.float32,), seed: int = 0
) -> None:
    """Writes the base to `folder`, the same at every call.

    merges: lines of CLIP's BPE file. dtypes: of the weights' files; that of fp16 is the variant "fp16", as on the Hub.
    """
    kinds = tuple(dtypes)
    save_tokenizer(folder / "tokenizer", merges)
    pipeline = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.2.2"}
    _write(folder / "model_index.json", pipeline | PARTS)
    _write(folder / "scheduler" / "scheduler_config.json", SCHEDULER)
    _write(folder / "feature_extractor" / "preprocessor_config.json", FEATURES)
    # Its 1.2 GB of weights are left out: nothing here may load them.
    checker = {"architectures": ["StableDiffusionSafetyChecker"], "model_type": "clip"}
    _write(folder / "safety_checker" / "config.json", checker)
    torch.manual_seed(seed)
    _save_unet(folder / "unet", UNET | size.unet, kinds)
    _save_vae(folder / "vae", VAE | size.vae, kinds)
    vocabulary = {"vocab_size": len(vocabulary_of(merges))}
    _save_text_encoder(folder / "text_encoder", TEXT_ENCODER | size.text_encoder | vocabulary, kinds)


def vocabulary_of(merges: list[str]) -> list[str]:
    """CLIP's words in the order of their numbers: bytes, bytes at the end of a word, merges, the two marks."""
    letters = sorted(ByteLevel.alphabet())
    return [*letters, *(f"{letter}</w>" for letter in letters), *("".join(m.split()) for m in merges), START, END]


def save_tokenizer(folder: Path, merges: list[str]) -> None:
    _write(folder / "vocab.json", {word: number for number, word in enumerate(vocabulary_of(merges))})
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    mark = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    ends = {name: mark | {"content": word} for name, word in (("bos_token", START), ("eos_token", END))}
    ends |= {"unk_token": mark | {"content": END}}
    added = {name: token | {"__type": "AddedToken"} for name, token in ends.items()}
    _write(folder / "special_tokens_map.json", {**ends, "pad_token": END})
    _write(
        folder / "tokenizer_config.json",
        {"add_prefix_space": False, "do_lower_case": True, "errors": "replace", "model_max_length": 77,
         "name_or_path": TEXT_ENCODER["_name_or_path"], "pad_token": END, "tokenizer_class": "CLIPTokenizer",
         "special_tokens_map_file": "./special_tokens_map.json", **added},
    )  # fmt: skip


def short_merges() -> list[str]:
    """The first 4000 merges, which come with the repository."""
    return SHORT_MERGES.read_text(encoding="utf-8").splitlines()[1:]


def all_merges() -> list[str]:
    """All of CLIP's merges, downloaded once. Raises CalledProcessError without a package registry."""
    folder = home() / "sd-shaped"
    if not list(folder.glob("open_clip_torch-*.whl")):
        command = ["pip", "download", "--quiet", "--no-deps", "--dest", str(folder), "open_clip_torch"]
        subprocess.run([sys.executable, "-m", *command], check=True)
    wheel = next(folder.glob("open_clip_torch-*.whl"))
    with zipfile.ZipFile(wheel) as files:
        lines = gzip.decompress(files.read(BPE)).decode().split("\n")
    return lines[1 : MERGES + 1]


def _save_unet(folder: Path, config: dict, kinds: tuple[torch.dtype, ...]) -> None:
    _write(folder / "config.json", config)
    _save(folder / "diffusion_pytorch_model", _tensors(UNet2DConditionModel(**_plain(config))), kinds)


def _save_vae(folder: Path, config: dict, kinds: tuple[torch.dtype, ...]) -> None:
    _write(folder / "config.json", config)
    tensors = _tensors(AutoencoderKL(**_plain(config)))
    _save(folder / "diffusion_pytorch_model", {_former_name(name): t for name, t in tensors.items()}, kinds)


def _save_text_encoder(folder: Path, config: dict, kinds: tuple[torch.dtype, ...]) -> None:
    _write(folder / "config.json", config)
    about = ("architectures", "model_type", "torch_dtype", "transformers_version")
    model = CLIPTextModel(CLIPTextConfig(**{k: v for k, v in _plain(config).items() if k not in about}))
    prefix = "text_model."
    tensors = {prefix + name.removeprefix(prefix): tensor for name, tensor in _tensors(model).items()}
    # CompVis's file still has the positions, which newer classes make themselves.
    positions = {f"{prefix}embeddings.position_ids": torch.arange(config["max_position_embeddings"])[None]}
    _save(folder / "model", tensors | positions, kinds)


def _tensors(model: Any) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if "position_ids" not in name}


def _former_name(name: str) -> str:
    for new, old in FORMER.items():
        name = name.replace(new, old) if ".attentions.0." in name else name
    return name


def _save(path: Path, tensors: dict[str, Tensor], kinds: tuple[torch.dtype, ...]) -> None:
    for kind in kinds:
        variant = ".fp16" if kind == torch.float16 else ""
        cast = {name: t.to(kind).contiguous() if t.is_floating_point() else t for name, t in tensors.items()}
        save_file(cast, path.with_name(f"{path.name}{variant}.safetensors"), {"format": "pt"})


def _plain(config: dict) -> dict:
    return {name: value for name, value in config.items() if not name.startswith("_")}


def _write(path: Path, value: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tiny", action="store_true")
    asked = parser.parse_args()
    if asked.tiny:
        save_sd_shaped(asked.folder, TINY, short_merges(), (torch.float32, torch.float16))
    else:
        save_sd_shaped(asked.folder, FULL, all_merges(), (torch.bfloat16,))
    size = sum(path.stat().st_size for path in asked.folder.rglob("*") if path.is_file())
    print(f"{asked.folder}: {size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
