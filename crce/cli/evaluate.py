"""Commands that measure erasures and write reports."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from crce import bases, runs
from crce.cli import terminal
from crce.cli.bases import prepare, prepare_judge
from crce.cli.options import (
    AsJson,
    Backbone,
    Base,
    Concept,
    Device,
    Dtype,
    Images,
    Judge,
    OldBackbone,
    RunName,
    Seed,
    UntilGone,
    Yes,
)
from crce.cli.runs import describe_run, describe_unknown_base, open_run
from crce.concepts.library import find_concept, library
from crce.config import EraseConfig
from crce.errors import CrceError
from crce.evaluation.report import Report, read_report, report_to_dict
from crce.judges.choices import AUTO
from crce.runs import Job, Run
from crce.runs.execute import draw_by_eye, execute
from crce.runs.models import Models


def evaluate(
    run: RunName,
    images: Images = 10,
    ask: Annotated[str, typer.Option(help="What to look for in a coref's picture: 'target' or 'coref'.")] = "target",
    judge: Judge = AUTO,
    yes: Yes = False,
    as_json: AsJson = False,
):
    """Measure an erasure: what the judge still sees, on the same seeds before and after.

    Acc_U: the share of the target's pictures that show it. Acc_C: the share of the corefs' pictures that show the
    target. Both should be low. Acc_R: the share of the retains' pictures that show the retain; it should stay at the
    base model's level. Writes report.json to the run's folder.

    The judge `endpoint` is the model CRCE_JUDGE_MODEL at OPENAI_BASE_URL, asked with the paper's prompt; its verdicts
    are kept, so an evaluation that breaks off continues where it was.

    Examples:

    ```
    python -m crce evaluate 20260801-093015-dog-3fa2
    python -m crce evaluate out/bat --images 20 --json
    python -m crce evaluate out/bat --judge qwen2-vl
    ```
    """
    found = open_run(run)
    terminal.warn(filter(None, [describe_unknown_base(found)]))
    prepare_judge(found.job.base, judge, yes)
    _measure(found, runs.EvaluationRequest(images, ask, judge))
    if found.not_judged:
        raise CrceError(f"The run {found.id} has no new report, for the reason above.")
    report = found.report or read_report(found.dir / "report.json")
    every = [report, *report.also]
    terminal.say(report_to_dict(report), terminal.accuracy_table(every), as_json)
    _describe_judge(report)
    terminal.warn([f"{each.concept}: {line}" for each in every for line in (each.warning, *each.doubts) if line])


def _measure(run: Run, evaluation: runs.EvaluationRequest, models: Models | None = None) -> None:
    run.clear("stop")
    terminal.follow(run, execute(run, models, evaluation=evaluation))


def _describe_judge(report: Report) -> None:
    """Who judged, what it cost and how far a person agrees, on stderr."""
    facts, usage, agreement = report.judged_by, report.usage, report.agreement
    lines = [
        f"judge: {report.judge} ({facts.version})" if facts else "",
        f"it gave {usage.text}" if usage and usage.text else "",
        f"agreement with a person: {agreement.text}" if agreement else "",
    ]
    for line in filter(None, lines):
        terminal.console.print(line, markup=False)


def calibrate(
    concept: Concept,
    base: Base = bases.EMOJI_SD,
    judge: Judge = AUTO,
    device: Device = "auto",
    dtype: Dtype = "auto",
    yes: Yes = False,
    as_json: AsJson = False,
):
    """Ask a judge about the base model's own pictures, before anything is erased.

    Shows for each term on how many of 10 pictures the judge sees it. A coref that the base never draws proves nothing
    when it is gone. A distractor shows something else: the judge should say no.

    Examples:

    ```
    python -m crce calibrate dog
    python -m crce calibrate dog --base CompVis/stable-diffusion-v1-4 --judge qwen2-vl
    ```
    """
    from crce.evaluation.coverage import calibrate as calibrate_terms

    spec, models = find_concept(concept), Models(device)
    prepare(base, device, dtype, yes)
    prepare_judge(base, judge, yes)
    model = models.get(base, dtype=dtype)
    asked = models.judge(base, judge)
    found = list(calibrate_terms(model, asked, spec))
    rows = [(row.kind, row.text, row.asked, f"{row.yes} of {row.of}", row.warning) for row in found]
    facts = {"judge": asdict(asked.facts), "terms": [asdict(row) | {"warning": row.warning} for row in found]}
    terminal.say(facts, terminal.table(["", "pictures of", "asked", "yes", ""], rows), as_json)


def demo(
    concept: Concept = "dog",
    base: Base = bases.EMOJI_SD,
    images: Images = 2,
    judge: Judge = AUTO,
    out: Annotated[Path | None, typer.Option(help="The run's folder.", show_default="a new run in the store")] = None,
    device: Device = "auto",
    yes: Yes = False,
    as_json: AsJson = False,
):
    """Erase a concept with the preset, measure it, and write an HTML page with pictures.

    Examples:

    ```
    python -m crce demo
    python -m crce demo cat --images 5
    ```
    """
    from crce.experiments.html_report import write_page

    job = Job(base, find_concept(concept), EraseConfig(), device)
    evaluation = runs.EvaluationRequest(images, judge=judge)
    prepare(base, device, yes=yes)
    prepare_judge(base, judge, yes)
    run, models = runs.create(job, out, queued=False), Models()
    _measure(run, evaluation, models)
    by_eye = terminal.show_progress("drawing the terms", draw_by_eye(run, models)) if run.not_judged else []
    page = write_page(run, by_eye)
    terminal.say({**describe_run(run), "page": str(page)}, str(page), as_json)


def cover(
    concept: Annotated[
        list[str] | None, typer.Argument(help="Concepts.", show_default="all, and what the judge knows")
    ] = None,
    base: Base = bases.EMOJI_SD,
    judge: Judge = AUTO,
    device: Device = "auto",
    dtype: Dtype = "auto",
    yes: Yes = False,
    as_json: AsJson = False,
):
    """Measure which terms of the library a base model can draw, and write covered.json next to it, or for a base from
    the Hub into CRCE_HOME.

    Accuracies count only covered terms. Run this on a new base model before the first erasure. Terms that are in
    covered.json already are not drawn again.

    Examples:

    ```
    python -m crce cover dog cat
    python -m crce cover --base out/my-base
    ```
    """
    from crce import files
    from crce.evaluation.coverage import measure_coverage

    specs = [find_concept(name) for name in concept] if concept else list(library().values())
    prepare(base, device, dtype, yes)
    prepare_judge(base, judge, yes)
    models = Models(device)
    model = models.get(base, dtype=dtype)
    asked = models.judge(base, judge)
    names = () if concept else tuple(asked.names)
    found = terminal.show_progress("drawing terms", measure_coverage(model, asked, specs, names))
    files.write_json(model.covered_file, found)
    covered = sum(concept.get("covered", False) for concept in found["concepts"].values())
    text = f"{covered} of {len(found['concepts'])} concepts are covered: {model.covered_file}"
    terminal.say(found, text, as_json)


def measure(
    concept: Annotated[list[str], typer.Argument(help="Concepts or spec files; a mean needs at least two.")],
    method: Annotated[list[str] | None, typer.Option(help="A method. Repeatable.", show_default="the README's")] = None,
    backbone: Backbone = EraseConfig.backbone,
    base: Base = bases.EMOJI_SD,
    images: Images = 10,
    steps: Annotated[int | None, typer.Option(help="Training steps.", show_default="the base's preset")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.", show_default="the base's preset")] = None,
    eta: Annotated[float, typer.Option(help="Negative guidance η.")] = EraseConfig.eta,
    seed: Seed = 0,
    seeds: Annotated[
        int, typer.Option(min=1, max=100, help="Training seeds of each concept and method: --seed, --seed + 1, …")
    ] = 1,
    until_gone: UntilGone = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    yes: Yes = False,
    on: OldBackbone = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the reports.", show_default="docs/results/table")] = None,
    as_json: AsJson = False,
):
    """Erase every concept with every method and seed under the same settings, and save the reports for `table`.

    You can stop at any time and repeat the command to continue: existing reports are not measured again.

    Examples:

    ```
    python -m crce measure dog cat horse --images 10 --seeds 3
    python -m crce measure dog cat --method crce --backbone ca --out out/on-ca
    ```
    """
    from crce import files
    from crce.experiments import tables

    methods, folder = method or list(tables.TABLE_METHODS), out or tables.REPORTS
    if not out:
        files.checkout("Give --out")
    specs = [find_concept(name) for name in concept]
    prepare(base, device, dtype, yes)
    planned = [
        Job(
            base,
            spec,
            EraseConfig(
                key, steps, lr, eta, backbone=on or backbone, seed=number, preview_every=0, until_gone=until_gone
            ),
            device,
            dtype,
        )
        for number in range(seed, seed + seeds)
        for spec in specs
        for key in methods
    ]
    terminal.watch(tables.measure(planned, images, folder))
    reports = [str(path) for path in sorted(folder.glob("*.json"))]
    terminal.say({"reports": reports}, "\n".join(reports), as_json)


def sweep(
    concept: Annotated[list[str], typer.Argument(help="Concepts or spec files that are in no table.")],
    method: Annotated[list[str] | None, typer.Option(help="A method. Repeatable.", show_default="all")] = None,
    base: Base = bases.EMOJI_SD,
    images: Images = 10,
    steps: Annotated[list[int] | None, typer.Option(help="Steps to try. Repeatable.", show_default="two")] = None,
    lr: Annotated[list[float] | None, typer.Option(help="A rate to try. Repeatable.", show_default="three")] = None,
    damping: Annotated[list[float] | None, typer.Option(help="A λ to try. Repeatable.", show_default="six")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the reports.", show_default="docs/results/sweeps")
    ] = None,
    as_json: AsJson = False,
):
    """Try at least six settings of each method on concepts outside the tables, and choose presets by a fixed rule.

    Among the settings that erase (Acc_U at most 5 %) and reach the highest H within a point, the one with the least
    drift; if none erases, the one with the lowest Acc_U. Prints what belongs into the base's crce.json. You can stop at
    any time and repeat the command to continue.

    Examples:

    ```
    python -m crce sweep fruit flower boat insect
    python -m crce sweep fruit boat --method mace --lr 0.001 --lr 0.003 --damping 10 --damping 100 --damping 1000
    ```
    """
    from crce import files
    from crce.experiments import sweep as sweeps

    folder = out or sweeps.SWEEPS
    if not out:
        files.checkout("Give --out")
    grid = sweeps.Grid(tuple(steps or ()), tuple(lr or ()), tuple(damping or ()))
    configs = [EraseConfig(key, seed=seed, preview_every=0) for key in method or sweeps.SWEPT]
    jobs = [Job(base, find_concept(name), config, device, dtype) for config in configs for name in concept]
    terminal.watch(sweeps.measure_settings(jobs, grid, images, folder))
    presets = sweeps.list_presets(sweeps.choose_all(sweeps.load_settings(folder)))
    terminal.say(presets, json.dumps(presets, indent=1), as_json)


def sheet(
    concept: Concept = "dog",
    base: Base = bases.EMOJI_SD,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    yes: Yes = False,
    out: Annotated[Path, typer.Option(help="Folder for methods.png and seconds.json.")] = Path("out/methods"),
    as_json: AsJson = False,
):
    """Erase one concept with every method and draw a contact sheet: methods × prompts, on the same seeds.

    You can stop at any time and repeat the command to continue.

    Example:

    ```
    python -m crce sheet frog --out out/frog
    ```
    """
    from crce.experiments.contact_sheet import contact_sheet

    spec = find_concept(concept)
    prepare(base, device, dtype, yes)
    job = Job(base, spec, EraseConfig(seed=seed, preview_every=0), device, dtype)
    terminal.watch(contact_sheet(job, out))
    paths = {"sheet": str(out / "methods.png"), "seconds": str(out / "seconds.json")}
    terminal.say(paths, paths["sheet"], as_json)


def table(as_json: AsJson = False):
    """Write the README's tables and the pages in docs/ from the reports in docs/results/. Needs a checkout."""
    from crce import files
    from crce.experiments import studies, tables

    files.checkout()
    tables.check_reports()
    tables.write_table()
    for path, text in studies.render_pages().items():
        files.write_atomic(path, text)
    found = tables.load_reports()
    terminal.say(list(map(report_to_dict, found)), f"{tables.README} was updated from {len(found)} reports.", as_json)
