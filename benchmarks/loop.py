"""A training step of CRCE and of ESD in our loop and in ESD's public loop, with the same dtype.

ESD's loop: two U-Nets, prompts encoded once, a new partial sampling for each step with both halves of classifier-free
guidance in one batch, the student's prompts one at a time. Ours: one U-Net, a cache of latents, prompts one at a time
("lean") or in one batch ("fast"). Times are averages over whole runs, including the sampling of the cache.

    python -m benchmarks.loop                  with the default model
    python -m benchmarks.loop --sd             with a U-Net of SD v1.4's size and random weights (needs a GPU)
"""

import copy
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from torch import Tensor, nn

from benchmarks.figures import Figure, make_parser, show
from benchmarks.sizes import sd_v1_4, spec
from crce.concepts.spec import ConceptSpec
from crce.config import EraseConfig, ResolvedConfig, resolve_config
from crce.methods.erased_weights import ErasedWeights
from crce.methods.parameters import keys_values
from crce.models.diffusion import Diffusion
from crce.training.latent_cache import TRAJECTORY
from crce.training.loop import erase_steps

STEPS = 20  # of the reference that are timed


class Reference:
    """ESD's public loop, with CRCE's two sums if the method uses them.

    tuned: sample latents from the student, as in ESD's paper, instead of the frozen model.
    """

    def __init__(self, model: Diffusion, spec: ConceptSpec, config: ResolvedConfig, tuned: bool = False):
        self.model, self.spec, self.config = model, spec, config
        self.student = copy.deepcopy(model.unet)
        self.sampler = self.student if tuned else model.unet
        parameters = dict(self.student.named_parameters())
        self.student_weights = {name: parameters[name].requires_grad_() for name in keys_values(model.unet)}
        # fp32 master weights, as in our loop.
        self.weights = {name: w.detach().float().clone() for name, w in self.student_weights.items()}
        self.optimizer = torch.optim.Adam(self.weights.values(), lr=config.lr)
        self.scheduler = DDIMScheduler.from_config(model.schedule, clip_sample=False)
        self.scheduler.set_timesteps(TRAJECTORY)
        self.rng = random.Random(config.seed)

    def train(self, steps: int) -> None:
        for _ in range(steps):
            self.step()

    def step(self) -> None:
        t, x = self.sample()
        with torch.no_grad():
            e_c, e_0 = (self.predict(self.model.unet, x, t, self.model.embed([p])) for p in (self.spec.target, ""))
        goal = e_0 - self.config.eta * (e_c - e_0)
        self.student.zero_grad()
        for state, end, weight in self.rows(x, t, goal):
            (weight * F.mse_loss(self.predict(self.student, x, t, state), end)).backward()
        for name, weight in self.student_weights.items():
            self.weights[name].grad = weight.grad.float()
        self.optimizer.step()
        for name, weight in self.student_weights.items():
            weight.data.copy_(self.weights[name])

    @torch.no_grad()
    def sample(self) -> tuple[int, Tensor]:
        """A new latent at a random step of the schedule."""
        until = self.rng.randrange(TRAJECTORY)
        x = self.model.noise([self.rng.getrandbits(63)])
        states = torch.cat([self.model.embed([""]), self.model.embed([self.spec.target])])
        for t in self.scheduler.timesteps[:until].tolist():
            e_0, e_c = self.predict(self.sampler, torch.cat([x, x]), t, states).chunk(2)
            x = self.scheduler.step(e_0 + self.config.guidance * (e_c - e_0), t, x, return_dict=False)[0]
        return int(self.scheduler.timesteps[until]), x

    def rows(self, x: Tensor, t: int, goal: Tensor) -> Iterator[tuple[Tensor, Tensor, float]]:
        yield self.model.embed([self.spec.target]), goal, 1.0
        if self.config.method == "crce":
            for term in self.rng.sample(self.spec.train_corefs, self.config.corefs):
                yield self.model.embed([term.text]), goal, term.weight / self.config.corefs
            for term in self.rng.sample(self.spec.train_retains, self.config.retains):
                state = self.model.embed([term.text])
                with torch.no_grad():
                    held = self.predict(self.model.unet, x, t, state)
                yield state, held, term.weight / self.config.retains

    def predict(self, unet: nn.Module, x: Tensor, t: int, states: Tensor) -> Tensor:
        kind = self.model.dtype
        times = torch.full((len(x),), t, device=x.device)
        return unet(x.to(kind), times, states.to(kind), return_dict=False)[0].float()

    def delta(self) -> ErasedWeights:
        return ErasedWeights(
            {name: weight.detach().clone() for name, weight in self.weights.items()}, {"kind": "weights"}
        )


def measure_method(model: Diffusion, spec: ConceptSpec, method: str) -> Iterator[Figure]:
    """Seconds per step of ESD's loop and both of ours, including the latents: means over the steps of one run."""
    config = replace(resolve_config(EraseConfig(method), model.base), steps=STEPS, checkpoint_every=10**5)
    reference = Reference(model, spec, config)
    reference.step()
    slow = time_per_step(model, partial(reference.train, STEPS))
    yield Figure(f"`{method}`, ESD's loop", (slow,), describe_peak(model))
    for name, rows in (("lean", 1), ("fast", 0)):
        # A cache consists of whole trajectories of 50 latents, so the run has 50 steps.
        ours = replace(config, steps=TRAJECTORY, microbatch_size=rows)
        each = time_per_step(model, lambda ours=ours: list(erase_steps(model, spec, ours)), TRAJECTORY)
        faster = f"{slow / each:.1f} times faster"
        yield Figure(f"`{method}`, ours, {name}", (each,), ", ".join(filter(None, (faster, describe_peak(model)))))


def time_per_step(model: Diffusion, work, steps: int = STEPS) -> float:
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / steps


def describe_peak(model: Diffusion) -> str:
    """The peak GPU memory; empty on a CPU."""
    return f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB at most" if model.device.type == "cuda" else ""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--sd", action="store_true", help="SD v1.4's size, random weights")
    asked = parser.parse_args()
    model = sd_v1_4() if asked.sd else Diffusion.load()
    figures = (figure for method in ("crce", "esd-x-strict") for figure in measure_method(model, spec(), method))
    show("loop", __doc__, figures, asked.keep)


if __name__ == "__main__":
    main()
