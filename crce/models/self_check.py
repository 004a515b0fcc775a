"""Whether a base works at all, asked once when it is loaded: what does not fit is one clear error at that time."""

from pathlib import Path

import torch
from diffusers import DDIMScheduler

from crce.errors import CrceError
from crce.models.diffusion import Diffusion, first_line
from crce.models.memory import is_out_of_memory

SIDE = 8  # latent pixels of the picture that is tried: as good as a whole one, and cheap
PREDICTIONS = ("epsilon", "v_prediction")
_SAVED = {"fp16": ('variant="fp16"', "only the half-precision variant"), "bin": ("use_safetensors=False", "only .bin")}


def check_files(base: str, folder: Path, pipeline: str) -> None:
    """Raises CrceError for a part that has no safetensors file in full precision, and says how to save one."""
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        names = [path.name for path in (folder / part).glob("*") if path.suffix in (".safetensors", ".bin")]
        whole = [name for name in names if name.endswith(".safetensors") and ".fp16." not in name]
        if names and not whole:
            option, what = _SAVED["fp16" if any(".fp16." in name for name in names) else "bin"]
            raise CrceError(
                f"{base!r} holds {what} files of its {part}. Save it anew and use the new folder: "
                f'{pipeline}.from_pretrained({base!r}, {option}).save_pretrained("new-folder").'
            )


def check_base(model: Diffusion) -> None:
    """Raises CrceError for a base that cannot be sampled or trained on: its parts do not fit each other, or its
    predictions or pictures are no finite numbers."""
    _check_channels(model)
    _check_schedule(model)
    try:
        found = _try(model)
    except (RuntimeError, ValueError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        raise CrceError(f"The parts of {model.base!r} do not fit each other: {first_line(error)}") from error
    for what, tensor in found.items():
        if not tensor.isfinite().all():
            name = str(model.dtype).removeprefix("torch.")
            raise CrceError(f"A {what} of {model.base!r} has values that are no finite numbers in {name}. "
                            "Use fp32 or, on a GPU, bf16; if it already is, its files are damaged.")  # fmt: skip


def _check_channels(model: Diffusion) -> None:
    reads, gives, latent = (
        model.unet.config.in_channels, model.unet.config.out_channels, model.vae.config.latent_channels
    )  # fmt: skip
    if not reads == gives == latent:
        raise CrceError(
            f"The U-Net of {model.base!r} reads {reads} channels and gives {gives}, and its pictures have {latent}: "
            "a model for inpainting or for another task. Choose one that draws pictures from text alone."
        )
    if getattr(model.vae.config, "latents_mean", None) is not None:
        raise CrceError(f"The pictures of {model.base!r} are scaled by channel (latents_mean), which is not supported.")


def _check_schedule(model: Diffusion) -> None:
    kind = model.schedule.get("prediction_type", PREDICTIONS[0])
    if kind not in PREDICTIONS:
        raise CrceError(f"{model.base!r} predicts {kind!r}; only {' and '.join(PREDICTIONS)} can be sampled.")
    scheduler = DDIMScheduler.from_config(model.schedule, clip_sample=False)
    scheduler.set_timesteps(min(model.defaults.sample_steps, scheduler.config.num_train_timesteps // 2))
    if kind == PREDICTIONS[0] and scheduler.alphas_cumprod[scheduler.timesteps[0]] < 1e-8:
        raise CrceError(
            f"The schedule of {model.base!r} begins at pure noise (rescale_betas_zero_snr), from which a model that "
            "predicts noise cannot start. Set prediction_type to v_prediction if it is one, or turn the rescaling off."
        )


@torch.no_grad()
def _try(model: Diffusion) -> dict[str, torch.Tensor]:
    """One prediction and one picture, of a small latent."""
    x = model.noise([0])[:, :, :SIDE, :SIDE]
    prediction = model.predict(x, torch.full((1,), 500, device=model.device), model.embed([""]))
    return {"prediction": prediction, "picture": model.decode(x)}
