"""Which judges there are, and which of them can be used here. No torch, and nothing is downloaded."""

import os
from dataclasses import dataclass
from pathlib import Path

from crce import bases, downloads
from crce.errors import CrceError
from crce.files import is_folder

AUTO, EMBEDDED, QWEN2_VL, ENDPOINT, CLIP = "auto", "embedded", "qwen2-vl", "endpoint", "clip"


@dataclass(frozen=True)
class JudgeKind:
    """A judge for people. model: its id on the Hub, if it has its own weights to download."""

    title: str
    what: str
    model: str = ""


JUDGES = {
    EMBEDDED: JudgeKind("The base's own judge", "a small classifier that comes with the base model"),
    # The paper does not say which size; this one fits beside Stable Diffusion on a card of 12 GB.
    QWEN2_VL: JudgeKind("Qwen2-VL", "the paper's judge: a vision-language model", "Qwen/Qwen2-VL-2B-Instruct"),
    ENDPOINT: JudgeKind("Endpoint", "a vision model at an OpenAI-compatible endpoint: OPENAI_BASE_URL, OPENAI_API_KEY, "
                        "CRCE_JUDGE_MODEL"),
    CLIP: JudgeKind("CLIP", "zero-shot among the concept and its neighbours; cheap, a second opinion",
                    "openai/clip-vit-large-patch14"),
}  # fmt: skip


def choose_judge(base: str, judge: str = AUTO) -> str:
    """The judge that `judge` means for a base: for "auto" the base's own, else Qwen2-VL if its weights are here.

    Raises CrceError where there is none, and for a judge that cannot be used.
    """
    if judge == AUTO:
        found = next((key for key in (EMBEDDED, QWEN2_VL) if is_available(key, base)), None)
        if found is None:
            raise CrceError(
                f"The base {base!r} brings no judge of its own. Look at the pictures, or choose a judge: "
                f"{', '.join([*JUDGES][1:])}, or a vision-language model by Hub id or folder."
            )
        return found
    if judge == ENDPOINT and (missing := missing_settings()):
        raise CrceError(f"No vision model is connected. Set {' and '.join(missing)}, or choose another judge.")
    if judge not in JUDGES and not (judge and is_folder(judge)) and not bases.is_hub_id(judge):
        raise CrceError(
            f"There is no judge {judge[:80]!r}. Choose one of {', '.join(JUDGES)}, or give the Hub id or the folder of "
            "a vision-language model."
        )
    return judge


def list_available(base: str) -> dict[str, str]:
    """The judges that can be used for a base without a download: key → title."""
    return {key: kind.title for key, kind in JUDGES.items() if is_available(key, base)}


def is_available(judge: str, base: str) -> bool:
    """Whether one of JUDGES can be used for the base without a download."""
    if judge == EMBEDDED:
        return (Path(bases.resolve(base)) / "judge").is_dir()
    if judge == ENDPOINT:
        return not missing_settings()
    return downloads.has_judge(JUDGES[judge].model)


def can_judge(base: str, judge: str = AUTO) -> bool:
    """Whether `judge` means a judge that can be used for the base."""
    try:
        choose_judge(base, judge)
    except CrceError:
        return False
    return True


def find_weights(judge: str) -> str:
    """The Hub id of a judge's weights; empty for one that has none there."""
    model = JUDGES[judge].model if judge in JUDGES else judge
    return "" if judge == AUTO or is_folder(model) else model


def find_missing(judge: str) -> str:
    """The Hub id of the weights that have to be downloaded for a judge; empty where nothing has to be."""
    model = find_weights(judge)
    return model if model and not downloads.has_judge(model) else ""


def missing_settings() -> list[str]:
    """The environment variables that must still be set for the endpoint; a local server needs no key."""
    endpoint = os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL")
    needs = {"OPENAI_API_KEY or OPENAI_BASE_URL": endpoint, "CRCE_JUDGE_MODEL": os.environ.get("CRCE_JUDGE_MODEL")}
    return [name for name, value in needs.items() if not value]
