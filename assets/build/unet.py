"""The denoiser: 8×8×16 latents, ε-prediction, conditioned on the frozen text encoder; and drawing with it."""

import copy
import os
import random
import time

import torch
import torch.distributed as dist
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor

from . import clip, vae
from .common import DEVICE, autocast, average, build_dir, keep, load, log, save, shape_of
from .pictures import drawings, floats, shift
from .sheet import sheet
from .sources import DRAWN
from .vocabulary import emphasis, vocabulary

CHANNELS, STEPS = (160, 176), 5000
BATCH, RATE = 64 if DEVICE.type == "cpu" else 512, 6e-4
VARIANTS, CAPTIONS, EMPTY = 12, 40, 0.1
UNFLIPPED = {
    "stop sign",
    "bus stop",
    "ambulance",
    "police car",
    "oncoming police car",
    "taxi",
    "oncoming taxi",
    "fire engine",
}
SHOWN = [
    "dog",
    "puppy",
    "guide dog",
    "poodle",
    "cat",
    "wolf",
    "horse",
    "bird",
    "frog",
    "deer",
    "airplane",
    "automobile",
    "ship",
    "truck",
    "apple",
    "bat",
    "santa claus",
    "mermaid",
    "vampire",
    "genie",
    "fairy",
    "zombie",
    "lion",
    "sailboat",
    "taxi",
    "pear",
    "butterfly",
    "pizza",
    "guitar",
    "fox",
    "pig",
    "helicopter",
]


def network() -> UNet2DConditionModel:
    """Two levels, one layer a block, text in every block: 12.4 M values."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=16,
        out_channels=16,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        down_block_types=["CrossAttnDownBlock2D"] * 2,
        up_block_types=["CrossAttnUpBlock2D"] * 2,
        cross_attention_dim=320,
        attention_head_dim=[5, 11],
        norm_num_groups=16,
    )


def scheduler() -> DDIMScheduler:
    """Stable Diffusion's schedule."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )


@torch.no_grad()
def states(texts: list[str]) -> torch.Tensor:
    """Hidden states of the frozen text encoder, as the pipeline makes them. → [n, 32, 320]"""
    pair = frozen_text()
    return torch.cat(
        [pair(clip.tokens(texts[i : i + 256], full=True)).last_hidden_state for i in range(0, len(texts), 256)]
    )


def frozen_text():
    if not hasattr(frozen_text, "model"):
        pair, _ = clip.fresh()
        pair.load_state_dict(load(build_dir() / "clip.pt")["ema"])
        frozen_text.model = pair.text.eval().requires_grad_(False)
    return frozen_text.model


@torch.no_grad()
def bank() -> dict:
    """What training draws from: latents [n, variants, 16, 8, 8] at unit scale, text states of every caption, and
    which captions [n, captions] each drawing has; made once."""
    path = build_dir() / "bank.pt"
    if state := load(path):
        return state
    torch.manual_seed(0)
    images, columns = drawings()
    chosen = torch.tensor([s in DRAWN for s in columns["styles"]])
    labels, styles = columns["labels"][chosen.numpy()], columns["styles"][chosen.numpy()]
    leaves = torch.tensor([vocabulary().ids[str(n)] for n in columns["leaves"][chosen.numpy()]])
    x = floats(images[chosen]).to(DEVICE)
    flippable = torch.tensor([str(n) not in UNFLIPPED for n in labels], device=DEVICE).view(-1, 1, 1, 1)
    model, variants = vae.trained(), []
    for k in range(VARIANTS):
        turned = torch.where(flippable, x.flip(3), x) if k % 2 else x
        moved = torch.cat([shift(part, 3) for part in turned.split(32)])
        with autocast():
            variants.append(torch.cat([model.encode(part).latent_dist.mean.float() for part in moved.split(64)]))
    latents = torch.stack(variants, 1)
    rng, numbers = random.Random(0), {}
    captions = [
        [
            numbers.setdefault(vocabulary().caption(int(leaf), str(label), str(style), rng)[0], len(numbers))
            for _ in range(CAPTIONS)
        ]
        for leaf, label, style in zip(leaves, labels, styles, strict=True)
    ]
    share = torch.tensor(emphasis())[leaves] / torch.bincount(leaves)[leaves]
    scale = 1 / float(latents.std())
    state = {
        "latents": (latents * scale).bfloat16().cpu(),
        "scale": scale,
        "captions": torch.tensor(captions),
        "states": states(list(numbers)).bfloat16().cpu(),
        "empty": states([""]).bfloat16().cpu(),
        "weights": share,
    }
    save(state, path)
    log("unet", drawings=len(latents), captions=len(numbers), scale=scale)
    return state


class Draws:
    """Random training examples from the bank."""

    def __init__(self, state: dict):
        self.state = {k: v.to(DEVICE) if isinstance(v, torch.Tensor) else v for k, v in state.items()}
        self.signal = scheduler().alphas_cumprod.to(DEVICE)

    def __call__(self) -> tuple[torch.Tensor, ...]:
        """→ noisy latents [b,16,8,8], timesteps [b], text states [b,32,320], noise, loss weights [b]"""
        s = self.state
        b = BATCH // workers()
        i = torch.multinomial(s["weights"], b, replacement=True)
        z = s["latents"][i, torch.randint(VARIANTS, (b,), device=DEVICE)].float()
        text = s["states"][s["captions"][i, torch.randint(CAPTIONS, (b,), device=DEVICE)]]
        text = torch.where(torch.rand(b, 1, 1, device=DEVICE) < EMPTY, s["empty"], text)
        t = torch.randint(1000, (b,), device=DEVICE)
        a = self.signal[t].view(-1, 1, 1, 1)
        noise = torch.randn_like(z)
        snr = (a / (1 - a)).flatten()
        x = a.sqrt() * z + (1 - a).sqrt() * noise
        return x.contiguous(memory_format=torch.channels_last), t, text, noise, snr.clamp(max=5) / snr


def objective(unet: UNet2DConditionModel, x, t, text, noise, weight) -> torch.Tensor:
    """MSE on ε with min-SNR weights, γ = 5."""
    with autocast():
        predicted = unet(x, t, text, return_dict=False)[0]
    return ((predicted.float() - noise).square().mean((1, 2, 3)) * weight).mean()


def workers() -> int:
    """How many processes share the batch: one, unless started with torchrun."""
    return int(os.environ.get("WORLD_SIZE", 1))


def share(model: torch.nn.Module) -> None:
    """Average the gradients over the workers. Two processes of one thread are 1.4 times as fast as one of two."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    for g, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        g.copy_(part.view_as(g) / workers())


def train(steps: int) -> None:
    """Train to `steps`; on several cores best as `torchrun --nproc-per-node 2 -m assets.build unet`. An unfinished run
    goes on where it stopped; a finished one starts another cycle, with its own warm-up and decay, from the averaged
    weights. So a longer schedule is `train(more)`."""
    path, rank = build_dir() / "unet.pt", int(os.environ.get("RANK", 0))
    if workers() > 1:
        dist.init_process_group("gloo")
    draws = Draws(bank())
    torch.manual_seed(0)  # every worker starts from the same weights
    unet = network().to(DEVICE, memory_format=torch.channels_last)
    ema = copy.deepcopy(unet).requires_grad_(False)
    if DEVICE.type == "cpu":  # the fused attention's backward pass took 35 % of a step there
        unet.set_attn_processor(AttnProcessor())
    optimiser = torch.optim.AdamW(unet.parameters(), RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    begin = start = 0
    end = steps
    if state := load(path):
        ema.load_state_dict(state["ema"])
        finished = state["step"] >= state["end"]
        if finished and rank == 0:
            save(state, build_dir() / "unet-done.pt")
        unet.load_state_dict(state["ema" if finished else "model"])
        optimiser.load_state_dict(state["optimiser"])
        start, begin = state["step"], state["step"] if finished else state["begin"]
    if start >= end:
        return
    peak = RATE if begin == 0 else 0.7 * RATE  # a later cycle must not lose all that the first one reached
    torch.manual_seed(start + 1_000_003 * rank)
    saved, began, mean = time.time(), time.time(), 0.0
    for step in range(start, end):
        optimiser.param_groups[0]["lr"] = peak * shape_of(step - begin, end - begin, decay=0.5)
        loss = objective(unet, *draws())
        optimiser.zero_grad()
        loss.backward()
        if workers() > 1:
            share(unet)
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimiser.step()
        if rank == 0:
            average(ema, unet, step)
        mean = 0.99 * mean + 0.01 * float(loss.detach()) if mean else float(loss.detach())
        if rank == 0 and (time.time() - saved > 120 or step + 1 == end):
            keep(path, unet, ema, optimiser, step=step + 1, begin=begin, end=end)
            log(
                "unet",
                step=step + 1,
                end=end,
                loss=round(mean, 4),
                seconds=round((time.time() - began) / (step + 1 - start), 3),
            )
            saved = time.time()


def checkpoint() -> dict:
    """The last finished cycle: in the midst of a cycle, at a high learning rate, pictures are worse."""
    state = load(build_dir() / "unet.pt")
    return state if state["step"] >= state["end"] else load(build_dir() / "unet-done.pt") or state


def trained() -> UNet2DConditionModel:
    """The averaged weights of the last cycle that was finished, else as far as they are; frozen."""
    unet = network().to(DEVICE)
    unet.load_state_dict(checkpoint()["ema"])
    return unet.eval().requires_grad_(False)


class Artist:
    """Draws with whatever checkpoint there is."""

    def __init__(self):
        self.unet, self.vae = trained().to(memory_format=torch.channels_last), vae.trained()
        self.scale, self.empty = load(build_dir() / "bank.pt")["scale"], states([""])

    @torch.no_grad()
    def __call__(
        self, texts: list[str], seed: int = 0, guidance: float = 4.0, steps: int = 20, batch: int = 64
    ) -> torch.Tensor:
        """→ [n,3,64,64] in -1…1; picture k of a call has noise k of the seed"""
        generator, plan = torch.Generator().manual_seed(seed), scheduler()
        plan.set_timesteps(steps)
        noise, drawn = torch.randn(len(texts), 16, 8, 8, generator=generator).to(DEVICE), []
        for i in range(0, len(texts), batch):
            x = noise[i : i + batch]
            text = torch.cat([self.empty.expand(len(x), -1, -1), states(texts[i : i + batch])])
            for t in plan.timesteps:
                with autocast():
                    plain, told = self.unet(x.repeat(2, 1, 1, 1), t, text, return_dict=False)[0].float().chunk(2)
                x = plan.step(plain + guidance * (told - plain), t, x).prev_sample
            drawn.append(self.vae.decode(x / self.scale).sample.clamp(-1, 1))
        return torch.cat(drawn)


def contact(path=None, guidance: float = 4.0, steps: int = 20) -> None:
    """Two seeds of a fixed choice of names, to be looked at."""
    artist = Artist()
    images = torch.cat([artist(SHOWN, seed, guidance, steps) for seed in (0, 1)])
    sheet(
        images[[k + 32 * s for r in range(4) for s in (0, 1) for k in range(8 * r, 8 * r + 8)]],
        8,
        path or build_dir() / "unet.png",
        2,
    )
