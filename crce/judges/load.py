"""From the name of a judge to the judge. Imports torch only for the judges that need it."""

from typing import TYPE_CHECKING

from crce.bases import public_name
from crce.errors import CrceError
from crce.judges.choices import AUTO, CLIP, EMBEDDED, ENDPOINT, JUDGES, choose_judge, find_missing

if TYPE_CHECKING:
    from crce.judges.judge import Judge


def load_judge(base: str, judge: str = AUTO, device: str = "auto") -> "Judge":
    """judge: "auto", a key of JUDGES, or the Hub id or folder of a model that tells what a picture shows.

    Nothing is downloaded. Raises CrceError if there is no such judge, it has to be downloaded first, or it cannot be
    loaded.
    """
    name = choose_judge(base, judge)
    if missing := find_missing(name):
        raise CrceError(
            f"The judge {missing!r} is not on this machine, and nothing downloads it unasked. Choose it in the Erase "
            f"tab and download it there, or with `python -m crce download --judge {name}`."
        )
    if name == EMBEDDED:
        from crce.judges.embedded import EmbeddedJudge

        return EmbeddedJudge.load(base)
    if name == ENDPOINT:
        from crce.judges.endpoint import EndpointJudge

        return EndpointJudge.from_env()
    place = JUDGES[name].model if name in JUDGES else name
    if name == CLIP or _is_clip(place):
        from crce.judges.clip import ClipJudge

        return ClipJudge.load(public_name(name), place, device)
    from crce.judges.vlm import VlmJudge

    return VlmJudge.load(public_name(name), place, device)


def _is_clip(place: str) -> bool:
    from transformers import AutoConfig

    from crce.judges.weights import load

    return load(place, lambda: AutoConfig.from_pretrained(place, local_files_only=True)).model_type == "clip"
