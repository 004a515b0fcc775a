"""The autoencoder: 64×64×3 ⇄ 8×8×16, as AutoencoderKL, trained on all drawings but the held-out styles."""

import copy
import time

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from .common import DEVICE, autocast, average, build_dir, keep, load, log, resume, shape_of
from .pictures import drawings, floats, recolour, shift
from .sheet import sheet

STEPS, BATCH, RATE = 4200, 16, 1.5e-3
NOISE = 0.1  # latent noise, in the latents' own standard deviations


def network(scaling_factor: float = 1.0) -> AutoencoderKL:
    """f = 8, 16 latent channels, 1.75 M values."""
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=(16, 32, 64, 96),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=8,
        sample_size=64,
        scaling_factor=scaling_factor,
    )


def gradient(x: torch.Tensor) -> torch.Tensor:
    """Differences between neighbouring pixels: where the lines are. [b,3,h,w] → [b, all]"""
    return torch.cat([x.diff(dim=2).flatten(1), x.diff(dim=3).flatten(1)], 1)


def objective(vae: AutoencoderKL, x: torch.Tensor) -> torch.Tensor:
    """L1 + MSE + gradient loss. A little relative noise in place of a KL term: with a KL term all channels died."""
    with autocast():
        z = vae.encode(x).latent_dist.mean.float()
        y = vae.decode(z + NOISE * z.std().detach() * torch.randn_like(z)).sample
    y = y.float()
    return F.l1_loss(y, x) + F.mse_loss(y, x) + F.l1_loss(gradient(y), gradient(x))


def augmented(images: torch.Tensor) -> torch.Tensor:
    """A random batch, flipped, moved, and now and then recoloured. → [b,3,64,64]"""
    x = floats(images[torch.randint(len(images), (BATCH,))])
    x = torch.where(torch.rand(BATCH, 1, 1, 1) < 0.5, x.flip(3), x)
    x = torch.where(torch.rand(BATCH, 1, 1, 1) < 0.3, recolour(x, 0.3), x)
    return shift(x, 5).to(DEVICE)


@torch.no_grad()
def report(vae: AutoencoderKL, images: torch.Tensor, step: int) -> None:
    """Reconstruct a fixed choice of drawings; write them beside the originals."""
    x = floats(images[:: max(1, len(images) // 64)][:64]).to(DEVICE)
    z = vae.encode(x).latent_dist.mean
    y = vae.decode(z).sample
    sheet(
        torch.cat([t for pair in zip(x.split(16), y.split(16), strict=True) for t in pair]), 16, build_dir() / "vae.png"
    )
    log(
        "vae",
        step=step,
        mse=round(float(F.mse_loss(y, x)), 5),
        latent_std=round(float(z.std()), 3),
        channel_stds=[round(float(s), 2) for s in z.std(dim=(0, 2, 3))],
    )


def train(steps: int = STEPS) -> None:
    """Train to `steps`, going on from the last checkpoint; the average of the weights is what is kept."""
    path = build_dir() / "vae.pt"
    images, _ = drawings()
    vae = network().to(DEVICE)
    ema = copy.deepcopy(vae).requires_grad_(False)
    optimiser = torch.optim.AdamW(vae.parameters(), RATE, weight_decay=1e-4, fused=True)
    start = resume(path, vae, ema, optimiser)
    torch.manual_seed(start)
    saved = time.time()  # not compiled: torch 2.13's inductor lost the encoder's gradient
    for step in range(start, steps):
        optimiser.param_groups[0]["lr"] = RATE * shape_of(step, steps, decay=0.6)
        loss = objective(vae, augmented(images))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        average(ema, vae, step)
        if time.time() - saved > 60 or step + 1 == steps:
            keep(path, vae, ema, optimiser, step=step + 1)
            report(ema, images, step + 1)
            saved = time.time()


def trained() -> AutoencoderKL:
    """The averaged weights, frozen."""
    vae = network().to(DEVICE)
    vae.load_state_dict(load(build_dir() / "vae.pt")["ema"])
    return vae.eval().requires_grad_(False)
