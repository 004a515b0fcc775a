"""Exports a run's result in formats that other programs load. Does not import torch.

A format is made as a set of files by relative path; tensors in them are read and computed only while they are written.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from crce import bases, tensor_files
from crce.base_version import check_version, find_digest
from crce.bases import public_name
from crce.catalogue import WEIGHTS, result_of
from crce.errors import CrceError
from crce.publishing import base_files, ldm
from crce.publishing.low_rank import factorise
from crce.runs import Job, Run
from crce.tensor_files import Info, LazyTensor, LazyTensors

RANK = 32
DEFAULT = ("weights", "diff")
_LONGEST = 60  # of the concepts in a file's name


@dataclass(frozen=True)
class TensorFile:
    """fp16: whether it is rounded, to half the size."""

    tensors: LazyTensors
    info: Info
    fp16: bool = False

    @property
    def size(self) -> int:
        """Bytes that it will have."""
        return tensor_files.measure(self.tensors, self.info, self.fp16)

    def write(self, path: Path) -> None:
        """Raises CrceError if that is not possible."""
        tensor_files.write(path, self.tensors, self.info, self.fp16)


Files = dict[str, bytes | TensorFile]


@dataclass(frozen=True)
class Erasure:
    """A finished erasure as it is exported. name: of its files, by concept and method."""

    delta: Path
    base: str
    name: str

    @classmethod
    def of(cls, run: Run) -> "Erasure":
        """Raises CrceError if the run is not finished, or of another version of the base: the result would be wrong."""
        if not run.erased:
            raise CrceError(f"{run.weights_path} does not exist yet. Let the erasure finish first.")
        base, info = run.job.base, tensor_files.read(run.weights_path)[1]
        what = f"The erasure of {info.get('target', '?')!r}"
        check_version(what, base, info.get("base_digest", ""), find_digest(base))
        return cls(run.weights_path, base, name_of(run.job))

    @property
    def kind(self) -> str:
        return tensor_files.read(self.delta)[1].get("kind", WEIGHTS.kind)


@dataclass(frozen=True)
class Format:
    """title: for people. ending: of its file's name; "/" for a folder. make: its files; the name "" is the file's own.

    imports, code: Python that loads it, where {file} and {base} are expressions; without code, `how` says it all.
    limits: what it does not hold, and who does not read it.
    """

    title: str
    ending: str
    make: Callable[[Erasure], Files]
    how: str = ""
    imports: str = "from diffusers import DiffusionPipeline\n"
    code: str = ""
    limits: str = ""


@dataclass(frozen=True)
class Exported:
    """A file or folder that was written. snippet: Python that loads it. how: where other programs look for it.

    limits: what it does not hold. error: relative, of a LoRA.
    """

    format: str
    path: Path
    size: int
    snippet: str
    how: str
    limits: str
    error: float | None = None


def weights(erasure: Erasure) -> Files:
    """W' under its diffusers names, as trained."""
    tensors, info = tensor_files.read(erasure.delta)
    return {"": TensorFile(tensors, info)}


def diff(erasure: Erasure) -> Files:
    """W' − W under kohya's module names, `lora_unet_….diff`: ComfyUI and Forge add it to the weights, like a LoRA."""
    diffs, info = _differences(erasure)
    return {"": TensorFile({_kohya_name(name): tensor for name, tensor in diffs.items()}, info)}


def lora(erasure: Erasure, rank: int = RANK) -> Files:
    """The best approximation of W' − W with matrices and convolutions of this rank (LoRA, LoCon).

    The metadata contains the relative error ‖LoRA − (W' − W)‖ / ‖W' − W‖. Norms and biases have no low-rank form and
    are dropped. SPM's adapters have rank 1 and are exact, but lose their gate: they then act on every prompt.
    """
    if erasure.kind != WEIGHTS.kind:
        adapters, info = tensor_files.read(erasure.delta)
        return {"": TensorFile(_merge_ungated(adapters), {**info, "relative_error": "0", "gate": "left out"})}
    diffs, info = _differences(erasure)
    tensors: LazyTensors = {}
    whole = lost = 0.0
    for name, difference in diffs.items():
        values = difference.load()
        squares = float(np.square(values, dtype=np.float64).sum())
        whole, lost = whole + squares, lost + squares
        if values.ndim > 1 and squares:
            found = factorise(values, rank)
            lost += found.lost - squares
            tensors |= _lora_module(name, found.up, found.down)
    if whole and not tensors:
        raise CrceError("This erasure changes only norms and biases, which a LoRA cannot hold. Choose another format.")
    return {"": TensorFile(tensors, {**info, "relative_error": f"{(lost / whole) ** 0.5 if whole else 0:.4f}"})}


def pipeline(erasure: Erasure) -> Files:
    """The whole model as a folder of diffusers, which can be a base again."""
    index, folder, weights = _read_model(erasure)
    made: Files = {"model_index.json": json.dumps(index, indent=2).encode()}
    if (folder / "crce.json").exists():
        made["crce.json"] = (folder / "crce.json").read_bytes()
    for part in base_files.parts_of(index):
        settings = [path for path in (folder / part).iterdir() if path.suffix in (".json", ".txt", ".model")]
        made |= {f"{part}/{p.name}": p.read_bytes() for p in settings if not p.name.endswith(".index.json")}
    for part, tensors in weights.items():
        stem = "model" if index[part][0] == "transformers" else "diffusion_pytorch_model"
        made[f"{part}/{stem}.safetensors"] = TensorFile(tensors, {})
    return made


def checkpoint(erasure: Erasure) -> Files:
    """The whole model as one file with CompVis's names, which A1111, Forge and ComfyUI open as a model.

    Raises CrceError for a base that is no Stable Diffusion 1 or 2.
    """
    index, folder, weights = _read_model(erasure)
    if index.get("_class_name") != "StableDiffusionPipeline":
        raise CrceError(
            f"{public_name(erasure.base)} is a {index.get('_class_name')}, and one checkpoint file is made of "
            "Stable Diffusion 1 and 2 only. Choose the pipeline folder."
        )
    settings = base_files.read_settings(folder / "text_encoder")
    # OpenAI's CLIP, of Stable Diffusion 1, has the quick form; OpenCLIP, of Stable Diffusion 2, the exact one.
    open_clip = settings.get("hidden_act") == "gelu"
    made = ldm.checkpoint(weights["unet"], weights["vae"], weights["text_encoder"], open_clip)
    return {"": TensorFile(made, tensor_files.read(erasure.delta)[1])}


FORMATS = {
    "weights": Format(
        "Changed weights (diffusers)", "-weights.safetensors", weights,
        imports="from diffusers import DiffusionPipeline\nfrom safetensors.torch import load_file\n",
        code="pipe = DiffusionPipeline.from_pretrained({base})\n"
        "pipe.unet.load_state_dict(load_file({file}), strict=False)",
        limits="It holds only what changed, so it needs the base.",
    ),
    "diff": Format(
        "Difference (ComfyUI, Forge)", "-diff.safetensors", diff,
        how="Put it into the LoRA folder of ComfyUI or Forge, and load it on the base at strength 1.",
        limits="The difference in full, no low-rank form: sd-scripts and diffusers find nothing in it.",
    ),
    "lora": Format(
        "LoRA (approximate)", "-lora.safetensors", lora,
        how="Or put it into the LoRA folder of A1111, Forge or ComfyUI, and load it on the base at strength 1.",
        code="pipe = DiffusionPipeline.from_pretrained({base})\npipe.load_lora_weights({file})  # needs peft",
    ),
    "pipeline": Format(
        "Whole model (diffusers folder)", "/", pipeline,
        code="pipe = DiffusionPipeline.from_pretrained({file})",
        limits="The whole model, without a safety checker.",
    ),
    "checkpoint": Format(
        "Whole model (one file: A1111, Forge, ComfyUI)", ".safetensors", checkpoint,
        how="Or put it into models/Stable-diffusion (A1111, Forge) or models/checkpoints (ComfyUI). They open models "
        "in the shapes of Stable Diffusion 1 and 2; emoji-sd has its own.",
        imports="from diffusers import StableDiffusionPipeline\n",
        code="pipe = StableDiffusionPipeline.from_single_file({file}, config={base})",
        limits="The whole model, without a safety checker.",
    ),
}  # fmt: skip


def describe_limits(key: str, kind: str, fp16: bool, error: float | None = None) -> str:
    """What a format does not hold of this kind of result. error: the relative error of a LoRA that was made."""
    if key != "lora" or kind != WEIGHTS.kind:
        exact = "Rounded to fp16." if fp16 else "Exactly as trained."
        return result_of(kind).note or f"{exact} {FORMATS[key].limits}"
    known = "" if error is None else f" Its relative error is {error:.1%} (Frobenius norm)."
    return f"An approximation of rank {RANK}, without norms and biases.{known} Its erasure was not measured."


def default_formats(kind: str) -> tuple[str, ...]:
    """What is exported where nothing is chosen: all of it that this kind of result can be."""
    exports = result_of(kind).exports
    return tuple(key for key in DEFAULT if key in exports) or exports


def check(formats: Iterable[str], kind: str = WEIGHTS.kind) -> None:
    """Raises CrceError if no format is given, or one is unknown or cannot represent this kind of result."""
    for name in formats:
        if name not in FORMATS:
            raise CrceError(f"There is no format {name!r}. Choose from {', '.join(FORMATS)}.")
    result = result_of(kind)
    if not formats and result.exports:
        raise CrceError(f"No format is chosen. Choose from {', '.join(FORMATS)}.")
    if refused := [name for name in formats or FORMATS if name not in result.exports]:
        raise CrceError(
            f"This erasure cannot be exported as {' or '.join(refused)}: it changes no weights. {result.why_not}"
        )


def name_of(job: Job) -> str:
    """Of an erasure's files: `without-dog-crce`."""
    concepts = "-".join(spec.slug for spec in job.specs)
    if len(concepts) > _LONGEST:
        concepts = f"{concepts[:_LONGEST]}-{hashlib.sha256(concepts.encode()).hexdigest()[:8]}"
    return f"without-{concepts}-{job.config.label.replace(' ', '-')}"


def file_name(name: str, base: str, key: str, fp16: bool = False) -> str:
    """Of a format's file or folder. A whole model begins with the base's name."""
    whole = f"{public_name(base).rpartition('/')[2]}-" if key in ("pipeline", "checkpoint") else ""
    stem, dot, end = FORMATS[key].ending.rpartition(".")
    return f"{whole}{name}{stem.strip('/') if dot else ''}{'-fp16' * fp16}{dot}{end.strip('/')}"


def export(run: Run, formats: Iterable[str], folder: Path, fp16: bool = False) -> tuple[Exported, ...]:
    """Writes a finished run's result into a folder, replacing files of the same names.

    fp16: half the size, rounded to three digits. Raises CrceError for formats that `check` rejects, for an erasure that
    is not finished or of another base, and if the folder cannot be written.
    """
    formats = tuple(formats)
    erasure = _open(run, formats)
    paths = {key: folder / file_name(erasure.name, erasure.base, key, fp16) for key in FORMATS if key in formats}
    return tuple(_export(erasure, key, path, fp16) for key, path in paths.items())


def prepare(run: Run, formats: Iterable[str], fp16: bool = False) -> tuple[Files, float | None]:
    """The files of a repository, of which a pipeline is the repository itself, and the relative error of a LoRA.

    Nothing is written: tensors are read when they are. Raises CrceError as `export` does.
    """
    formats = tuple(formats)
    erasure, files, error = _open(run, formats), Files(), None
    for key in (key for key in FORMATS if key in formats):
        made, whole = _make(erasure, key, fp16), FORMATS[key].ending == "/"
        error = relative_error(made) if key == "lora" else error
        files |= made if whole else {file_name(erasure.name, erasure.base, key, fp16): made[""]}
    return files, error


def _open(run: Run, formats: tuple[str, ...]) -> Erasure:
    check(formats)
    erasure = Erasure.of(run)
    check(formats, erasure.kind)
    bases.check_formats(erasure.base, formats)
    return erasure


def _make(erasure: Erasure, key: str, fp16: bool) -> Files:
    made = FORMATS[key].make(erasure)
    return {name: _finish(content, fp16) if isinstance(content, TensorFile) else content
            for name, content in made.items()}  # fmt: skip


def _finish(file: TensorFile, fp16: bool) -> TensorFile:
    # The recorded base may be a path on this machine.
    base = {key: public_name(value) for key, value in file.info.items() if key == "base"}
    return TensorFile(file.tensors, {**file.info, **base}, fp16)


def _export(erasure: Erasure, key: str, path: Path, fp16: bool) -> Exported:
    made = _make(erasure, key, fp16)
    write(made, path)
    size, error = sum((path / name).stat().st_size for name in made), relative_error(made)
    loads = snippet(key, repr(str(path)), base_expression(erasure.base))
    return Exported(key, path, size, loads, FORMATS[key].how, describe_limits(key, erasure.kind, fp16, error), error)


def write(made: Files, path: Path) -> None:
    """Writes the files of a format below a path. Raises CrceError if that is not possible."""
    for name, content in made.items():
        target = path / name if name else path
        if isinstance(content, TensorFile):
            content.write(target)
        else:
            tensor_files.write_bytes(target, content)


def relative_error(made: Files) -> float | None:
    """‖LoRA − (W' − W)‖ / ‖W' − W‖ if the files are those of a LoRA."""
    only = made.get("")
    error = only.info.get("relative_error") if isinstance(only, TensorFile) else None
    return float(error) if error else None


def snippet(key: str, file: str, base: str) -> str:
    """Python that loads an export, or "" for a format that Python does not read. file, base: Python expressions."""
    form = FORMATS[key]
    ours = "from crce.bases import resolve\n" if "resolve(" in base and "{base}" in form.code else ""
    return form.code and ours + form.imports + form.code.format(file=file, base=base)


def base_expression(base: str, public: bool = False) -> str:
    """Python for where a base is. public: a folder of this machine is named without its path."""
    if base == bases.EMOJI_SD:
        return f'resolve("{base}")'
    return repr(public_name(base) if public else base)


def _read_model(erasure: Erasure) -> tuple[dict, Path, dict[str, LazyTensors]]:
    """The base's index, its folder, and the erased model's weights by part."""
    index, folder = base_files.pipeline_index(erasure.base), base_files.find_base(erasure.base)
    # A tokenizer and a scheduler have other settings, and no weights.
    parts = [part for part in base_files.parts_of(index) if (folder / part / "config.json").exists()]
    others = {part: tensor_files.read_all(folder / part) for part in parts if part != "unet"}
    return index, folder, {**others, "unet": _erased_unet(erasure)}


def _erased_unet(erasure: Erasure) -> LazyTensors:
    changed, whole = tensor_files.read(erasure.delta)[0], base_files.unet(erasure.base)
    _check_base(erasure, changed, whole)
    return {**whole, **changed}


def _differences(erasure: Erasure) -> tuple[LazyTensors, Info]:
    (changed, info), before = tensor_files.read(erasure.delta), base_files.unet(erasure.base)
    _check_base(erasure, changed, before)

    def subtract(name: str) -> np.ndarray:
        return changed[name].load() - before[name].load()

    return {name: LazyTensor(tensor.shape, partial(subtract, name)) for name, tensor in changed.items()}, info


def _check_base(erasure: Erasure, changed: LazyTensors, base: LazyTensors) -> None:
    for name, tensor in changed.items():
        if name not in base or base[name].shape != tensor.shape:
            place = public_name(erasure.base)
            raise CrceError(f"{place} has no {name} {list(tensor.shape)}: these weights were made on another base.")


def _merge_ungated(adapters: LazyTensors) -> LazyTensors:
    """One LoRA that concatenates all concepts' adapters."""
    layers: dict[str, dict[str, list[np.ndarray]]] = {}
    for name, tensor in adapters.items():
        layer, _, part = name.rpartition("/")[2].rpartition(".")
        layers.setdefault(layer, {"down": [], "up": []})[part].append(tensor.load())
    made: LazyTensors = {}
    for layer, parts in layers.items():
        made |= _lora_module(f"{layer}.weight", np.concatenate(parts["up"], axis=1), np.concatenate(parts["down"]))
    return made


def _lora_module(name: str, up: np.ndarray, down: np.ndarray) -> LazyTensors:
    # Programs scale the product by alpha / rank, so equal values leave it unchanged.
    parts = {"lora_up.weight": up, "lora_down.weight": down, "alpha": np.array(len(down), np.float32)}
    return {_kohya_name(name, part): LazyTensor.of(values) for part, values in parts.items()}


def _kohya_name(name: str, part: str = "") -> str:
    module, _, kind = name.rpartition(".")
    return f"lora_unet_{module.replace('.', '_')}.{part or ('diff_b' if kind == 'bias' else 'diff')}"
