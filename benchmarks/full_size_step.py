"""One term of ESD on a base with its backward pass, in a process whose memory is looked at from outside."""

import sys

from benchmarks.sizes import spec
from crce.config import EraseConfig, resolve_config
from crce.models.diffusion import Diffusion
from crce.training.loop import TrainState, noise_caches, train_once


def main() -> None:
    model = Diffusion.load(sys.argv[1], "cpu", "fp32")
    state = TrainState(model, (spec(),), resolve_config(EraseConfig("esd-x-strict", steps=1), model.base))
    train_once(state, noise_caches(state))


if __name__ == "__main__":
    main()
