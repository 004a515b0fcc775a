"""Compare: the same prompts and seeds before and after, with the judge's verdict on each picture."""

import base64
import io
import uuid
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder
from PIL import Image

from app import news
from app.components import data_url, encode_png, html_panel, pulse, render, shrink
from app.errors import in_page_words, report_errors
from app.events import PLAIN_PULSE, QUIET
from app.session import people
from app.session.comparison import Comparison, Prompt, Row, Title
from app.tabs import compare_bundle, compare_person, erase_form, run_view
from app.tabs.comparison_sheet import draw_sheet
from app.tabs.erase import EraseTab
from app.tabs.start import StartTab
from app.worker import WorkerRequest, tab_id, waiting
from crce import bases, files, runs
from crce.base_version import find_digest, fits
from crce.concepts.drawn import Record, read_record
from crce.concepts.library import find_concept
from crce.concepts.spec import ConceptSpec, Term
from crce.config import MOST_STRENGTH
from crce.cost import format_duration
from crce.errors import CrceError
from crce.evaluation.metrics import METRICS
from crce.judges.choices import AUTO, can_judge, choose_judge
from crce.picture_facts import PictureFacts, read_facts, to_png_info
from crce.runs import MOST_IMAGES, Run
from crce.text import require_plain
from crce.worker.answers import Cell, GenerateAnswer
from crce.worker.client import ensure_workers
from crce.worker.requests import Column, GenerateRequest

MAX_RUNS, MAX_SEEDS = 3, 6
KINDS = {"concept": "target", "names": "coref", "neighbours": "retain"}
_LABELS = {"target": "must go", "coref": "must go", "retain": "must stay", "typed": "your prompt"}
UNKNOWN_VERSION = " · base version not recorded, taken to fit"
_SIDE = 512
_PATIENCE = 24 * 3600  # seconds: the few pictures that a CPU draws of a large model take long


@dataclass(frozen=True)
class CompareForm:
    """What to draw: a field for each component. combine: whether a last column has the changes of all runs."""

    runs: list[str]
    typed: str
    kinds: list[str]
    terms: float
    seeds: float
    strength: float
    combine: bool
    judge: str

    @property
    def combined(self) -> bool:
        return self.combine and len(self.runs) > 1


@dataclass(frozen=True)
class CompareTab:
    """form: the components by the fields of `CompareForm`. comparison: what is drawn, or None."""

    form: dict[str, Any]
    load: gr.UploadButton
    draw: gr.Button
    comparison: gr.State
    pulse: gr.HTML
    grid: gr.HTML
    hint: gr.Markdown
    pair: gr.ImageSlider
    scores: gr.HTML
    person: gr.HTML
    images: gr.Number
    evaluate: gr.Button
    time: gr.Markdown
    bundle: compare_bundle.BundlePanel


# What is drawn


def list_choices() -> list[tuple[str, str]]:
    """The runs that have something to compare; those of one name and method with the time, and those of one minute
    with the end of their ids too. Those of another version of their base, which nothing can draw here, are marked."""
    erased = _list_erased()
    present = {base: _find_digest(base) for base in {run.job.base for run in erased}}
    old = {run.id for run in erased if not fits(run.job.base_digest, present[run.job.base])}
    found = [
        (f"{run.title} · {run.facts.label}{' · other version of its base' * (run.id in old)}", run) for run in erased
    ]
    if len(present) > 1:
        found = [(f"{label} · {bases.public_name(run.job.base)}", run) for label, run in found]
    for tell in (run_view.tell_when, lambda run: run.id[-4:]):
        counts = Counter(label for label, _ in found)
        found = [(label if counts[label] == 1 else f"{label} · {tell(run)}", run) for label, run in found]
    return [(label, run.id) for label, run in found]


def _find_digest(base: str) -> str:
    """Empty for a base that is not here any more: drawing says so."""
    try:
        return find_digest(base)
    except CrceError:
        return ""


def _list_erased() -> list[Run]:
    return [run for run in runs.all_runs() if run.erased]


def choose_prompts(spec: ConceptSpec, kinds: list[str], terms: int, typed: str, record: Record) -> list[Prompt]:
    """The typed prompts, then `terms` held-out terms of each kind: those used for training would flatter. Terms that
    the base does not draw come last: they would show nothing."""
    counts = record.count_terms(spec)
    drawn = {text: yes >= record.least for text, (yes, _) in counts.items()}

    def choose(kind: str, held_out: list[Term]) -> list[Prompt]:
        texts = sorted((term.text for term in held_out), key=lambda text: drawn.get(text) is False)
        asked = (spec.name if kind == "coref" else text for text in texts)
        return [Prompt(kind, text, ask, drawn.get(text)) for text, ask in zip(texts, asked, strict=True)][:terms]

    listed = {
        "target": [Prompt("target", spec.target, spec.name, record.draws(spec))],
        "coref": choose("coref", spec.test_corefs),
        "retain": choose("retain", spec.test_retains),
    }
    lines = [require_plain(line.strip(), "The prompt") for line in typed.split("\n") if line.strip()]
    own = [Prompt("typed", line, spec.name) for line in lines]
    return [*own, *(prompt for kind in KINDS.values() if kind in kinds for prompt in listed[kind])]


def judge_outcome(kind: str, column: int, yes: bool | None) -> bool | None:
    """Whether the picture is as expected. None if nothing is: the base's own, typed prompts, no verdict."""
    if yes is None or column == 0 or kind == "typed":
        return None
    return yes if kind == "retain" else not yes


@waiting
@report_errors
def draw(http: gr.Request, **values: Any) -> Generator[Any, Any, None]:
    """Row by row, so that the first pictures appear while the others are drawn."""
    form = CompareForm(**values)
    chosen = [runs.find(name) for name in form.runs]
    base, spec = _find_common(chosen)
    kinds = [KINDS[name] for name in form.kinds]
    prompts = choose_prompts(spec, kinds, int(form.terms), form.typed, read_record(base))
    if not prompts:
        raise CrceError("Nothing to draw. Choose what to show, or enter a prompt.")
    titles, seeds = _list_titles(base, chosen, form), list(range(int(form.seeds)))
    in_all = len(prompts) * len(seeds) * len(titles)
    judge = form.judge.strip() or AUTO
    named = bases.public_name(choose_judge(base, judge)) if can_judge(base, judge) or judge != AUTO else ""
    comparison = Comparison(
        spec.name, titles, seeds, len(prompts), judge=named, base=bases.public_name(base), runs=tuple(form.runs),
        strength=form.strength,
    )  # fmt: skip
    neighbours = [spec.name, *(term.text for term in spec.retains)]
    yield render_grid(comparison), comparison
    for prompt in prompts:
        request = GenerateRequest(
            tab_id(http, "compare"), base, _list_columns(form), [prompt.text], seeds, [prompt.ask],
            in_all=in_all, judge=judge, neighbours=neighbours,
        )  # fmt: skip
        try:
            answer: GenerateAnswer | None = yield WorkerRequest(request, timeout=_PATIENCE)
        except CrceError as error:
            # A prompt of one's own may be too long; the others are drawn all the same.
            comparison = comparison.without_one(str(error))
            if prompt.kind == "typed":
                yield render_grid(comparison), comparison
                continue
            yield render_grid(replace(comparison, prompts=len(comparison.rows))), comparison
            raise
        if answer is None:
            return
        comparison = replace(comparison, rows=(*comparison.rows, Row(prompt, answer.columns)))
        yield render_grid(comparison), comparison


def _list_columns(form: CompareForm) -> list[Column]:
    """The base, each run, and if asked for all runs combined."""
    columns = [Column(), *(Column(name, strength=form.strength) for name in form.runs)]
    return [*columns, Column(form.runs[0], form.runs[1:], form.strength)] if form.combined else columns


def _find_common(chosen: list[Run]) -> tuple[str, ConceptSpec]:
    """The base of the runs and the concept of the first.

    Raises CrceError for runs of different bases or versions of a base, and for a version that is not the present one.
    """
    if not chosen:
        return bases.EMOJI_SD, find_concept("dog")
    used = {run.job.base for run in chosen}
    if len(used) > 1:
        named = ", ".join(sorted(map(bases.public_name, used)))
        raise CrceError(f"These runs use different base models ({named}). Choose runs of one base.")
    base = used.pop()
    versions = {run.job.base_digest[:8] for run in chosen} - {""}
    if len(versions) > 1:
        raise CrceError(
            f"These runs belong to different versions of {bases.public_name(base)} ({', '.join(sorted(versions))}). "
            "Choose runs of one version."
        )
    for run in chosen:
        run.check_base(find_digest(base))
    return base, chosen[0].job.spec


def _list_titles(base: str, chosen: list[Run], form: CompareForm) -> list[Title]:
    after = [
        Title(
            run.title,
            run.job.config.title + UNKNOWN_VERSION * (not run.job.base_digest),
            run.id if form.strength == 1 else "",
        )
        for run in chosen
    ]
    return [Title("before", base), *after, *([Title("combined", "changes of all runs")] if form.combined else [])]


# What the tab shows


def render_grid(comparison: Comparison | None) -> str:
    if comparison is None:
        return render("grid", titles=[])
    rows = [
        {
            "kind": row.prompt.kind,
            "prompt": row.prompt.text,
            "label": _describe_row(row.prompt),
            "cells": _describe(row),
        }
        for row in comparison.rows
    ]
    return render(
        "grid",
        run=comparison.runs[0] if comparison.runs else "",
        rows=rows,
        missing=comparison.prompts - len(rows),
        titles=comparison.titles,
        seeds=comparison.seeds,
        concept=comparison.concept,
        problems=[in_page_words(problem) for problem in comparison.problems],
        sheet=data_url(draw_sheet(comparison), "image/png") if comparison.complete else "",
    )


def _describe_row(prompt: Prompt) -> str:
    return "not drawn by the base: says nothing" if prompt.drawn is False else _LABELS[prompt.kind]


def _describe(row: Row) -> list[list[dict]]:
    return [
        [_describe_picture(row.prompt, column, picture) for picture in pictures]
        for column, pictures in enumerate(row.columns)
    ]


def _describe_picture(prompt: Prompt, column: int, picture: Cell) -> dict:
    verdict = "The judge cannot tell"
    if picture.yes is not None:
        verdict = f"The judge sees {'a' if picture.yes else 'no'} “{prompt.ask}” (p = {picture.p:.2f})"
        if picture.guess:
            verdict += f"; its first guess is “{picture.guess}”"
    src = data_url(shrink(base64.b64decode(picture.png)), "image/png")
    # Where the base draws nothing of it, it proves nothing that it is gone.
    expected = None if prompt.drawn is False else judge_outcome(prompt.kind, column, picture.yes)
    return {"src": src, "expected": expected, "verdict": verdict}


@report_errors
def render_scores(ids: list[str]) -> str:
    """The accuracies of the chosen runs with n and interval, next to those of the base; in a table of its own for each
    concept and version of a base, since only the same pictures can be compared."""
    # A run may have been deleted in another window since it was chosen.
    erased = {run.id: run for run in _list_erased()}
    groups: dict[str, list[Run]] = {}
    for name in ids:
        if run := erased.get(name):
            groups.setdefault(_describe_base(run), []).append(run)
    return render("scores", groups=[_describe_scores(title, found) for title, found in groups.items()], metrics=METRICS)


def _describe_base(run: Run) -> str:
    """What the accuracies of a run are of."""
    base, digest = bases.public_name(run.job.base), run.job.base_digest[:8]
    return f"“{run.job.spec.name}” of {base}{f', version {digest}' * bool(digest)}"


def _describe_scores(title: str, found: list[Run]) -> dict:
    runs = [
        {"title": run.title, "progress": _describe_work(run), "report": run.report, "agreement": run.agreement}
        for run in found
    ]
    return {"title": title, "runs": runs, "first": next((run["report"] for run in runs if run["report"]), None)}


def find_news(found: list[Run]) -> object:
    """Of the runs that can be chosen."""
    return news.follow(run for run in found if run.erased)


def _describe_work(run: Run) -> str:
    state = run.state
    return run_view.summarize(run).description if state in ("queued", "running") else ""


@report_errors
def estimate_time(ids: list[str], images: float | None) -> str:
    """How long the evaluation takes, at the pace of the last one on this machine; empty without one."""
    reports = [found for run in runs.all_runs() if (found := run.scores).seconds]
    if not ids or not images or not reports:
        return ""
    return f"about {format_duration((reports[0].seconds or 0.0) / reports[0].images * images * len(ids))}"


# What the user does


@report_errors
def refresh_choices(ids: list[str]) -> gr.Dropdown:
    """The runs to choose from. The selection stays; if it is empty, the newest run is selected."""
    choices = list_choices()
    kept = [name for name in ids if any(name == other for _, other in choices)]
    return gr.Dropdown(choices, value=kept or [name for _, name in choices[:1]])


@report_errors
def follow_selection(ids: list[str], images: float | None, judge: str) -> tuple:
    """What depends on the chosen runs: scores, time, the judges for their base; and nothing packed of others."""
    base = next((run.job.base for run in _list_erased() if run.id in ids), bases.EMOJI_SD)
    judges = erase_form.update_judges(base, judge)
    return render_scores(ids), estimate_time(ids, images), judges, gr.update(value=None, visible=False)


@report_errors
def show_pair(comparison: Comparison, event: gr.EventData) -> tuple:
    """One picture at full size, before and after."""
    number, column, place = (int(event._data[key]) for key in ("row", "column", "place"))
    row = comparison.rows[number]
    column = column or min(1, len(row.columns) - 1)
    before, after = (_save_picture(comparison, number, side, place) for side in (0, column))
    title = comparison.titles[column].name
    label = f"“{row.prompt.text}”, seed {comparison.seeds[place]}: before | {title}"
    return gr.ImageSlider((before, after), label=label, visible=True), gr.Markdown(visible=False)


def _save_picture(comparison: Comparison, number: int, column: int, place: int) -> str:
    """The picture, enlarged, as a file to download that says what it was drawn with."""
    row = comparison.rows[number]
    png = base64.b64decode(row.columns[column][place].png)
    image = Image.open(io.BytesIO(png)).convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    # The last column may have the changes of all runs.
    used = comparison.runs[column - 1 : column] or comparison.runs if column else ()
    seed = comparison.seeds[place]
    facts = PictureFacts(comparison.base, (row.prompt.text,), (seed,), used, comparison.strength if used else 1.0)
    # Below the folder that Gradio serves and clears after a day.
    folder = Path(get_upload_folder()) / f"picture-{uuid.uuid4().hex}"
    path = folder / f"{ConceptSpec(row.prompt.text).slug[:40]}-{seed}-{'after' if column else 'before'}.png"
    files.write_atomic(path, encode_png(image, to_png_info(facts)))
    return str(path)


@report_errors
def load_picture(path: str, chosen: list[str]) -> tuple:
    """Fills in what a saved picture was drawn with: runs, prompts, seeds and strength."""
    facts, known = read_facts(Path(path)), [run.id for run in _list_erased()]
    there = [name for name in facts.runs if name in known][:MAX_RUNS]
    lost, last = len(facts.runs) - len(there), max(facts.seeds)
    notes = [f"{lost} of its runs are not here any more."] if lost else []
    notes += [f"Its seed {last} is beyond those that are drawn here."] if last >= MAX_SEEDS else []
    gr.Info(" ".join(["The settings of the picture were taken. Press Draw to draw it again.", *notes]))
    choice = gr.Dropdown(list_choices(), value=there or chosen)
    return choice, "\n".join(facts.prompts), [], min(last + 1, MAX_SEEDS), facts.strength if facts.runs else 1.0


@report_errors
def read_link(http: gr.Request) -> str:
    """The run that the page's address names, if it can be compared."""
    name = http.query_params.get("run", "")
    return name if any(run.id == name for run in _list_erased()) else gr.skip()


@report_errors
def evaluate(ids: list[str], images: float | None, judge: str = AUTO) -> str:
    if not ids:
        raise CrceError("Choose a run to evaluate first.")
    if images is None or not 1 <= images <= MOST_IMAGES:
        given = "empty" if images is None else f"{images:.0f}"
        raise CrceError(f"Pictures per term is {given}; give a whole number from 1 to {MOST_IMAGES}.")
    for name in ids:
        people.require_own(runs.find(name)).request_evaluate(int(images), judge=judge.strip() or AUTO)
    ensure_workers()
    return render_scores(ids)


@report_errors
def open_from_card(event: gr.EventData) -> tuple:
    """A Compare button of a run's card was pressed."""
    return open_run(event._data["id"])


def open_run(name: str) -> tuple:
    return gr.Tabs(selected="compare"), gr.Dropdown(list_choices(), value=[name])


# The tab


def build() -> CompareTab:
    comparison, news_pulse = gr.State(None), pulse("compare")
    form, load, draw_button = _build_form()
    with gr.Row(equal_height=False):
        with gr.Column(scale=7, min_width=520):
            grid = html_panel(render_grid(None))
        with gr.Column(scale=4, min_width=320):
            hint = gr.Markdown("Click a picture to compare before and after at full size.", elem_classes="mute")
            pair = gr.ImageSlider(
                format="png", type="pil", visible=False, interactive=False, slider_position=50, height=400,
                buttons=["download", "fullscreen"],
            )  # fmt: skip
            scores = html_panel()
            with gr.Accordion("Judge the pictures yourself", open=False):
                person = html_panel(compare_person.render_person(None))
            form["judge"] = erase_form.build_judge()
            with gr.Row(elem_classes="line"):
                images = gr.Number(10, label="Pictures per term", precision=0, min_width=110)
                with gr.Column(min_width=160):
                    evaluate_button = gr.Button("Evaluate all")
                    time = gr.Markdown(elem_classes="mute")
            bundle = compare_bundle.build()
    return CompareTab(
        form,
        load,
        draw_button,
        comparison,
        news_pulse,
        grid,
        hint,
        pair,
        scores,
        person,
        images,
        evaluate_button,
        time,
        bundle,
    )


def _build_form() -> tuple[dict[str, Any], gr.UploadButton, gr.Button]:
    form: dict[str, Any] = {}
    with gr.Row(elem_classes="line"):
        form["runs"] = gr.Dropdown(
            list_choices(), value=[], multiselect=True, max_choices=MAX_RUNS, scale=4, min_width=300,
            label="Runs to compare with the base",
        )  # fmt: skip
        form["typed"] = gr.Textbox(
            "", label="Your own prompts, one per line", lines=1, max_lines=4, max_length=2000, scale=3, min_width=220
        )
        load = gr.UploadButton("Load from PNG", file_types=[".png"], size="md", min_width=150, scale=0)
        draw_button = gr.Button("Draw", variant="primary", min_width=130, scale=0)
    with gr.Row(equal_height=True):
        form["kinds"] = gr.CheckboxGroup(list(KINDS), value=list(KINDS), label="Show", scale=4, min_width=220)
        form["terms"] = gr.Slider(1, 5, 3, step=1, label="Terms per list", scale=3, min_width=200)
        form["seeds"] = gr.Slider(1, MAX_SEEDS, 3, step=1, label="Seeds", scale=3, min_width=200)
        form["strength"] = gr.Slider(0, MOST_STRENGTH, 1, step=0.1, label="Strength", scale=3, min_width=200)
        form["combine"] = gr.Checkbox(False, label="Combine", info="Add a column with all runs", elem_classes="roomy")
    return form, load, draw_button


def wire(ui: CompareTab, start_tab: StartTab, erase_tab: EraseTab, tabs: gr.Tabs, page: gr.Tab) -> None:
    chosen = ui.form["runs"]
    # A second press need not wait: its requests replace those that the first one still waits for.
    drawing = {"fn": draw, "inputs_kwargs": ui.form, "outputs": [ui.grid, ui.comparison], "trigger_mode": "multiple"}
    asking = {"fn": compare_person.start, "inputs": ui.comparison, "outputs": ui.person, **QUIET}
    gr.on([ui.draw.click, ui.form["typed"].submit], **drawing, **QUIET).success(**asking)
    # Not `change`: of a dropdown with several values it comes again and again, though none has changed.
    following = {
        "fn": follow_selection, "inputs": [chosen, ui.images, ui.form["judge"]],
        "outputs": [ui.scores, ui.time, ui.form["judge"], ui.bundle.files], **QUIET,
    }  # fmt: skip
    chosen.input(**following)
    page.select(refresh_choices, chosen, chosen, **QUIET).success(**following)
    filled = [ui.form[name] for name in ("runs", "typed", "kinds", "seeds", "strength")]
    ui.load.upload(load_picture, [ui.load, chosen], filled, **QUIET).success(**following)
    ui.grid.click(show_pair, ui.comparison, [ui.pair, ui.hint], **QUIET)
    ui.pulse.tick(render_scores, chosen, ui.scores, **PLAIN_PULSE)
    ui.images.change(estimate_time, [chosen, ui.images], ui.time, **QUIET)
    ui.evaluate.click(evaluate, [chosen, ui.images, ui.form["judge"]], ui.scores, api_visibility="private")
    ui.person.click(compare_person.press_button, ui.comparison, ui.person, **QUIET).success(
        render_scores, chosen, ui.scores, **QUIET
    )
    compare_bundle.wire(ui.bundle, chosen)
    # Start, Erase and a bundle send runs here; they are drawn at once.
    opened = [
        *(card.select(open_from_card, None, [tabs, chosen], **QUIET) for card in (start_tab.card, erase_tab.runs)),
        *(end.change(open_run, end, [tabs, chosen], **QUIET) for end in (start_tab.finished, ui.bundle.opened)),
    ]
    for sent in opened:
        sent.success(**following)
        sent.success(**drawing, **QUIET).success(**asking)
