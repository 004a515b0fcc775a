"""How many tokens a base reads of a text, from its tokenizer's files alone: a run is checked when it is made."""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from crce import bases
from crce.concepts.spec import ConceptSpec, replace_lists
from crce.errors import CrceError
from crce.files import read_json

MARKS = 2  # the beginning and the end of a text, which CLIP's tokenizers add
# CLIP's: contractions, words, single digits, and runs of anything else.
_PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def count_tokens(base: str, texts: Iterable[str]) -> tuple[dict[str, int], int]:
    """The tokens of each text, with the marks at both ends, and the most that the base reads.

    Nothing where the base's tokenizer is not on this machine.
    """
    folder = _find_tokenizer(base)
    if not folder:
        return {}, 0
    tokenizer, limit = _load(folder)
    found = {text: len(tokenizer.encode(text, add_special_tokens=False).ids) + MARKS for text in texts}
    return found, limit


def fit_terms(spec: ConceptSpec, base: str, leave_out: bool = False) -> ConceptSpec:
    """The spec, if the base reads all its terms to the end.

    leave_out: drop the terms that it does not. Raises CrceError listing them otherwise, and for a name too long.
    """
    texts = [spec.target, *(term.text for term in (*spec.corefs, *spec.retains))]
    counts, limit = count_tokens(base, texts)
    long = {text: count for text, count in counts.items() if count > limit}
    if not long:
        return spec
    name = bases.public_name(base)
    if spec.target in long:
        raise CrceError(f"{spec.target!r} has {long[spec.target]} tokens, and {name} reads {limit}. Shorten the name.")
    if not leave_out:
        listed = ", ".join(f"{text!r} ({count})" for text, count in long.items())
        raise CrceError(
            f"{name} reads {limit} tokens, and terms of {spec.name!r} have more: {listed}. "
            "Shorten them, or choose to leave out the terms that are too long."
        )
    kept = {kind: [term for term in getattr(spec, kind) if term.text not in long] for kind in ("corefs", "retains")}
    return replace_lists(spec, kept)


def _find_tokenizer(base: str) -> Path | None:
    place = bases.resolve(base)
    if Path(place).is_dir():
        folder = Path(place) / "tokenizer"
        return folder if (folder / "tokenizer_config.json").is_file() else None
    config = try_to_load_from_cache(place, "tokenizer/tokenizer_config.json")
    return Path(config).parent if isinstance(config, str) else None


@lru_cache(maxsize=4)
def _load(folder: Path) -> tuple[Any, int]:
    """The tokenizer of a folder, and its limit. Raises CrceError for files that are none."""
    try:
        limit = int(read_json(folder / "tokenizer_config.json")["model_max_length"])
        whole = folder / "tokenizer.json"
        tokenizer = Tokenizer.from_file(str(whole)) if whole.is_file() else _build_clip(folder)
    except Exception as error:  # the library raises bare Exceptions for a file that it cannot read
        raise CrceError(f"The tokenizer in {folder} cannot be read ({error}). Save the base model anew.") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer, limit


def _build_clip(folder: Path) -> Tokenizer:
    """CLIP's tokenizer from vocab.json and merges.txt, as older bases have it."""
    bpe = models.BPE.from_file(
        str(folder / "vocab.json"), str(folder / "merges.txt"), end_of_word_suffix="</w>", unk_token="<|endoftext|>"
    )
    tokenizer = Tokenizer(bpe)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return tokenizer
