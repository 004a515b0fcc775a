"""The denoiser learns to read: where the text decides what is drawn, a caption is to do what the drawing's name did.

Of its two levels only the inner one (4×4) reads much: over the drawings the words explain 3 to 15 % of the variance of
its blocks, under 2 % of those of the outer one (8×8). So this stage trains the inner level alone, on what the
denoiser made there when it read the drawing's own name. Its targets hold no noise and a step costs a third of one of
the whole denoiser: names that it knows become many words for each within an hour on two cores. What was shipped took
three cycles; in the first, captions were half as many for each drawing and 20 % of the texts were names.
"""

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor

from . import cycle, unet
from .common import DEVICE, autocast, build_dir, load, log, save

STEPS, BATCH, RATE = 10_000, 128, 5e-4
LATER = 0.7  # of the rate in later cycles, which must not lose what the first one reached
LESSONS, TOLD = 40_000, "lessons-read.pt"
SWAPPED = 0.3  # of the lessons, whose latents are of another drawing: there only the words say what to draw
LATE = 0.1  # as `unet.LATE`: below `unet.EARLY` a noisy latent says itself what it shows
NAMED, EMPTY = 0.25, 0.05


def outer(net: UNet2DConditionModel, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The way down to the inner level. → embedded time [b, e], hidden and what skips the level [b, c, 4, 4]"""
    time_embedding = net.time_embedding(net.time_proj(t).to(x.dtype))
    hidden, passed = net.down_blocks[0](net.conv_in(x), time_embedding, text)
    return time_embedding, hidden, passed[-1]


def inner(net: UNet2DConditionModel, time_embedding, hidden, skipped, text) -> torch.Tensor:
    """What the inner level makes of it. → [b, c, 4, 4]"""
    hidden, passed = net.down_blocks[1](hidden, time_embedding, text)
    hidden = net.mid_block(hidden, time_embedding, text)
    up = net.up_blocks[0]
    for k, (resnet, attention) in enumerate(zip(up.resnets, up.attentions, strict=True)):
        joined = torch.cat([hidden, (passed[0], skipped)[k]], 1)
        hidden = attention(resnet(joined, time_embedding), encoder_hidden_states=text, return_dict=False)[0]
    return hidden


def parameters(net: UNet2DConditionModel) -> tuple[list, list]:
    """The inner level's weights: those that read the text, and the others."""
    level = [(n, p) for n, p in net.named_parameters() if n.startswith(("down_blocks.1", "mid_block", "up_blocks.0"))]
    level = [(n, p) for n, p in level if "upsamplers" not in n]
    return [p for n, p in level if ".attn2." in n], [p for n, p in level if ".attn2." not in n]


@torch.no_grad()
def lessons(drawn: dict, names: torch.Tensor, empty: torch.Tensor) -> dict:
    """Noisy latents, whose name is read with them, and what the inner level makes of both; made once a cycle.

    names: text states of every drawing's own name [n, 32, 320]; empty: those of the empty prompt [1, 32, 320].
    """
    path = build_dir() / TOLD
    if state := load(path):
        return state
    torch.manual_seed(5)
    some = unet.noisy(drawn, LESSONS, LATE)
    x, t, drawing = (some[k] for k in ("x", "t", "drawing"))
    chance = torch.rand(2, LESSONS, device=DEVICE)
    said = torch.where(chance[0] < SWAPPED, drawing[torch.randperm(LESSONS, device=DEVICE)], drawing)
    nothing, net, wanted = chance[1] < EMPTY, unet.trained(), []
    for k in range(0, LESSONS, 128):
        part = slice(k, k + 128)
        text = torch.where(nothing[part].view(-1, 1, 1), empty, names[said[part]])
        with autocast():
            wanted.append(inner(net, *outer(net, x[part], t[part], text), text).bfloat16())
    state = {"x": x, "t": t, "said": said, "empty": nothing, "wanted": torch.cat(wanted)}
    save(state, path)
    log("reading", lessons=LESSONS)
    return state


class Draws:
    """Random training examples: lessons with a caption for each."""

    def __init__(self):
        drawn = unet.placed(unet.encoded())
        self.captions = unet.placed(unet.captioned(drawn))
        self.names = unet.states([name.lower() for name in drawn["labels"]])
        self.lessons = unet.placed(lessons(drawn, self.names, unet.states([""])))
        wanted = self.lessons["wanted"].float()
        self.scale = (wanted - wanted.mean(0)).square().mean()

    def __call__(self) -> tuple[torch.Tensor, ...]:
        """→ noisy latents [b,16,8,8], timesteps [b], text states [b,32,320], wanted states of the level [b,c,4,4]"""
        b = BATCH // cycle.workers()
        k = torch.randint(LESSONS, (b,), device=DEVICE)
        some = {name: values[k] for name, values in self.lessons.items()}
        row = self.captions["rows"][some["said"], torch.randint(unet.CAPTIONS, (b,), device=DEVICE)]
        text = self.captions["states"][torch.where(some["empty"], 0, row)].float()
        named = (torch.rand(b, device=DEVICE) < NAMED) & ~some["empty"]
        text[named] = self.names[some["said"][named]]
        return some["x"].contiguous(memory_format=torch.channels_last), some["t"], text, some["wanted"].float()


def objective(net: UNet2DConditionModel, x, t, text, wanted) -> torch.Tensor:
    """MSE at the end of the inner level; no gradient reaches the outer one."""
    with torch.no_grad(), autocast():
        time_embedding, hidden, skipped = outer(net, x, t, text)
    with autocast():
        made = inner(net, time_embedding, hidden.clone().requires_grad_(True), skipped, text)
    return (made.float() - wanted).square().mean()


def train(steps: int) -> None:
    """Train to `steps`; on several cores best as `torchrun --nproc-per-node 2 -m assets.build reading`. Goes on where
    it stopped; a finished one starts another cycle. At the end the denoiser's checkpoint has the averaged weights, and
    the lessons are dropped: those of another cycle are of the denoiser as it then is."""
    draws = cycle.together(Draws)
    begin, start = cycle.place(load(build_dir() / "reading.pt"))
    if start >= steps:
        return
    net, ema = unet.trained().to(memory_format=torch.channels_last), unet.trained()
    net.set_attn_processor(AttnProcessor())
    reads, others = parameters(net)
    for p in [*reads, *others]:
        p.requires_grad_(True)
    loss = lambda: objective(net, *draws()) / draws.scale  # noqa: E731
    cycle.run("reading", net, ema, others, reads, loss, steps, RATE * (LATER if begin else 1), warmup=50)
    if cycle.rank() == 0:
        weights, state = ema.state_dict(), unet.checkpoint()
        read = state.get("read", 0) + (steps - begin) * BATCH
        save({**state, "model": weights, "ema": weights, "read": read}, build_dir() / "unet.pt")
        (build_dir() / TOLD).unlink()
