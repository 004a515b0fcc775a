"""One term of ESD on a base with its backward pass, in a process whose memory is looked at from outside.

python -m benchmarks.full_size_step BASE [--recompute]     prints the seconds of the second step, and the bytes that the
                                                           third allocates at most beside the weights
"""

import argparse
from collections.abc import Callable
from itertools import accumulate

from torch.profiler import ProfilerActivity, profile

from benchmarks.figures import time_call
from benchmarks.sizes import spec
from crce.config import EraseConfig, resolve_config
from crce.models.diffusion import Diffusion
from crce.training.loop import TrainState, noise_caches, train_once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("--recompute", action="store_true", help="with gradient checkpointing")
    asked = parser.parse_args()
    model = Diffusion.load(asked.base, "cpu", "fp32")
    state = TrainState(model, (spec(),), resolve_config(EraseConfig("esd-x-strict", steps=2), model.base))
    state.recompute = asked.recompute
    caches = noise_caches(state)
    train_once(state, caches)
    seconds = time_call(lambda: train_once(state, caches))
    print(seconds, most_bytes(lambda: train_once(state, caches)))


def most_bytes(work: Callable[[], object]) -> int:
    """What torch allocates at most at a time, beyond what was there before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = profiler.profiler.kineto_results.events()
    return max(accumulate(event.nbytes() for event in events if event.name() == "[memory]"))


if __name__ == "__main__":
    main()
