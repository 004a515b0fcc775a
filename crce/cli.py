"""The command line: everything the app does, through the same functions. Imports torch only to draw or train."""

import os
import sys
import time
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Annotated, Literal

import typer

from crce import bases, jobs, rounds, runs, terminal
from crce.concepts import ConceptSpec, spec_to_dict
from crce.config import BACKBONES, CLOSED_FORM, METHOD_CARDS, EraseConfig, with_defaults
from crce.cost import needs, takes
from crce.errors import CrceError
from crce.library import SHIPPED, find_spec, library, own_path, publishable, save_spec
from crce.runs import Job, Run

app = typer.Typer(
    name="crce",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Erase a concept and its other names from a text-to-image model, and keep its neighbours.",
    epilog="Start with: python -m crce demo dog",
)
publish = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Publish concepts or erased weights on the Hugging Face Hub.",
)
app.add_typer(publish, name="publish")
datasets = typer.Typer(
    no_args_is_help=True, rich_markup_mode="markdown", help="Look after CorefConcept, or a dataset folder of your own."
)
app.add_typer(datasets, name="dataset")

Concept = Annotated[
    str, typer.Argument(help='A concept of the library ("dog", "bat (animal)") or the path of a spec file.')
]
Base = Annotated[str, typer.Option(help="emoji-sd, a folder with a diffusers pipeline, or a Hub id.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, or cuda:1 …")]
Dtype = Annotated[str, typer.Option(help="auto, fp32, fp16 or bf16. The trained weights are fp32 in any case.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout; progress goes to stderr.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's id (see `runs`) or its folder.")]
Seed = Annotated[int, typer.Option(help="Same seed, same result.")]
On = Annotated[
    str,
    typer.Option(
        help=f"The backbone: whose loss CRCE adds its corefs and retains to. One of {', '.join(BACKBONES)}. "
        "Steps and learning rate are then that method's. The other methods have none."
    ),
]
Images = Annotated[
    int, typer.Option(help="Pictures per term, seeds 0, 1, …; five times as many of the concept itself.")
]


@app.command()
def erase(
    concept: Concept,
    base: Base = bases.EMOJI_SD,
    method: Annotated[str, typer.Option(help="One of `methods`.")] = "crce",
    on: On = EraseConfig.on,
    steps: Annotated[int | None, typer.Option(help="Training steps.", show_default="the base's preset")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate of Adam.", show_default="the base's preset")] = None,
    eta: Annotated[float, typer.Option(help="Negative guidance η: how far past the empty prompt to push.")] = 1.0,
    corefs: Annotated[int, typer.Option(help="M: corefs drawn per step. 0 leaves them out.")] = 5,
    retains: Annotated[int, typer.Option(help="N: retains drawn per step. 0 leaves them out.")] = 3,
    rows: Annotated[
        int, typer.Option(help="Terms through the U-Net at once. 0: all, the fastest; 1 needs the least memory.")
    ] = 0,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    out: Annotated[Path | None, typer.Option(help="The run's folder.", show_default="a new run in the store")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, or the newest unfinished one of the concept.")
    ] = False,
    also: Annotated[list[str] | None, typer.Option(help="A further concept for the same run. Repeatable.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what it would cost: time, memory and disk.")
    ] = False,
    as_json: AsJson = False,
):
    """Erase a concept: the name and its corefs go, the retains stay.

    Trains here, in this process. Ctrl-C stops after the current step and keeps what is done; --resume goes on with
    it, under the run's own settings. The base itself is never changed: the result is delta.safetensors in the
    run's folder.

    Examples:

        python -m crce erase dog
        python -m crce erase "bat (animal)" --steps 300 --corefs 3 --out out/bat
        python -m crce erase cat --also dog --also horse
        python -m crce erase dog --on ca
        python -m crce erase my-spec.json --base CompVis/stable-diffusion-v1-4 --device cuda --dry-run
    """
    spec = find_spec(concept)
    if resume:
        run = _unfinished(spec, out)
    else:
        config = EraseConfig(
            method=method, steps=steps, lr=lr, eta=eta, corefs=corefs, retains=retains, on=on, seed=seed, rows=rows
        )
        others = tuple(map(find_spec, also or ()))
        job = Job(base, spec, config, device, dtype, also=others)
        if dry_run:
            return _foretell(job, as_json)
        run = runs.create(job, out, queued=False)
    terminal.follow(run, jobs.execute(run))
    terminal.say(_facts(run), f"{run.title} is erased: {run.delta_path}\n{_next_steps(run)}", as_json)


def _foretell(job: Job, as_json: bool) -> None:
    """Prints what the job would cost, and starts nothing."""
    from crce.preflight import estimate

    cost = estimate(jobs.Models().get(job.base, job.device, job.dtype), job.specs, job.config)
    terminal.say(asdict(cost), f"{takes(cost)} {needs(cost)}", as_json)


def _unfinished(spec: ConceptSpec, out: Path | None) -> Run:
    """Raises CrceError if there is nothing to go on with, or it is of another concept."""
    found = [runs.opened(out)] if out else [run for run in runs.all_runs() if run.job.spec.digest == spec.digest]
    run = next((run for run in found if run.state in ("interrupted", "stopped", "failed", "queued")), None)
    if not run:
        raise CrceError(f"There is no unfinished run of {spec.name!r} to resume. Leave --resume out to start one.")
    if run.job.spec.digest != spec.digest:
        raise CrceError(
            f"The run in {run.dir} is of {run.title!r} with other terms. Give its own concept, or a new --out."
        )
    run.clear("stop")
    return run


def _next_steps(run: Run) -> str:
    name = run.id if run.dir.parent == runs.store() else run.dir
    return (
        f"See it:     python -m crce generate {run.job.spec.target!r} --run {name} --out pictures\n"
        f"Measure it: python -m crce evaluate {name}"
    )


@app.command()
def generate(
    prompts: Annotated[list[str], typer.Argument(help="What to draw; quote each prompt.")],
    out: Annotated[Path, typer.Option(help="Folder for the PNGs.")],
    run: Annotated[
        list[str] | None, typer.Option(help="A run's id or folder: draws before/ and after/ it. Several are combined.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="The model.", show_default="the run's, else emoji-sd")] = None,
    strength: Annotated[float, typer.Option(help="How much of the erasure: 0 none, 1 all.")] = 1.0,
    images: Annotated[
        int, typer.Option(min=1, max=1000, help="Pictures per prompt, of seeds --seed, --seed + 1, …")
    ] = 1,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: AsJson = False,
):
    """Draw prompts, before and after an erasure with the same seeds.

    Examples:

        python -m crce generate "a dog" "a cat" --images 4 --out pictures
        python -m crce generate "a puppy" --run 20260801-093015-dog-3fa2 --strength 0.5 --out pictures
        python -m crce generate "a dog" "a cat" --run out/dog --run out/cat --out pictures
    """
    erased = [_erased(name, base) for name in run or ()]
    model = jobs.Models().get(base or (erased[0].job.base if erased else bases.EMOJI_SD), device, dtype)
    pairs = list(product(prompts, range(seed, seed + images)))
    written = _draw(model, pairs, out / "before" if erased else out)
    if erased:
        from crce.delta import Delta, combined

        delta = combined([Delta.load(each.delta_path) for each in erased], model)
        with delta.applied(model, strength):
            written += _draw(model, pairs, out / "after")
    terminal.say({"images": written}, "\n".join(written), as_json)


def _erased(name: str, base: str | None) -> Run:
    """Raises CrceError for a run without weights, and for one that was made on another base."""
    found = _run(name)
    if base not in (None, found.job.base):
        raise CrceError(f"The run {found.id} was made on {found.job.base}; leave --base out.")
    if not found.erased:
        raise CrceError(f"The run {found.id} is {found.state} and has no weights yet. Finish it first.")
    return found


def _draw(model, pairs: list[tuple[str, int]], folder: Path) -> list[str]:
    """Writes the pictures as `01-a-dog-0.png` and returns their paths."""
    with terminal.bar() as bar:
        task = bar.add_task(f"drawing {folder.name}", total=len(pairs))
        show = lambda done, of: bar.update(task, completed=done)  # noqa: E731
        pictures = model.generate([prompt for prompt, _ in pairs], [seed for _, seed in pairs], progress=show)
    numbers = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompt for prompt, _ in pairs), 1)}
    paths = [folder / f"{numbers[p]:02d}-{ConceptSpec(target=p).slug[:40]}-{seed}.png" for p, seed in pairs]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, picture in zip(paths, pictures, strict=True):
            picture.save(path)
    except OSError as error:
        raise CrceError(f"{folder} cannot be written: {error.strerror}. Give another --out.") from None
    return [str(path) for path in paths]


@app.command()
def distances(concept: Concept, base: Base = bases.EMOJI_SD, device: Device = "auto", as_json: AsJson = False):
    """How far every term is from the concept in the base's own text encoder (the paper's Table 2), nearest first.

    Examples:

        python -m crce distances dog
        python -m crce distances my-spec.json --json
    """
    from crce import geometry

    found = geometry.distances(jobs.Models().get(base, device), find_spec(concept))
    rows = sorted(found["terms"], key=lambda row: (row["euclidean"] is None, row["euclidean"] or 0.0))
    columns = ("kind", "text", "cosine", "euclidean", "tokens")
    cells = [["too long" if row[key] is None else row[key] for key in columns] for row in rows]
    terminal.say({**found, "terms": rows}, terminal.table([*columns], cells), as_json)


@app.command()
def preview(
    concept: Concept,
    out: Annotated[Path, typer.Option(help="Folder for the PNGs: before/ and after/.")],
    base: Base = bases.EMOJI_SD,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    as_json: AsJson = False,
):
    """See within seconds what erasing would do: the concept, three corefs and three retains, edited in closed form.

    It is a first look, by the method crce-uce; `erase` trains.

    Example:

        python -m crce preview dog --out pictures
    """
    from crce.erase import solved
    from crce.pictures import check_quick

    spec, model = find_spec(concept), jobs.Models().get(base, device, dtype)
    check_quick(model)
    began = time.monotonic()
    delta = solved(model, spec, EraseConfig("crce-uce"))
    seconds = round(time.monotonic() - began, 3)
    shown = [spec.target, *(t.text for t in (*spec.train_corefs[:3], *spec.train_retains[:3]))]
    pairs = [(text, seed) for text in shown]
    written = _draw(model, pairs, out / "before")
    with delta.applied(model):
        written += _draw(model, pairs, out / "after")
    text = f"edited in {seconds} s\n" + "\n".join(written)
    terminal.say({"images": written, "edit_seconds": seconds}, text, as_json)


@app.command()
def evaluate(
    run: RunName,
    images: Images = 10,
    ask: Annotated[str, typer.Option(help="What is asked of a coref's picture: the target, or the coref.")] = "target",
    as_json: AsJson = False,
):
    """Measure an erasure: what the judge still sees, on the same seeds before and after.

    Acc_U: pictures of the concept that still show it. Acc_C: the same of its corefs. Both should be low. Acc_R:
    pictures of the retains that show the retain; it should stay where the base is. Writes report.json in the run.

    Examples:

        python -m crce evaluate 20260801-093015-dog-3fa2
        python -m crce evaluate out/bat --images 20 --json
    """
    found = _run(run)
    _measure(found, images, ask)
    report = found.report
    every = [report, *report.get("also", [])]
    terminal.say(report, terminal.accuracies(every), as_json)
    terminal.warn([f"{each['concept']}: {each['alarm']}" for each in every if each["alarm"]])


def _measure(run: Run, images: int, ask: str = "target") -> None:
    run.clear("stop")
    terminal.follow(run, jobs.execute(run, evaluation=runs.evaluation(images, ask)))


@app.command()
def demo(
    concept: Concept = "dog",
    base: Base = bases.EMOJI_SD,
    images: Images = 2,
    out: Annotated[Path | None, typer.Option(help="The run's folder.", show_default="a new run in the store")] = None,
    device: Device = "auto",
    as_json: AsJson = False,
):
    """Erase a concept with the preset, measure it, and write one HTML page with the pictures.

    Examples:

        python -m crce demo
        python -m crce demo cat --images 5
    """
    from crce.demo import write_page

    run = runs.create(Job(base, find_spec(concept), EraseConfig(), device), out, queued=False)
    _measure(run, images)
    page = write_page(run)
    terminal.say({**_facts(run), "page": str(page)}, str(page), as_json)


@app.command()
def methods(as_json: AsJson = False):
    """List the methods: kind, weights touched, steps and learning rate, source.

    The published steps and rates are for Stable Diffusion v1.4; the others were found for emoji-sd by a small sweep.
    """
    cards = [{**asdict(card), "defaults": _defaults(card.key)} for card in METHOD_CARDS.values()]
    about = [(c["key"], f"{c['kind']} · {c['touches']} · {c['defaults']}", c["what"], c["source"]) for c in cards]
    terminal.say(cards, "\n".join("\n  ".join(lines) for lines in about), as_json)


def _defaults(method: str) -> str:
    """Steps × learning rate on both bases; a closed form has neither."""
    card = METHOD_CARDS[method]
    if card.kind == CLOSED_FORM:
        return "no steps"
    steps, lr = card.published or (bases.BaseDefaults.erase_steps, bases.BaseDefaults.lr)
    ours = with_defaults(EraseConfig(method), bases.EMOJI_SD)
    return f"{bases.SD_V1_4}: {steps} × {lr:g} · {bases.EMOJI_SD}: {ours.steps} × {ours.lr:g}"


@app.command()
def concepts(as_json: AsJson = False):
    """List the concepts of the library, your own included."""
    facts = [
        {"slug": slug, "name": s.name, "category": s.category, "corefs": len(s.corefs), "retains": len(s.retains)}
        for slug, s in library().items()
    ]
    rows = [(f["name"], f["category"], f["corefs"], f["retains"]) for f in facts]
    terminal.say(facts, terminal.table(["concept", "category", "corefs", "retains"], rows), as_json)


Model = Annotated[str, typer.Option(help="Another model of the endpoint.", show_default="CRCE_MODEL")]


@app.command()
def propose(
    name: Annotated[str, typer.Argument(help="The concept, as one would write it in a prompt.")],
    category: Annotated[Literal["object", "ip", "celebrity", "style"], typer.Option(help="What it is.")] = "object",
    sense: Annotated[str, typer.Option(help='Which meaning of an ambiguous word: "animal".')] = "",
    out: Annotated[Path | None, typer.Option(help="The spec file to write.", show_default="none is written")] = None,
    seed: Seed = 0,
    model: Model = "",
    as_json: AsJson = False,
):
    """Propose a concept's lists: corefs to erase with it, retains to keep, each with a certainty.

    Asks the language model of OPENAI_BASE_URL, OPENAI_API_KEY and CRCE_MODEL, with the paper's prompt; where none is
    set, the bundled lexicon. The terms are shown as they are written. An ambiguous word gets a spec for each sense:
    with --out bat.json, files such as bat-animal.json.

    Examples:

        python -m crce propose lighthouse --out lighthouse.json
        python -m crce propose bat --sense animal
        python -m crce propose "The Joker" --category ip --json
    """
    from crce.propose import proposer

    _must_be_json(out)
    who = proposer(model)
    terminal.console.print(f"asking {who.label}", markup=False)
    specs = terminal.writing(who.meanings(name, category, sense, seed))
    paths = _one_file_each(specs, out)
    for spec, path in zip(specs if paths else [], paths, strict=True):
        save_spec(spec, path)
    facts = [spec_to_dict(spec) for spec in specs]
    if as_json:
        return terminal.say({"proposer": who.label, "specs": facts, "paths": [str(p) for p in paths]}, "", True)
    for spec in specs:
        print(f"\n{spec.name}")
        terminal.say(None, _terms_table(spec), False)
    print("\n".join(map(str, paths)) or "\nNothing is kept. Give --out to write a spec file.")


@app.command()
def refine(
    concept: Concept,
    wish: Annotated[str, typer.Argument(help="What should change, in your words.")],
    yes: Annotated[bool, typer.Option("--yes", help="Apply what is proposed without asking.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="The spec file to write.", show_default="the file, or your own copy")
    ] = None,
    model: Model = "",
    as_json: AsJson = False,
):
    """Say what should change in a concept's lists, see the difference, and take it or leave it.

    "+" is new, "−" dropped, "⇄" moved to the other list, "~" given another certainty. Asks before anything is
    written; with --json it only shows, unless there is --yes. A concept of the library is kept as your own copy.
    Without a language model a handful of requests is understood; "help" lists them.

    Examples:

        python -m crce refine dog "fewer breeds, more everyday names"
        python -m crce refine my-dog.json "drop bow-wow" --yes
    """
    from crce.propose import proposer

    _must_be_json(out)
    spec, who = find_spec(concept), proposer(model)
    revision = terminal.writing(who.revise(spec, wish))
    labels = [change.label for change in rounds.changes(spec, revision.spec, revision.why)]
    if not as_json:
        print("\n".join([revision.says, *labels]))
    path = out or (Path(concept) if concept.endswith(".json") else own_path(revision.spec))
    taken = bool(labels) and (yes or (not as_json and typer.confirm("Apply?", err=True)))
    if taken:
        save_spec(revision.spec, path)
    facts = {"says": revision.says, "changes": labels, "applied": taken, "path": str(path) if taken else None}
    terminal.say(facts, str(path) if taken else "Nothing is changed.", as_json)


@app.command()
def suggest(
    category: Annotated[Literal["ip", "celebrity"], typer.Argument(help="Characters, or real people.")],
    model: Model = "",
    as_json: AsJson = False,
):
    """Suggest concepts to begin with, by the paper's own two prompts; without a language model, CorefConcept's.

    Example:

        python -m crce suggest ip
    """
    from crce.propose import finished, proposer

    names = finished(proposer(model).names(category))
    terminal.say(names, "\n".join(names), as_json)


def _must_be_json(out: Path | None) -> None:
    if out and out.suffix != ".json":
        raise CrceError(f"--out is {str(out)!r}; a spec file's name ends in .json.")


def _one_file_each(specs: list[ConceptSpec], out: Path | None) -> list[Path]:
    """Several senses go beside each other: bat.json becomes bat-animal.json and bat-club.json."""
    if not out or len(specs) == 1:
        return [out] if out else []
    return [out.with_name(f"{out.stem}-{ConceptSpec(spec.sense).slug}.json") for spec in specs]


def _terms_table(spec: ConceptSpec):
    rows = [
        (rounds.LISTS[kind], term.text, term.certainty, term.split, term.note)
        for kind in rounds.LISTS
        for term in getattr(spec, kind)
    ]
    return terminal.table(["list", "term", "certainty", "split", "why"], rows)


@app.command("runs")
def list_runs(as_json: AsJson = False):
    """List the runs of the store, newest first."""
    facts = [_facts(run) for run in runs.all_runs()]
    rows = [(f["id"], f["state"], f["title"], f["method"], f["done"]) for f in facts]
    terminal.say(facts, terminal.table(["run", "state", "concept", "method", "done"], rows), as_json)


@app.command()
def stop(run: RunName, as_json: AsJson = False):
    """Stop a run after its current step, or take it out of the queue. It can be resumed."""
    found = _run(run)
    found.request_stop()
    terminal.say(_facts(found), f"{found.id}: {found.state}{', stopping' * found.stopping}", as_json)


@app.command()
def resume(run: RunName, as_json: AsJson = False):
    """Queue a stopped, failed or interrupted run again; the worker takes it up from its checkpoint.

    To watch it here instead: python -m crce erase CONCEPT --resume
    """
    found = _run(run)
    found.request_resume()
    jobs.ensure_worker()
    terminal.say(_facts(found), f"{found.id}: {found.state}", as_json)


@app.command()
def worker(device: Device = "auto"):
    """Work on queued runs and draw for open tabs, until idle for 15 minutes. The app starts one by itself.

    With several devices, start one for each: python -m crce worker --device cuda:1
    """
    from crce.worker import serve

    if not serve(device):
        terminal.console.print(f"There is a worker for {device} already.")


@app.command()
def cover(base: Base = bases.EMOJI_SD, device: Device = "auto", dtype: Dtype = "auto", as_json: AsJson = False):
    """Measure which terms of the library a base can draw at all, and write covered.json beside it.

    Accuracies count covered terms only. Run it on a base before the first erasure.
    """
    from crce import files
    from crce.evaluate import coverage

    models = jobs.Models(device)
    model = models.get(base, dtype=dtype)
    found = terminal.result("drawing terms", coverage(model, models.judge(base), list(library().values())))
    files.write_json(model.covered_file, found)
    covered = sum(concept["covered"] for concept in found["concepts"].values())
    text = f"{covered} of {len(found['concepts'])} concepts are covered: {model.covered_file}"
    terminal.say(found, text, as_json)


@app.command()
def measure(
    concept: Annotated[list[str], typer.Argument(help="Concepts or spec files; a mean over them needs at least two.")],
    method: Annotated[list[str] | None, typer.Option(help="Once for each.", show_default="the README's")] = None,
    on: On = EraseConfig.on,
    base: Base = bases.EMOJI_SD,
    images: Images = 10,
    steps: Annotated[int | None, typer.Option(help="Training steps.", show_default="the base's preset")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.", show_default="the base's preset")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    out: Annotated[Path | None, typer.Option(help="Folder for the reports.", show_default="docs/results/table")] = None,
    as_json: AsJson = False,
):
    """Erase every concept with every method under the same settings, and keep the reports for `table`.

    What is measured already is not measured again, so it can be stopped at any time and goes on when called again.

    Example:

        python -m crce measure dog cat horse --images 10
        python -m crce measure dog cat --method crce --on ca --out out/on-ca
    """
    from crce import experiment, files

    methods, folder = method or list(experiment.TABLE_METHODS), out or experiment.REPORTS
    if not out:
        files.checkout("Give --out")
    planned = [
        Job(base, find_spec(name), EraseConfig(key, steps, lr, on=on, seed=seed, preview_every=0), device, dtype)
        for name in concept
        for key in methods
    ]
    terminal.watch(experiment.measure(planned, images, folder))
    reports = [str(path) for path in sorted(folder.glob("*.json"))]
    terminal.say({"reports": reports}, "\n".join(reports), as_json)


@app.command()
def sheet(
    concept: Concept = "dog",
    base: Base = bases.EMOJI_SD,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    out: Annotated[Path, typer.Option(help="Folder for methods.png and seconds.json.")] = Path("out/methods"),
    as_json: AsJson = False,
):
    """Erase one concept with every method, and draw them all as one picture: methods × prompts, the same seeds.

    It can be stopped at any time and goes on when called again.

    Example:

        python -m crce sheet frog --out out/frog
    """
    from crce.contact import contact_sheet

    job = Job(base, find_spec(concept), EraseConfig(seed=seed, preview_every=0), device, dtype)
    terminal.watch(contact_sheet(job, out))
    written = {"sheet": str(out / "methods.png"), "seconds": str(out / "seconds.json")}
    terminal.say(written, written["sheet"], as_json)


@app.command()
def table(as_json: AsJson = False):
    """Write the README's table and the pages in docs/ from the reports in docs/results/. Needs a checkout."""
    from crce import experiment, files, studies

    files.checkout()
    experiment.write_table()
    for path, text in studies.pages().items():
        files.write_atomic(path, text)
    found = experiment.reports()
    terminal.say(found, f"{experiment.README} has the table of {len(found)} reports.", as_json)


@datasets.command("check")
def check_dataset(
    folder: Annotated[Path, typer.Argument(help="Holds CATEGORY/CONCEPT.json.", show_default="corefconcept")] = SHIPPED,
    as_json: AsJson = False,
):
    """Check every spec of a folder, and end with 1 where something is wrong.

    Form: each file is a spec and lies where its name says; 15 corefs and 15 retains, 10 and 5 of each to train and to
    test with. Rules, for each term: no duplicate; no other entity named (leak); no retain inside a coref (contains);
    not vague; not long; at most 3 names with an addition (modifiers); another sense of an ambiguous word is kept
    (sense); no coref of two concepts (taken). What the paper prints stands as it is, so there the rules only warn.

    Examples:

        python -m crce dataset check
        python -m crce dataset check my-dataset --json
    """
    from crce import dataset

    found = dataset.check(folder)
    lines = [*(f"warning: {line}" for line in found.warnings), *(f"error: {line}" for line in found.problems)]
    sums = f"{len(found.problems)} errors, {len(found.warnings)} warnings"
    text = "\n".join([*lines, f"{found.concepts} concepts, {found.terms} terms: {sums}."])
    terminal.say(asdict(found), text, as_json)
    raise typer.Exit(bool(found.problems))


@datasets.command("card")
def write_card(as_json: AsJson = False):
    """Count what corefconcept/ holds, and write the header and the contents of its card, README.md.

    Do it after a change of the specs; the tests compare the two. Needs a checkout.
    """
    from crce import dataset, files

    path = files.checkout() / "corefconcept" / "README.md"
    files.write_atomic(path, dataset.card(dataset.read(SHIPPED)))
    terminal.say({"card": str(path)}, str(path), as_json)


Repo = Annotated[str, typer.Argument(help="The repository: user/name, or a name of your own.")]
Private = Annotated[bool, typer.Option("--private/--public", help="Who can see a repository that is created now.")]
PullRequest = Annotated[bool, typer.Option("--pull-request", help="Propose the change instead of making it.")]
Tag = Annotated[str, typer.Option(help="A tag for this version, such as v1.")]


@publish.command("dataset")
def publish_dataset(
    repo: Repo,
    concept: Annotated[
        list[str] | None, typer.Argument(help="Concepts.", show_default="CorefConcept and your own")
    ] = None,
    private: Private = True,
    pull_request: PullRequest = False,
    tag: Tag = "",
    as_json: AsJson = False,
):
    """Publish concepts as a dataset with its card, in one commit. What is there already is kept.

    Examples:

        python -m crce publish dataset CorefConcept dog "bat (animal)"
        python -m crce publish dataset someone/CorefConcept dog --pull-request
    """
    from crce.hub import Hub

    specs = [find_spec(name) for name in concept] if concept else list(publishable().values())
    done = Hub.connect().publish_dataset(specs, repo, private=private, pull_request=pull_request, tag=tag)
    terminal.say(asdict(done), done.url, as_json)


@publish.command("weights")
def publish_weights(
    run: RunName,
    repo: Repo,
    private: Private = True,
    pull_request: PullRequest = False,
    tag: Tag = "",
    dataset: Annotated[str, typer.Option(help="The dataset of the terms on the Hub, for the card.")] = "",
    as_json: AsJson = False,
):
    """Publish a finished run's weights with their model card, in one commit.

    Example:

        python -m crce publish weights 20260801-093015-dog-3fa2 emoji-sd-without-dog
    """
    from crce.hub import Hub

    found = _run(run)
    done = Hub.connect().publish_weights(
        found, repo, private=private, pull_request=pull_request, tag=tag, dataset_repo=dataset
    )
    terminal.say(asdict(done), done.url, as_json)


def _run(name: str) -> Run:
    """By folder where there is one, else by id. Raises CrceError."""
    return runs.opened(Path(name)) if Path(name).is_dir() else runs.find(name)


def _facts(run: Run) -> dict:
    """What --json says of a run."""
    job, progress, failed = run.job, run.progress, run.last("failed")
    return {
        "id": run.id,
        "dir": str(run.dir.resolve()),
        "state": run.state,
        "title": run.title,
        "concept": job.spec.name,
        "digest": job.spec.digest,
        "base": job.base,
        "method": job.config.label,
        "config": asdict(job.config),
        "created": time.strftime("%FT%TZ", time.gmtime(job.created)),
        "done": f"{progress.done}/{progress.of} {progress.phase}" if progress else "",
        "message": failed["message"] if failed and run.state == "failed" else None,
        "delta": str(run.delta_path.resolve()) if run.erased else None,
    }


def main() -> None:
    """Runs a command; a CrceError is one line on stderr and exit code 1."""
    # The libraries' advice is not about what was asked here; what goes wrong is said by a CrceError.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    try:
        app()
    except CrceError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
