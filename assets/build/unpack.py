"""The shipped model back into the build folder, so that a stage goes on from it instead of from nothing."""

import shutil

from diffusers import AutoencoderKL
from safetensors.torch import load_file

from . import judge
from .common import MODEL, build_dir, log, save


def unpack() -> None:
    """Copy the model to `former/` (the denoiser starts from it and learns from it), and write the checkpoints of the
    autoencoder and the judge. What is there already stays."""
    former = build_dir() / "former"
    if not former.exists():
        shutil.copytree(MODEL, former)
    if not (build_dir() / "vae.pt").exists():
        save({"ema": AutoencoderKL.from_pretrained(former / "vae").state_dict(), "step": 0}, build_dir() / "vae.pt")
    if not (build_dir() / "judge.pt").exists():
        tensors = {k: v.float() for k, v in load_file(former / "judge" / "judge.safetensors").items()}
        state = judge.fresh()[0].state_dict()
        state |= {("tower." + k if k != "prototypes" else k): v for k, v in tensors.items()}
        state["scale"] = judge.shipped_scale(former / "judge")
        save({"model": state, "ema": state, "step": 0, "begin": 0, "end": 0}, build_dir() / "judge.pt")
    log("unpack", former=str(former.name))
