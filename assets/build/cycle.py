"""One cycle of training: its rate rises, stays and falls to zero; on one process or several; a killed one goes on."""

import os
import time
from collections.abc import Callable

import torch
import torch.distributed as dist

from .common import average, build_dir, keep, load, log, shape_of

FASTER = 3  # what reads the text has most to learn


def workers() -> int:
    """How many processes share the batch: one, unless started with torchrun."""
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    return int(os.environ.get("RANK", 0))


def together(make: Callable):
    """What `make` makes, in every process. The first makes it alone, so that the others find its files."""
    if workers() > 1 and not dist.is_initialized():
        dist.init_process_group("gloo")
    if rank():
        dist.barrier()
    made = make()
    if workers() > 1 and not rank():
        dist.barrier()
    return made


def share(parameters: list[torch.nn.Parameter]) -> None:
    """Average the gradients over the workers. Two processes of one thread are 1.4 times as fast as one of two."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    for g, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        g.copy_(part.view_as(g) / workers())


def is_done(state: dict) -> bool:
    return state["step"] >= state["end"]


def place(state: dict | None) -> tuple[int, int]:
    """The step at which a checkpoint's cycle began, and the one to go on from: the same where a cycle is to begin."""
    if state is None:
        return 0, 0
    return (state["step"] if is_done(state) else state["begin"]), state["step"]


def run(
    stage: str,
    net: torch.nn.Module,
    ema: torch.nn.Module,
    others: list[torch.nn.Parameter],
    reads: list[torch.nn.Parameter],
    loss: Callable[[], torch.Tensor],
    end: int,
    peak: float,
    warmup: int,
    **facts,
) -> None:
    """Train the parameters of `net` to step `end`, and `ema` as their average; facts go into the checkpoint.

    A cycle that was not finished goes on from its checkpoint; a new one begins with the weights as they are.
    """
    path, parameters = build_dir() / f"{stage}.pt", [*others, *reads]
    state = load(path)
    begin, start = place(state)
    groups = [{"params": others}, {"params": reads}]
    optimiser = torch.optim.AdamW(groups, peak, (0.9, 0.99), weight_decay=0.01, fused=True)
    if state:
        if not is_done(state):
            net.load_state_dict(state["model"])
            ema.load_state_dict(state["ema"])
        if "optimiser" in state:  # an unpacked model has none
            optimiser.load_state_dict(state["optimiser"])
    torch.manual_seed(start + 1_000_003 * rank())
    saved, began, mean = time.time(), time.time(), None
    for step in range(start, end):
        for group, factor in zip(optimiser.param_groups, (1, FASTER), strict=True):
            group["lr"] = factor * peak * shape_of(step - begin, end - begin, warmup, decay=0.6)
        found = loss()
        optimiser.zero_grad()
        found.backward()
        if workers() > 1:
            share(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if rank():
            continue
        average(ema, net, step - begin, keep=0.998)
        mean = found.detach() if mean is None else mean.lerp(found.detach(), 0.01)  # read only when it is told
        if time.time() - saved > 120 or step + 1 == end:
            keep(path, net, ema, optimiser, step=step + 1, begin=begin, end=end, **facts)
            seconds = (time.time() - began) / (step + 1 - start)
            log(stage, step=step + 1, end=end, loss=round(float(mean), 4), seconds=round(seconds, 3))
            saved = time.time()
