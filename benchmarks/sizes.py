"""Models of real sizes with random weights, whose cost is that of trained ones."""

from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from crce import bases
from crce.concepts.spec import ConceptSpec, Term
from crce.models.diffusion import Diffusion, pick_device, pick_dtype


def spec(name: str = "dog", corefs: int = 5, retains: int = 3) -> ConceptSpec:
    """A concept with this many terms; their texts do not affect the cost."""
    return ConceptSpec(
        name,
        corefs=tuple(Term(f"{name} as {number}") for number in range(corefs)),
        retains=tuple(Term(f"not {name} but {number}") for number in range(retains)),
    )


def sd_v1_4(device: str = "auto") -> Diffusion:
    """SD v1.4's U-Net (860 M weights, 64×64 latents, 77 × 768 text states) with the default model's tokenizer."""
    device = pick_device(device)
    return Diffusion(sd_v1_4_pipeline(device), bases.SD_V1_4, device, pick_dtype("auto", device))


def sd_v1_4_pipeline(device: str = "auto") -> Any:
    """The same as a pipeline of diffusers, in the dtype that training has on the device."""
    device = pick_device(device)
    kind = pick_dtype("auto", device)
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(f"{bases.resolve(bases.EMOJI_SD)}/tokenizer")
    tokenizer.model_max_length = 77
    with torch.device(device):
        unet: Any = UNet2DConditionModel(
            sample_size=64, cross_attention_dim=768, attention_head_dim=8, block_out_channels=(320, 640, 1280, 1280)
        )
        # SD v1.4's decoder: 8 times the latents' side.
        channels = (128, 256, 512, 512)
        vae: Any = AutoencoderKL(
            block_out_channels=channels, layers_per_block=2, sample_size=512,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )  # fmt: skip
        encoder: Any = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer), hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
                num_attention_heads=12, max_position_embeddings=77, eos_token_id=tokenizer.eos_token_id,
                bos_token_id=tokenizer.bos_token_id, pad_token_id=tokenizer.pad_token_id,
            )
        )  # fmt: skip
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
                              set_alpha_to_one=False, steps_offset=1)  # fmt: skip
    return StableDiffusionPipeline(
        vae=vae.to(kind), unet=unet.to(kind), text_encoder=encoder.to(kind), tokenizer=tokenizer,
        scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
