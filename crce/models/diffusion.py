"""A latent diffusion model and what we do with it: embed text, predict noise, sample, draw."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from torch import Tensor
from torch.func import functional_call

from crce import bases, devices, downloads, tensor_files
from crce.base_version import find_digest
from crce.errors import CrceError
from crce.models.conditioning import TextConditioning, TextConditioningXL
from crce.models.memory import Parts

# Loading takes a moment and has its own line in our progress; bars in between are noise.
diffusers_logging.disable_progress_bar()
transformers.logging.disable_progress_bar()

PIPELINES = {pipeline.__name__: pipeline for pipeline in (StableDiffusionPipeline, StableDiffusionXLPipeline)}
# What else a pipeline would load or need, and we do not.
_FURTHER: dict[str, dict[str, Any]] = {
    "StableDiffusionPipeline": {"safety_checker": None, "requires_safety_checker": False},
    "StableDiffusionXLPipeline": {"image_encoder": None, "add_watermarker": False},
}
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}

# Latent pixels drawn in one batch: 64 pictures of the 8×8 default model, one of SD v1.4.
BATCH_AREA = {"cpu": 4096, "cuda": 65536, "meta": 4096}
# Latent pixels decoded at once on a GPU, where the VAE's first layers of 512×512 take more than the U-Net.
DECODE_AREA = 16384


@dataclass(frozen=True)
class NoisySample:
    """Latents x_t [n, C, H, W] at timesteps t [n], and both predictions of the frozen model for them."""

    x: Tensor
    t: Tensor
    e_c: Tensor
    e_0: Tensor

    @classmethod
    def join(cls, samples: list["NoisySample"]) -> "NoisySample":
        return cls(*(torch.cat([getattr(sample, f.name) for sample in samples]) for f in fields(cls)))

    def to(self, device: str | torch.device) -> "NoisySample":
        return NoisySample(*(getattr(self, f.name).to(device) for f in fields(self)))

    def at(self, *indices: int) -> "NoisySample":
        """These rows, in this order."""
        return NoisySample(*(getattr(self, f.name)[list(indices)] for f in fields(self)))


class Diffusion:
    """The frozen base model. Its weights are never changed on disk, and in memory only by `ErasedWeights.applied`.

    The networks run in `dtype`; latents, text states and predictions between them are fp32. A prediction is what the
    U-Net gives, ε or v.
    """

    def __init__(self, pipeline: Any, base: str, device: str, dtype: torch.dtype):
        self.base, self.device, self.dtype = base, torch.device(device), dtype
        # Of the files as they are now: they may change while the model is in memory.
        self.digest = find_digest(base)
        parts = pipeline.components
        self.unet, self.vae = (parts[name].to(self.device).eval().requires_grad_(False) for name in ("unet", "vae"))
        if "text_encoder_2" in parts:
            zeros = bool(pipeline.config.get("force_zeros_for_empty_prompt"))
            scale = 2 ** (len(self.vae.config.block_out_channels) - 1)
            size = self.latent_shape[1] * scale, self.latent_shape[2] * scale
            self.text: TextConditioning = TextConditioningXL(parts, self.device, size, zeros)
            # SDXL's decoder overflows in fp16.
            self.vae = self.vae.float() if self.vae.config.force_upcast else self.vae
        else:
            self.text = TextConditioning(parts, self.device)
        self.tokenizer, self.text_encoder = self.text.tokenizers[0], self.text.encoders[0]
        # SD v1.4 ships PNDM, whose schedule repeats a timestep; every paper here samples with DDIM.
        self.schedule = parts["scheduler"].config
        self.defaults = bases.defaults(base)
        # The prompts of the rows that are being drawn, for adapters that are gated by them.
        self.drawing: tuple[str, ...] = ()
        self._states: dict[str, Tensor] = {}
        # Rows that fit at once where no gradient is needed, found out when memory runs out.
        area = self.latent_shape[1] * self.latent_shape[2]
        self._predicting = Parts()
        self._decoding = Parts(max(1, DECODE_AREA // area) if self.device.type == "cuda" else None)

    @classmethod
    def load(cls, base: str = bases.EMOJI_SD, device: str = "auto", dtype: str = "auto") -> "Diffusion":
        """Loads a diffusers Stable Diffusion 1.x, 2.x or XL from a folder, or from the local cache of the Hub
        (`crce.downloads`).

        Raises CrceError if it cannot, for a base that has to be downloaded first, for a pipeline of another kind before
        more than its index is read, and for one that does not work (`self_check`).
        """
        from crce.models.self_check import check_base, check_files

        device = pick_device(device)
        kind = pick_dtype(dtype, device)
        try:
            folder, variant = downloads.require(base, NAMES[kind])
            name = StableDiffusionPipeline.load_config(folder)["_class_name"]
            bases.check_class(name, base)
            if variant is None:
                check_files(base, Path(folder), name)
            pipeline = PIPELINES[name].from_pretrained(
                folder, dtype=kind, variant=variant, feature_extractor=None, use_safetensors=True,
                low_cpu_mem_usage=False, local_files_only=True, **_FURTHER[name],
            )  # fmt: skip
        except CrceError:
            raise
        except Exception as error:  # a folder or a Hub can be wrong in more ways than diffusers names
            raise CrceError(
                f"The base model {base!r} could not be loaded: {first_line(error)} "
                "Give a folder saved by a diffusers pipeline, or download it again."
            ) from error
        model = cls(pipeline, base, device, kind)
        check_base(model)
        return model

    @property
    def networks(self) -> list[torch.nn.Module]:
        return [self.unet, *self.text.encoders, self.vae]

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """[C, H, W] of the latents."""
        size = self.unet.config.sample_size
        if size is None:  # then the autoencoder says how large pictures are
            size = self.vae.config.sample_size // 2 ** (len(self.vae.config.block_out_channels) - 1)
        height, width = (size, size) if isinstance(size, int) else size
        return self.unet.config.in_channels, height, width

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the U-Net's weights: what was measured on this base belongs to these."""
        digest = hashlib.sha256()
        for weight in self.unet.state_dict().values():
            digest.update(weight.cpu().float().numpy().tobytes())
        return digest.hexdigest()

    @property
    def covered_file(self) -> Path:
        """What the base draws, measured (see `evaluation.coverage`), beside the model's other files."""
        return bases.covered_file(self.base)

    def masters(self, names: Iterable[str]) -> dict[str, Tensor]:
        """The named weights of the U-Net in fp32, as its files have them: fp16 and bf16 networks have rounded them.

        What training starts from must be exact, for what it changes is often smaller than that rounding.
        """
        parameters = dict(self.unet.named_parameters())
        folder = Path(self.unet.config.get("_name_or_path") or "none")
        if self.dtype == torch.float32 or not folder.is_dir():
            return {name: parameters[name].detach().float() for name in names}
        stored = tensor_files.read_all(folder)
        return {name: torch.from_numpy(stored[name].load()).to(self.device) for name in names}

    def embed(self, prompts: list[str]) -> Tensor:
        """The prompts' text states [n, L, d], each prompt encoded once and kept (see `conditioning`)."""
        missing = [p for p in dict.fromkeys(prompts) if p not in self._states]
        # First all, so that a prompt that is too long costs nothing. Then each alone: in a batch some processors round
        # otherwise, and a run's result would depend on what else was asked of the model.
        for prompt in missing:
            self._check_length(prompt)
        with torch.no_grad():
            self._states |= {prompt: self.text.encode(prompt) for prompt in missing}
        return torch.stack([self._states[p] for p in prompts])

    def _check_length(self, prompt: str) -> None:
        limit, count = self.tokenizer.model_max_length, len(self.tokenizer(prompt).input_ids)
        if count > limit:
            raise CrceError(f"{prompt[:80]!r} has {count} tokens, and {self.base} reads {limit}. Shorten it.")

    @cached_property
    def unconditional(self) -> Tensor:
        """The text states [L, d] that classifier-free guidance moves away from."""
        with torch.no_grad():
            return self.text.unconditional()

    def predict(self, x: Tensor, t: Tensor, states: Tensor, weights: dict[str, Tensor] | None = None) -> Tensor:
        """ε_θ(x_t, c, t), or v [n, C, H, W]. `weights` replace the base's by name: the tuned model without a copy.

        Without a gradient it goes on with fewer rows at once where memory runs out.
        """
        if torch.is_grad_enabled():
            return self._predict(x, t, states, weights)

        def predict_rows(rows: slice) -> Tensor:
            drawn = [self.drawing[i % len(self.drawing)] for i in range(len(x))[rows]] if self.drawing else []
            whole = rows == slice(0, len(x))
            with nullcontext() if whole else self._drawing(drawn):
                return self._predict(x[rows], t[rows], states[rows], weights)

        return self._predicting.run(predict_rows, len(x))

    def _predict(self, x: Tensor, t: Tensor, states: Tensor, weights: dict[str, Tensor] | None) -> Tensor:
        tuned = {name: weight.to(self.dtype) for name, weight in (weights or {}).items()}
        text, further = self.text.inputs(states, self.dtype)
        options = {"return_dict": False, **further}
        return functional_call(self.unet, tuned, (x.to(self.dtype), t, text), options)[0].float()

    def noise(self, seeds: list[int]) -> Tensor:
        """x_T [n, C, H, W], each from its own seed and always drawn on the CPU: the same on every device."""
        drawn = [torch.randn(self.latent_shape, generator=torch.Generator().manual_seed(s)) for s in seeds]
        return torch.stack(drawn).to(self.device)

    @torch.no_grad()
    def denoise(self, x: Tensor, states: Tensor, steps: int, guidance: float) -> Iterator[tuple[NoisySample, Tensor]]:
        """DDIM with classifier-free guidance from x_T [n, C, H, W]: each sample with the next latents, x_0 at last."""
        scheduler = DDIMScheduler.from_config(self.schedule, clip_sample=False)
        scheduler.set_timesteps(steps)
        both = torch.cat([self.unconditional.expand_as(states), states])
        for t in scheduler.timesteps.tolist():
            sample = self._predict_both(x, t, both)
            e = sample.e_0 + guidance * (sample.e_c - sample.e_0)
            x = scheduler.step(e, t, x, return_dict=False)[0]
            yield sample, x

    def _predict_both(self, x: Tensor, t: int, both: Tensor) -> NoisySample:
        """Both predictions in one batch, as classifier-free guidance needs them."""
        times = torch.full((len(x),), t, device=self.device)
        e_0, e_c = self.predict(torch.cat([x, x]), times.repeat(2), both).chunk(2)
        return NoisySample(x, times, e_c, e_0)

    @torch.no_grad()
    def decode(self, x: Tensor) -> Tensor:
        """Latents x_0 [n, C, H, W] to pictures [n, 3, h, w] in 0 … 1, some at a time where memory is short."""
        return self._decoding.run(lambda rows: self._decode(x[rows]), len(x))

    def _decode(self, x: Tensor) -> Tensor:
        scale, shift = self.vae.config.scaling_factor, self.vae.config.shift_factor or 0.0
        pictures = self.vae.decode((x / scale + shift).to(self.vae.dtype), return_dict=False)[0]
        return (pictures.float() / 2 + 0.5).clamp(0, 1)

    def draw(self, prompts: list[str], seeds: list[int], steps: int, guidance: float,
             progress: Callable[[int, int], None] | None = None) -> Tensor:  # fmt: skip
        """One picture for each pair (prompts[i], seeds[i]) as [n, 3, h, w] in 0 … 1 on the model's device."""
        area = self.latent_shape[1] * self.latent_shape[2]
        size = max(1, BATCH_AREA[self.device.type] // area)
        pictures = []
        for start in range(0, len(prompts), size):
            part = slice(start, start + size)
            with self._drawing(prompts[part]):
                *_, (_, x_0) = self.denoise(self.noise(seeds[part]), self.embed(prompts[part]), steps, guidance)
            pictures.append(self.decode(x_0))
            if progress:
                progress(min(start + size, len(prompts)), len(prompts))
        return torch.cat(pictures)

    @contextmanager
    def _drawing(self, prompts: list[str]) -> Iterator[None]:
        before, self.drawing = self.drawing, tuple(prompts)
        try:
            yield
        finally:
            self.drawing = before

    def generate(
        self, prompt: str, seed: int = 0, *, steps: int | None = None, guidance: float | None = None
    ) -> Image.Image:
        """One picture of the prompt; the same seed gives the same picture on every device."""
        return self.generate_batch([prompt], [seed], steps, guidance)[0]

    def generate_batch(
        self,
        prompts: list[str],
        seeds: list[int],
        steps: int | None = None,
        guidance: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Image.Image]:
        """A picture for each pair (prompts[i], seeds[i]).

        steps, guidance: sampling steps and classifier-free guidance; the base's own unless given.
        progress: called with the pictures done and wanted, after each batch.
        """
        steps = steps or self.defaults.sample_steps
        guidance = self.defaults.guidance if guidance is None else guidance
        return to_images(self.draw(prompts, seeds, steps, guidance, progress))


def to_images(pictures: Tensor) -> list[Image.Image]:
    """Pictures [n, 3, h, w] in 0 … 1 to PIL. Raises CrceError for values that are no numbers: they would be black."""
    if not pictures.isfinite().all():
        raise CrceError(
            "A picture has values that are no finite numbers, so it cannot be shown. Use fp32 or bf16 instead of fp16, "
            "or train with a lower learning rate."
        )
    pixels = (pictures * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(p) for p in pixels]


def pick_device(device: str) -> str:
    """ "auto" is the first CUDA device where there is one. Raises CrceError for one that is not there."""
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return "cuda" if cards else "cpu"
    kind, _, number = device.partition(":")
    if kind not in BATCH_AREA or not (number or "0").isdigit():
        raise CrceError(f"There is no device {device!r}. Use auto, cpu, cuda or cuda:0, cuda:1, ….")
    if kind == "cuda" and int(number or 0) >= cards:
        raise CrceError(describe_missing(device, cards))
    return device


def describe_missing(device: str, cards: int) -> str:
    """Why a CUDA device cannot be had, where torch sees this many cards."""
    if cards:
        seen = "one card, cuda:0" if cards == 1 else f"{cards} cards, cuda:0 to cuda:{cards - 1}"
        return f"The device {device!r} is not there: torch sees {seen}. Choose one of them, or auto."
    why = devices.problem() or "torch sees no CUDA."
    return f"The device {device!r} is not there. {why} Or use the device cpu or auto."


def pick_dtype(dtype: str, device: str) -> torch.dtype:
    """ "auto" is bf16 on CUDA, fp16 where the card computes no bf16, and fp32 elsewhere. What is trained stays in fp32,
    see `erase`."""
    if dtype == "auto" and device.startswith("cuda"):
        with torch.cuda.device(device):
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if dtype == "auto":
        return torch.float32
    if dtype not in DTYPES:
        raise CrceError(f"There is no dtype {dtype!r}. Use auto, {', '.join(DTYPES)}.")
    return DTYPES[dtype]


def first_line(error: Exception) -> str:
    """What an error says, as a sentence without its details; its kind if it says nothing. After a heading, such as
    "Errors in loading:", the first of them."""
    head, *details = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = f"{head} {details[0]}" if head.endswith(":") and details else head
    return said if said.endswith((".", "!", "?")) else f"{said}."
