"""Write assets/emoji-sd/: the pipeline in diffusers layout and in fp16, the judge beside it, and the card."""

import json
import os
import shutil
import warnings

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

from . import card, judge, language, unet, vae
from .common import MODEL, build_dir, load, log
from .sheet import sheet

MINE = {
    "model_index.json",
    "vae",
    "unet",
    "text_encoder",
    "tokenizer",
    "scheduler",
    "judge",
    "README.md",
    "contact-sheet.png",
}


def pipeline() -> StableDiffusionPipeline:
    """The trained parts as a stock pipeline, in half precision."""
    autoencoder = vae.trained()
    autoencoder.register_to_config(scaling_factor=unet.encoded()["scale"])
    # The second half of the encoder's output, the log variance, was never trained: say "no variance".
    channels = autoencoder.config.latent_channels
    autoencoder.quant_conv.weight.data[channels:] = 0
    autoencoder.quant_conv.bias.data[channels:] = -20
    parts = [m.half() for m in (autoencoder, language.trained().text, unet.trained())]
    return StableDiffusionPipeline(
        vae=parts[0],
        text_encoder=parts[1],
        unet=parts[2],
        tokenizer=language.pieces(),
        scheduler=unet.scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def write_judge(folder) -> dict:
    """config.json, judge.safetensors, concepts.json, report.json; as crce.judge reads them."""
    folder.mkdir()
    pair, report = judge.trained(), judge.measure()
    tensors = {k: v.half().contiguous() for k, v in pair.tower.state_dict().items() if "num_batches" not in k}
    counts = {k: v for k, v in pair.tower.state_dict().items() if "num_batches" in k}
    save_file({**tensors, **counts, "prototypes": pair.prototypes.data.half()}, folder / "judge.safetensors")
    config = {
        "tower": {"width": judge.WIDTH, "channels": [48, 64, 128, 192, 208]},
        "scale": float(pair.scale.exp().clamp(max=60)),
        "threshold": report["threshold"],
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    (folder / "report.json").write_text(json.dumps(report, indent=1))
    shutil.copy(build_dir() / "concepts.json", folder / "concepts.json")
    return report


def write_defaults(folder, found: dict) -> None:
    """crce.json: how the model likes to be sampled; what others wrote there stays."""
    path = MODEL / "crce.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    known |= {"guidance": found["guidance"], "sample_steps": found["steps"], "latent_size": 8}
    (folder / "crce.json").write_text(json.dumps(known, indent=1) + "\n")


def pack() -> None:
    """Write everything into a folder of its own, draw with it, and swap it for the old one."""
    fresh, old = MODEL.with_name(".emoji-sd.new"), MODEL.with_name(".emoji-sd.old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    pipeline().save_pretrained(fresh, max_shard_size="14MB")
    # transformers loads in the dtype it finds here, diffusers in float32: both must load the same.
    config = fresh / "text_encoder" / "config.json"
    config.write_text(config.read_text().replace('"float16"', '"float32"'))
    report = write_judge(fresh / "judge")
    done = unet.checkpoint()
    log("unet", **{key: done[key] for key in ("step", "seen", "read")})
    best = load(build_dir() / "sampling.pt") or {"guidance": 4.0, "steps": 20}
    write_defaults(fresh, best)
    unet.contact(fresh / "contact-sheet.png", best["guidance"], best["steps"])
    (fresh / "README.md").write_text(card.card(report, best))
    card.keep()
    check(fresh)
    for path in MODEL.iterdir() if MODEL.exists() else []:  # what is not ours stays: covered.json, say
        if path.name not in MINE and not (fresh / path.name).exists():
            (shutil.copytree if path.is_dir() else shutil.copy)(path, fresh / path.name)
    for path in fresh.rglob("*.safetensors"):  # some writers leave files for their owner alone
        path.chmod(0o644)
    if MODEL.exists():
        os.replace(MODEL, old)
    os.replace(fresh, MODEL)
    shutil.rmtree(old, ignore_errors=True)
    sizes = [p.stat().st_size for p in MODEL.rglob("*") if p.is_file()]
    log(
        "pack",
        step=done["step"],
        megabytes=round(sum(sizes) / 1e6, 2),
        largest=round(max(sizes) / 1e6, 2),
    )


def check(folder) -> None:
    """Stock diffusers loads the folder and draws with it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe = StableDiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    images = pipe(
        ["dog", "horse", "automobile", "santa claus"],
        num_inference_steps=20,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
    ).images
    sheet(images * 2 - 1, 4, build_dir() / "stock.png", 3)
