"""The denoiser: 8×8×16 latents, ε-prediction, conditioned on the frozen text encoder; and drawing with it."""

import copy
import json
import random
from functools import cache

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor

from . import cycle, language, vae
from .common import DEVICE, autocast, build_dir, load, log, save
from .pictures import drawings, floats, shift
from .sheet import sheet
from .sources import DRAWN
from .vocabulary import emphasis, vocabulary

CHANNELS, STEPS = (160, 176), 5000
BATCH, RATE = (64, 6e-4) if DEVICE.type == "cpu" else (512, 1.2e-3)
STARTED, LATER = 0.7, 0.4  # of the rate: from the former model, and in later cycles, which must not lose what is there
VARIANTS, EMPTY = 12, 0.1
CAPTIONS = 128 if DEVICE.type == "cpu" else 512  # of each drawing; their states take 20 kB each
PADDINGS = (20, 25, 31)
NAMED = 0.2  # of the drawings that are told by their own name, beside those whose caption happens to be it
EARLY, LATE = 300, 0.3  # below this time a noisy latent says itself what it shows, and is drawn less often
LESSONS, TAUGHT = 20_000, 0.7  # noisy latents that the former model saw; its share of what is to be predicted
MISSED, OFTENER = "missed.json", 3.0  # names the model was measured not to draw on every seed, and how much oftener
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
    """Two levels, one layer a block, text in every block: 12.2 M values."""
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
    text, parts = language.trained().text, []
    for i in range(0, len(texts), 256):
        parts.append(text(language.tokens(texts[i : i + 256], full=True)).last_hidden_state)
    return torch.cat(parts)


@cache
def former() -> StableDiffusionPipeline | None:
    """The model shipped before, where `unpack` put it: it draws every leaf by its name, and so can teach its own
    successor whose words are others."""
    folder = build_dir() / "former"
    return StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32) if folder.exists() else None


@torch.no_grad()
def read_by(pipe: StableDiffusionPipeline, texts: list[str]) -> torch.Tensor:
    """Text states of a pipeline. → [n, 32, 320]"""
    ids = pipe.tokenizer(texts, padding="max_length", max_length=32, truncation=True, return_tensors="pt").input_ids
    return torch.cat([pipe.text_encoder(part).last_hidden_state for part in ids.split(256)])


@torch.no_grad()
def encoded() -> dict:
    """Latents of every drawing that is drawn, at unit scale [n, variants, 16, 8, 8], and what each shows; made once."""
    path = build_dir() / "latents.pt"
    if state := load(path):
        return state
    torch.manual_seed(0)
    images, columns = drawings()
    chosen = torch.tensor([s in DRAWN for s in columns["styles"]])
    kept = {k: [str(x) for x in columns[k][chosen.numpy()]] for k in ("labels", "styles", "leaves")}
    leaves = torch.tensor([vocabulary().ids[name] for name in kept["leaves"]])
    variants = moved(floats(images[chosen]), torch.tensor([n not in UNFLIPPED for n in kept["labels"]]))
    pipe = former()
    scale = pipe.vae.config.scaling_factor if pipe else 1 / float(variants.std())
    share = torch.tensor(emphasis())[leaves] / torch.bincount(leaves)[leaves]
    state = {"latents": (variants * scale).bfloat16().cpu(), "scale": scale, "weights": share, **kept}
    save(state, path)
    log("unet", drawings=len(variants), scale=scale)
    return state


@torch.no_grad()
def moved(x: torch.Tensor, flippable: torch.Tensor) -> torch.Tensor:
    """Latents of pictures [n, 3, 64, 64], each moved a little in every variant, and every other one mirrored where
    that leaves it what it is. → [n, variants, 16, 8, 8]"""
    x, flippable = x.to(DEVICE), flippable.to(DEVICE).view(-1, 1, 1, 1)
    model, variants = vae.trained(), []
    for k in range(VARIANTS):
        turned = torch.where(flippable, x.flip(3), x) if k % 2 else x
        shifted = torch.cat([shift(part, 3) for part in turned.split(32)])
        with autocast():
            variants.append(torch.cat([model.encode(part).latent_dist.mean.float() for part in shifted.split(64)]))
    return torch.stack(variants, 1)


def noisy(drawn: dict, n: int, early: float = LATE) -> dict:
    """n noisy latents of random drawings: which drawing [n], x_t and noise [n, 16, 8, 8], t [n].

    early: how often times below EARLY are drawn, beside the others.
    """
    where = drawn["latents"].device
    i = torch.multinomial(drawn["weights"], n, replacement=True)
    z = drawn["latents"][i, torch.randint(VARIANTS, (n,), device=where)].float()
    often = torch.where(torch.arange(1000, device=where) < EARLY, early, 1.0)
    t, noise = torch.multinomial(often, n, replacement=True), torch.randn_like(z)
    a = scheduler().alphas_cumprod.to(where)[t].view(-1, 1, 1, 1)
    return {"drawing": i, "x": a.sqrt() * z + (1 - a).sqrt() * noise, "t": t, "noise": noise}


def missed() -> set[str]:
    """What the model does not draw yet, as `measure` found it; empty before."""
    path = build_dir() / MISSED
    return set(json.loads(path.read_text())) if path.exists() else set()


@torch.no_grad()
def taught(drawn: dict) -> dict:
    """Noisy latents with what the former model predicts there when it reads the drawing's name, or nothing for one in
    ten; made once. Its prediction holds no noise of its own, so captions are learned from it in fewer steps than from
    the noise alone; a share of the noise keeps the drawings in view. Of a drawing that the model does not draw yet it
    has nothing to teach: there the noise is all."""
    path = build_dir() / "taught.pt"
    if state := load(path):
        return state
    torch.manual_seed(1)
    state, pipe = noisy(drawn, LESSONS), former()
    share = (TAUGHT * ~drawn["hard"][state["drawing"]]).view(-1, 1, 1, 1)
    names = sorted(set(drawn["labels"]))
    states_of = read_by(pipe, ["", *(n.lower() for n in names)])
    place = torch.tensor([1 + names.index(n) for n in drawn["labels"]])
    state["empty"] = torch.rand(LESSONS) < EMPTY
    said = torch.where(state["empty"], 0, place[state["drawing"]])
    net, parts = pipe.unet.to(memory_format=torch.channels_last), []
    for k in range(0, LESSONS, 128):
        part = slice(k, k + 128)
        with autocast():
            parts.append(net(state["x"][part], state["t"][part], states_of[said[part]], return_dict=False)[0].float())
    state["wanted"] = share * torch.cat(parts) + (1 - share) * state["noise"]
    state = {k: state[k].bfloat16() if state[k].is_floating_point() else state[k] for k in state if k != "noise"}
    save(state, path)
    log("unet", lessons=LESSONS)
    return state


@torch.no_grad()
def captioned(drawn: dict) -> dict:
    """Captions of every drawing, as rows of `states` [n, CAPTIONS]; states of every caption, the empty one first."""
    path = build_dir() / "captions.pt"
    if state := load(path):
        return state
    rng, numbers = random.Random(0), {"": 0}
    rows = [
        [
            numbers.setdefault(vocabulary().caption(vocabulary().ids[leaf], label, style, rng)[0], len(numbers))
            for _ in range(CAPTIONS)
        ]
        for leaf, label, style in zip(drawn["leaves"], drawn["labels"], drawn["styles"], strict=True)
    ]
    state = {"rows": torch.tensor(rows), "states": states(list(numbers)).bfloat16()}
    save(state, path)
    log("unet", captions=len(numbers))
    return state


def placed(state: dict) -> dict:
    """The same with its tensors on the device."""
    return {k: v.to(DEVICE) if isinstance(v, torch.Tensor) else v for k, v in state.items()}


class Draws:
    """Random training examples: noisy latents, a caption for each, and what to predict. All of them lie on the device.

    On a GPU, whose steps are cheap, the noise alone is learned from.
    """

    def __init__(self):
        drawn = encoded()
        hard = torch.tensor([leaf.lower() in missed() for leaf in drawn["leaves"]])
        drawn |= {"hard": hard, "weights": drawn["weights"] * torch.where(hard, OFTENER, 1.0)}
        self.captions = placed(captioned(drawn))
        self.names = states([name.lower() for name in drawn["labels"]]).bfloat16()
        self.taught = taught(drawn) if former() and DEVICE.type == "cpu" else None
        self.drawn = placed(drawn)
        self.signal = scheduler().alphas_cumprod.to(DEVICE)

    def __call__(self) -> tuple[torch.Tensor, ...]:
        """→ noisy latents [b,16,8,8], timesteps [b], text states [b,32,320], targets, loss weights [b]"""
        b = BATCH // cycle.workers()
        if self.taught:
            k = torch.randint(LESSONS, (b,))
            some = {name: values[k] for name, values in self.taught.items()}
        else:
            some = noisy(self.drawn, b)
            some |= {"wanted": some["noise"], "empty": torch.rand(b, device=DEVICE) < EMPTY}
        row = self.captions["rows"][some["drawing"], torch.randint(CAPTIONS, (b,), device=DEVICE)]
        named = ((torch.rand(b, device=DEVICE) < NAMED) & ~some["empty"]).view(-1, 1, 1)
        text = self.captions["states"][torch.where(some["empty"], 0, row)]
        text = torch.where(named, self.names[some["drawing"]], text)
        snr = self.signal[some["t"]] / (1 - self.signal[some["t"]])
        x = some["x"].float().contiguous(memory_format=torch.channels_last)
        return x, some["t"], text.float(), some["wanted"].float(), snr.clamp(max=5) / snr


@torch.no_grad()
def fitted(unet: UNet2DConditionModel) -> None:
    """Start from the former model with keys and values that read a caption as it read the drawing's name: ridge
    regression from the new states of every caption to the old states of the name, at three paddings."""
    pipe, drawn = former(), encoded()
    captions = captioned(drawn)
    unet.load_state_dict(pipe.unet.state_dict())
    names = sorted(set(drawn["labels"]))
    old, label = read_by(pipe, [n.lower() for n in names]), torch.tensor([names.index(n) for n in drawn["labels"]])
    pairs, inverse = torch.unique(
        torch.stack([captions["rows"].flatten(), label.repeat_interleave(CAPTIONS)]), dim=1, return_inverse=True
    )
    weight = torch.zeros(pairs.shape[1]).index_add_(0, inverse, drawn["weights"].repeat_interleave(CAPTIONS)).sqrt()
    a = torch.cat([captions["states"][pairs[0], p].float() * weight[:, None] for p in PADDINGS])
    b = torch.cat([old[pairs[1], p] * weight[:, None] for p in PADDINGS])
    gram = a.T @ a
    gram += 1e-3 * gram.diagonal().mean() * torch.eye(len(gram))
    turn = torch.linalg.solve(gram, a.T @ b)  # new states @ turn ≈ old states
    for name, module in unet.named_modules():
        if name.endswith(("attn2.to_k", "attn2.to_v")):
            module.weight.copy_(module.weight @ turn.T.to(DEVICE))
    log("unet", fitted=pairs.shape[1], left=round(float((a @ turn - b).square().sum() / b.square().sum()), 4))


def objective(unet: UNet2DConditionModel, x, t, text, wanted, weight) -> torch.Tensor:
    """MSE on ε with min-SNR weights, γ = 5."""
    with autocast():
        predicted = unet(x, t, text, return_dict=False)[0]
    return ((predicted.float() - wanted).square().mean((1, 2, 3)) * weight).mean()


def train(steps: int) -> None:
    """Train to `steps`; on several cores best as `torchrun --nproc-per-node 2 -m assets.build unet`. An unfinished run
    goes on where it stopped; a finished one starts another cycle, with its own warm-up and decay, from the averaged
    weights. So a longer schedule is `train(more)`."""
    path, draws = build_dir() / "unet.pt", cycle.together(Draws)
    state = load(path)
    begin, start = cycle.place(state)
    if start >= steps:
        return
    torch.manual_seed(0)  # every worker starts from the same weights
    unet = network().to(DEVICE, memory_format=torch.channels_last)
    facts = {"seen": (steps - start) * BATCH, "read": 0}  # drawings and captions; right at the cycle's end
    if state:
        facts = {"seen": state["seen"] + cycle.is_done(state) * facts["seen"], "read": state["read"]}
        unet.load_state_dict(state["ema"])
        if cycle.is_done(state) and cycle.rank() == 0:
            save(state, build_dir() / "unet-done.pt")
    elif former():
        fitted(unet)
    ema = copy.deepcopy(unet).requires_grad_(False)
    if DEVICE.type == "cpu":  # the fused attention's backward pass took 35 % of a step there
        unet.set_attn_processor(AttnProcessor())
    reads = [p for n, p in unet.named_parameters() if ".attn2." in n]
    others = [p for n, p in unet.named_parameters() if ".attn2." not in n]
    peak = RATE * (LATER if begin else STARTED if former() else 1)
    cycle.run("unet", unet, ema, others, reads, lambda: objective(unet, *draws()), steps, peak, warmup=100, **facts)


def checkpoint() -> dict:
    """The last finished cycle: in the midst of a cycle, at a high learning rate, pictures are worse."""
    state = load(build_dir() / "unet.pt")
    return state if cycle.is_done(state) else load(build_dir() / "unet-done.pt") or state


def trained() -> UNet2DConditionModel:
    """The averaged weights of the last cycle that was finished, else as far as they are; frozen."""
    unet = network().to(DEVICE)
    unet.load_state_dict(checkpoint()["ema"])
    return unet.eval().requires_grad_(False)


class Artist:
    """Draws with whatever checkpoint there is."""

    def __init__(self):
        self.unet = trained().to(memory_format=torch.channels_last)
        self.vae, self.scale, self.empty = vae.trained(), encoded()["scale"], states([""])

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
