"""The shipped model back into the build folder, so that a stage goes on from it instead of from nothing."""

import shutil

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextModel

from . import card, judge, language
from .common import MODEL, build_dir, log, save


def unpack() -> None:
    """Copy the model to `former/` (a new denoiser can start from it and learn from it), and write the checkpoints of
    its parts. What is there already stays: a part that is to be made anew needs its checkpoint removed."""
    former = build_dir() / "former"
    if not former.exists():
        shutil.copytree(MODEL, former)
    if not (build_dir() / "pieces").exists():
        shutil.copytree(former / "tokenizer", build_dir() / "pieces")
    for name, state in (("vae", autoencoder), ("judge", looking), ("language", reader), ("unet", denoiser)):
        if not (build_dir() / f"{name}.pt").exists():
            save(state(former), build_dir() / f"{name}.pt")
    log("unpack", former=str(former.name))


def autoencoder(former) -> dict:
    return {"ema": AutoencoderKL.from_pretrained(former / "vae").state_dict(), "step": 0}


def looking(former) -> dict:
    """The judge's checkpoint."""
    tensors = {k: v.float() for k, v in load_file(former / "judge" / "judge.safetensors").items()}
    state = judge.fresh()[0].state_dict()
    state |= {("tower." + k if k != "prototypes" else k): v for k, v in tensors.items()}
    state["scale"] = judge.shipped_scale(former / "judge")
    return {"model": state, "ema": state, "step": 0, "begin": 0, "end": 0}


def reader(former) -> dict:
    """The text encoder's checkpoint. Its map into the teacher's space is not shipped, so it cannot be measured again:
    the card keeps the figures of `figures.json`."""
    pupil = language.Pupil()
    pupil.text.load_state_dict(CLIPTextModel.from_pretrained(former / "text_encoder").state_dict())
    return {"model": pupil.state_dict(), "step": language.STEPS}


def denoiser(former) -> dict:
    state = UNet2DConditionModel.from_pretrained(former / "unet").to(torch.float32).state_dict()
    known = {key: card.last("unet", "seen")[key] for key in ("step", "seen", "read")}
    return {"model": state, "ema": state, "begin": 0, "end": known["step"], **known}
