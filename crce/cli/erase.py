"""Commands that erase, draw and inspect."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from itertools import product
from pathlib import Path
from typing import Annotated

import typer

from crce import bases, devices, runs
from crce.base_version import find_digest
from crce.catalogue import METHOD_FACTS
from crce.cli import terminal
from crce.cli.bases import load, prepare
from crce.cli.options import (
    Also,
    Anchor,
    AsJson,
    Backbone,
    Base,
    Concept,
    Corefs,
    Damping,
    Device,
    DryRun,
    Dtype,
    EraseFrom,
    Eta,
    LeaveOutLong,
    Method,
    MicrobatchSize,
    OldBackbone,
    OldMicrobatchSize,
    Out,
    PreviewEvery,
    Rate,
    Resume,
    Retains,
    Seed,
    Steps,
    UntilGone,
    Yes,
)
from crce.cli.runs import describe_run, describe_unknown_base, open_run
from crce.concepts.library import find_concept
from crce.concepts.spec import ConceptSpec
from crce.config import FORMER_NAMES, MOST_STRENGTH, EraseConfig, resolve_config
from crce.cost import describe_room, describe_time
from crce.errors import CrceError
from crce.judges.choices import QWEN2_VL, can_judge
from crce.runs import Job, Run
from crce.runs.execute import execute
from crce.runs.models import Models
from crce.token_count import fit_terms


def erase(
    context: typer.Context,
    concept: Concept,
    base: Base = bases.EMOJI_SD,
    method: Method = EraseConfig.method,
    backbone: Backbone = EraseConfig.backbone,
    steps: Steps = None,
    lr: Rate = None,
    eta: Eta = EraseConfig.eta,
    corefs: Corefs = EraseConfig.corefs,
    retains: Retains = EraseConfig.retains,
    damping: Damping = None,
    anchor: Anchor = None,
    erase_from: EraseFrom = None,
    microbatch_size: MicrobatchSize = EraseConfig.microbatch_size,
    until_gone: UntilGone = False,
    preview_every: PreviewEvery = EraseConfig.preview_every,
    seed: Seed = EraseConfig.seed,
    device: Device = "auto",
    dtype: Dtype = "auto",
    out: Out = None,
    resume: Resume = False,
    leave_out_long: LeaveOutLong = False,
    also: Also = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    on: OldBackbone = None,
    rows: OldMicrobatchSize = None,
):
    """Erase a concept and its corefs, and keep its retains.

    Trains in this process. Ctrl-C stops after the current step; --resume continues the run with its own settings, but
    with --microbatch-size if memory ran out. The base model is never modified: the result is delta.safetensors in the
    run's folder.

    Examples:

    ```
    python -m crce erase dog
    python -m crce erase "bat (animal)" --steps 300 --corefs 3 --out out/bat
    python -m crce erase cat --also dog --also horse
    python -m crce erase dog --backbone ca
    python -m crce erase dog --anchor "a wolf"
    python -m crce erase my-hat.json --erase-from "Santa Claus"
    python -m crce erase my-spec.json --base CompVis/stable-diffusion-v1-4 --device cuda --dry-run
    ```
    """
    spec, config = find_concept(concept), _read_config(context)
    if resume:
        run = _find_unfinished(spec, out, config.microbatch_size)
        terminal.warn(filter(None, [describe_unknown_base(run)]))
        return _finish(run, as_json)
    prepare(base, device, dtype, yes)
    job = Job(base, spec, config, device, dtype, also=tuple(map(find_concept, also or ())))
    if dry_run:
        return _print_estimate(job, leave_out_long, as_json)
    _finish(runs.create(job, out, queued=False, leave_out_long=leave_out_long), as_json)


def _read_config(context: typer.Context) -> EraseConfig:
    """The options that are settings, by their names. Raises CrceError for a value that no run can have, and for a
    backbone that the method would ignore."""
    given = {setting.name: context.params[setting.name] for setting in fields(EraseConfig)
             if setting.name in context.params}  # fmt: skip
    former = {new: context.params[old] for old, new in FORMER_NAMES.items() if context.params[old] is not None}
    config = EraseConfig(**given | former)
    if config.backbone != EraseConfig.backbone and not METHOD_FACTS[config.method].variant:
        raise CrceError(f"{config.method} has no backbone. Leave --backbone out, or choose a variant of CRCE.")
    return config


def _finish(run: Run, as_json: bool) -> None:
    """Does what the run lacks, and says where the result is."""
    terminal.follow(run, execute(run))
    terminal.say(describe_run(run), f"{run.title} is erased: {run.weights_path}\n{_suggest_next(run)}", as_json)


def _print_estimate(job: Job, leave_out_long: bool, as_json: bool) -> None:
    """Prints the estimated cost, and where it arises, and starts nothing. Raises CrceError for terms that the run would
    refuse."""
    from crce.models.diffusion import NAMES
    from crce.training.estimate import estimate

    specs = tuple(fit_terms(spec, job.base, leave_out_long) for spec in job.specs)
    model = Models().get(job.base, job.device, job.dtype)
    cost, place = estimate(model, specs, job.config), devices.describe(str(model.device), NAMES[model.dtype])
    terminal.say(asdict(cost), f"On {place}: {describe_time(cost)} {describe_room(cost)}", as_json)


def _find_unfinished(spec: ConceptSpec, out: Path | None, microbatch_size: int) -> Run:
    """The run to resume, from now on with this many terms at once if they are given. Raises CrceError if there is none,
    or if it belongs to another spec."""
    found = [runs.open_run(out)] if out else [run for run in runs.all_runs() if _is_of(run, spec)]
    run = next((run for run in found if run.state in ("interrupted", "stopped", "failed", "queued")), None)
    if not run:
        raise CrceError(f"There is no unfinished run of {spec.name!r} to resume. Omit --resume to start one.")
    if not _is_of(run, spec):
        raise CrceError(
            f"The run in {run.dir} is for {run.title!r} with other terms. Give its concept, or a new --out."
        )
    run.clear("stop")
    if microbatch_size:
        run.set_microbatch_size(microbatch_size)
    return run


def _is_of(run: Run, spec: ConceptSpec) -> bool:
    """Whether the run erases these lists, or what is left of them without the terms too long for its base."""
    mine = run.job.spec
    if mine.digest == spec.digest or mine.slug != spec.slug:
        return mine.digest == spec.digest
    try:
        return mine.digest == fit_terms(spec, run.job.base, leave_out=True).digest
    except CrceError:  # its base is gone, or reads not even the name
        return False


def _suggest_next(run: Run) -> str:
    name = run.id if run.dir.parent == runs.store() else run.dir
    judge = "" if can_judge(run.job.base) else f" --judge {QWEN2_VL}"
    return (
        f"See it:     python -m crce generate {run.job.spec.target!r} --run {name} --out pictures\n"
        f"Measure it: python -m crce evaluate {name}{judge}"
    )


def generate(
    prompts: Annotated[list[str], typer.Argument(help="The prompts; quote each one.")],
    out: Annotated[Path, typer.Option(help="Folder for the PNGs.")],
    run: Annotated[
        list[str] | None,
        typer.Option(help="A run's id or folder: draws before/ and after/. Several are combined."),
    ] = None,
    base: Annotated[str | None, typer.Option(help="The model.", show_default="the run's, else emoji-sd")] = None,
    strength: Annotated[float, typer.Option(help="Strength of the erasure: 0 is none, 1 full, 1.5 the most.")] = 1.0,
    images: Annotated[
        int, typer.Option(min=1, max=1000, help="Pictures per prompt, with seeds --seed, --seed + 1, …")
    ] = 1,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    yes: Yes = False,
    as_json: AsJson = False,
):
    """Draw prompts before and after an erasure, on the same seeds.

    Examples:

    ```
    python -m crce generate "a dog" "a cat" --images 4 --out pictures
    python -m crce generate "a puppy" --run 20260801-093015-dog-3fa2 --strength 0.5 --out pictures
    python -m crce generate "a dog" "a cat" --run out/dog --run out/cat --out pictures
    ```
    """
    if not 0 <= strength <= MOST_STRENGTH:
        raise CrceError(f"The strength is {strength:g}; give a value from 0 (none) to {MOST_STRENGTH:g}; 1 is full.")
    erased = [_open_erased(name, base) for name in run or ()]
    terminal.warn(filter(None, map(describe_unknown_base, erased)))
    model = load(base or (erased[0].job.base if erased else bases.EMOJI_SD), device, dtype, yes)
    pairs = list(product(prompts, range(seed, seed + images)))
    written = _draw(model, pairs, out / "before" if erased else out)
    if erased:
        from crce.methods.erased_weights import ErasedWeights, combine

        delta = combine([ErasedWeights.load(each.weights_path) for each in erased], model)
        with delta.applied(model, strength):
            written += _draw(model, pairs, out / "after", tuple(each.id for each in erased), strength)
    terminal.say({"images": written}, "\n".join(written), as_json)


def _open_erased(name: str, base: str | None) -> Run:
    """Opens a run. Raises CrceError if it has no weights or was made on another base model."""
    found = open_run(name)
    if base not in (None, found.job.base):
        raise CrceError(f"The run {found.id} was made on {found.job.base}; omit --base.")
    found.check_base(find_digest(found.job.base))
    if not found.erased:
        raise CrceError(f"The run {found.id} is {found.state} and has no weights yet. Finish it first.")
    return found


def _draw(
    model, pairs: list[tuple[str, int]], folder: Path, used: tuple[str, ...] = (), strength: float = 1.0
) -> list[str]:
    """Draws (prompt, seed) pairs, writes files such as `01-a-dog-0.png` and returns their paths. used: the ids of the
    runs whose changes are applied; each file says what it was drawn with."""
    from crce.picture_facts import PictureFacts, to_png_info

    with _writing(folder):  # first: drawing takes long
        folder.mkdir(parents=True, exist_ok=True)
    base = bases.public_name(model.base)
    with terminal.bar() as bar:
        task = bar.add_task(f"drawing {folder.name}", total=len(pairs))
        show = lambda done, of: bar.update(task, completed=done)  # noqa: E731
        pictures = model.generate_batch([prompt for prompt, _ in pairs], [seed for _, seed in pairs], progress=show)
    numbers = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompt for prompt, _ in pairs), 1)}
    names = {p: ConceptSpec(target=p).slug[:40] or "empty" for p in numbers}
    paths = [folder / f"{numbers[p]:02d}-{names[p]}-{seed}.png" for p, seed in pairs]
    with _writing(folder):
        for path, picture, (prompt, seed) in zip(paths, pictures, pairs, strict=True):
            picture.save(path, pnginfo=to_png_info(PictureFacts(base, (prompt,), (seed,), used, strength)))
    return [str(path) for path in paths]


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """What the disk refuses becomes a CrceError that names the folder."""
    try:
        yield
    except OSError as error:
        raise CrceError(f"{folder} cannot be written: {error.strerror}. Give another --out.") from None


def distances(
    concept: Concept, base: Base = bases.EMOJI_SD, device: Device = "auto", yes: Yes = False, as_json: AsJson = False
):
    """Print each term's distance to the target in the base's text encoder (the paper's Table 2), nearest first.

    Examples:

    ```
    python -m crce distances dog
    python -m crce distances my-spec.json --json
    ```
    """
    from crce.models import text_space

    spec = find_concept(concept)
    found = text_space.measure_distances(load(base, device, yes=yes), spec)
    rows = sorted(found["terms"], key=lambda row: (row["euclidean"] is None, row["euclidean"] or 0.0))
    columns = ("kind", "text", "cosine", "euclidean", "tokens")
    cells = [["too long" if row[key] is None else row[key] for key in columns] for row in rows]
    terminal.say({**found, "terms": rows}, terminal.table([*columns], cells), as_json)


def preview(
    concept: Concept,
    out: Annotated[Path, typer.Option(help="Folder for the PNGs: before/ and after/.")],
    base: Base = bases.EMOJI_SD,
    anchor: Anchor = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    yes: Yes = False,
    as_json: AsJson = False,
):
    """Preview an erasure within seconds: the target, three corefs and three retains, edited in closed form.

    It uses the method crce-uce; `erase` trains.

    Example:

    ```
    python -m crce preview dog --out pictures
    ```
    """
    from crce.training.loop import preview as edit_instantly
    from crce.worker.handlers import check_quick

    spec, model = find_concept(concept), load(base, device, dtype, yes)
    shown = [spec.target, *(t.text for t in (*spec.train_corefs[:3], *spec.train_retains[:3]))]
    check_quick(model, 2 * len(shown))
    began = time.monotonic()
    edited = edit_instantly(model, spec, anchor)
    seconds = round(time.monotonic() - began, 3)
    pairs = [(text, seed) for text in shown]
    written = _draw(model, pairs, out / "before")
    with edited.applied(model):
        written += _draw(model, pairs, out / "after")
    text = f"edited in {seconds} s\n" + "\n".join(written)
    terminal.say({"images": written, "edit_seconds": seconds}, text, as_json)


def methods(as_json: AsJson = False):
    """List the methods: kind, weights changed, steps and learning rate, source, what differs from what was published.

    The published steps and rates are for Stable Diffusion v1.4; those for emoji-sd were chosen with `sweep`.
    """
    rows = [{**asdict(facts), "defaults": _describe_preset(facts.key)} for facts in METHOD_FACTS.values()]
    about = [
        (r["key"], f"{r['kind']} · {r['touches']} · {r['defaults']}", r["what"], r["source"],
         *([f"Differs from the published method: {r['differs']}"] if r["differs"] else []))
        for r in rows
    ]  # fmt: skip
    terminal.say(rows, "\n".join("\n  ".join(lines) for lines in about), as_json)


def _describe_preset(method: str) -> str:
    """Steps × learning rate on both base models, which a closed form has not; and its λ on emoji-sd, if chosen."""
    ours = resolve_config(EraseConfig(method), bases.EMOJI_SD)
    damped = [] if ours.damping is None else [f"λ {ours.damping:g}"]
    if ours.closed_form:
        return " · ".join(["no steps", *(f"{bases.EMOJI_SD}: {each}" for each in damped)])
    steps, lr = METHOD_FACTS[method].published or (bases.BaseDefaults.erase_steps, bases.BaseDefaults.lr)
    tuned = ", ".join([f"{ours.steps} × {ours.lr:g}", *damped])
    return f"{bases.SD_V1_4}: {steps} × {lr:g} · {bases.EMOJI_SD}: {tuned}"
