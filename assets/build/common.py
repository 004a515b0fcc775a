"""What every stage shares: where state lives, atomic checkpoints, the log, and the device."""

import json
import os
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from platformdirs import user_cache_dir

ROOT = Path(__file__).parents[1]  # assets/
MODEL = ROOT / "emoji-sd"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
torch.manual_seed(0)


def build_dir() -> Path:
    """The folder of everything that is too large for the repository: CRCE_BUILD_DIR, or the user's cache."""
    path = Path(os.environ.get("CRCE_BUILD_DIR") or Path(user_cache_dir("crce-studio")) / "emoji-build")
    path.mkdir(parents=True, exist_ok=True)
    return path


def autocast():
    """bf16 where it is fast: AVX512-bf16 or AMX on a CPU, any recent GPU. Elsewhere it is many times slower."""
    able = torch.cpu.get_capabilities()
    quick = DEVICE.type != "cpu" or able.get("avx512_bf16") or able.get("amx_bf16")
    return torch.autocast(DEVICE.type, torch.bfloat16) if quick else nullcontext()


def save(state: dict, path: Path) -> None:
    """Write a checkpoint completely or not at all."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def load(path: Path) -> dict | None:
    """The checkpoint at path, or None where there is none yet."""
    return torch.load(path, map_location="cpu", weights_only=False) if path.exists() else None


def keep(path: Path, model: torch.nn.Module, ema: torch.nn.Module, optimiser: torch.optim.Optimizer, **facts) -> None:
    """Write all that `resume` needs, with the step and what else the stage knows."""
    save({"model": model.state_dict(), "ema": ema.state_dict(), "optimiser": optimiser.state_dict(), **facts}, path)


def resume(path: Path, model: torch.nn.Module, ema: torch.nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Take up what `keep` wrote; the step to go on from, 0 where there is nothing."""
    state = load(path)
    if state is None:
        return 0
    model.load_state_dict(state["model"])
    ema.load_state_dict(state["ema"])
    optimiser.load_state_dict(state["optimiser"])
    return state["step"]


def log(stage: str, **facts) -> None:
    """Append one line to log.jsonl and show it."""
    line = json.dumps({"time": time.strftime("%F %T"), "stage": stage, **facts})
    with open(build_dir() / "log.jsonl", "a") as file:
        file.write(line + "\n")
    print(line, flush=True)


def shape_of(step: int, steps: int, warmup: int = 200, decay: float = 0.4) -> float:
    """Learning-rate factor: linear warm-up, flat, then linear to zero over the last `decay` of the run."""
    return min(1.0, (step + 1) / warmup, max(0.0, (steps - step) / (decay * steps)))


def average(ema: torch.nn.Module, model: torch.nn.Module, step: int, keep: float = 0.999) -> None:
    """One step of the exponential moving average of the weights; the average forgets faster early on."""
    keep = min(keep, (1 + step) / (10 + step))
    with torch.no_grad():
        torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1 - keep)
