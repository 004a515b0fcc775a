"""Compare: the same prompts and seeds, before and after, with what the judge sees in each picture."""

import base64
import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
from PIL import Image

from app.components import data_url, html_panel, render, small
from app.errors import report_errors
from app.tabs import comparison_sheet, run_view
from crce import bases, runs
from crce.concepts.library import find_spec
from crce.concepts.spec import ConceptSpec
from crce.errors import CrceError
from crce.evaluation.questions import METRICS
from crce.runs import Run
from crce.worker import client
from crce.worker.answers import Cell
from crce.worker.client import ensure_worker
from crce.worker.requests import Column, GenerateRequest, StatusRequest

COLUMNS = 3
KINDS = {"concept": "target", "names": "coref", "neighbours": "retain"}
_HELP = {"target": "must go", "coref": "must go", "retain": "must stay", "typed": "your prompt"}
_SIDE = 512
_LARGE = 500 << 20  # bytes of weights
_MOST_ON_CPU = 4  # pictures of a large model that a CPU draws while someone waits


@dataclass(frozen=True)
class Row:
    """A prompt, why it is drawn, and the concept that the judge is asked for."""

    kind: str
    prompt: str
    ask: str | None


# What is drawn


def choices() -> list[tuple[str, str]]:
    """The runs that have something to compare."""
    return [(f"{run.title} · {run.job.config.title}", run.id) for run in _erased()]


def _erased() -> list[Run]:
    return [run for run in runs.all_runs() if run.erased]


def prompts(spec: ConceptSpec, kinds: list[str], count: int, typed: str) -> list[Row]:
    """The held-out terms show what was learned; those seen in training would flatter."""
    terms = {
        "target": [Row("target", spec.target, spec.name)],
        "coref": [Row("coref", term.text, spec.name) for term in spec.test_corefs[:count]],
        "retain": [Row("retain", term.text, term.text) for term in spec.test_retains[:count]],
    }
    own = [Row("typed", line.strip(), spec.name) for line in typed.splitlines() if line.strip()]
    return [*own, *(row for kind in KINDS.values() if kind in kinds for row in terms[kind])]


def as_it_should_be(kind: str, column: int, yes: bool | None) -> bool | None:
    """None where nothing is expected: the base's own pictures, typed prompts, and what the judge cannot tell."""
    if yes is None or column == 0 or kind == "typed":
        return None
    return yes if kind == "retain" else not yes


def request(
    tab: str, base: str, ids: list[str], strength: float, row: Row, seeds: list[int], sum_up: bool
) -> GenerateRequest:
    columns = [Column(), *(Column(name, strength=strength) for name in ids)]
    if sum_up:
        columns.append(Column(ids[0], ids[1:], strength))
    return GenerateRequest(tab, base, columns, [row.prompt], seeds, [row.ask])


@report_errors
def draw(
    ids: list[str], seeds: int, strength: float, kinds: list[str], count: int, typed: str, sum_up: bool, web: gr.Request
) -> Iterator[tuple]:
    """Row by row, so that the first pictures are there while the others are drawn."""
    chosen = [runs.find(name) for name in ids]
    base, spec = _common(chosen)
    rows = prompts(spec, [KINDS[name] for name in kinds], int(count), typed)
    if not rows:
        raise CrceError("There is nothing to draw: choose what to show, or type a prompt.")
    sum_up = sum_up and len(ids) > 1
    _refuse_hours(base, len(rows) * int(seeds) * (len(ids) + 1 + sum_up))
    ensure_worker()
    drawn = {
        "titles": _titles(base, chosen, sum_up),
        "concept": spec.name,
        "seeds": list(range(int(seeds))),
        "rows": [],
    }
    yield grid(drawn, len(rows)), drawn
    for row in rows:
        asked = request(f"{web.session_hash}-compare", base, ids, strength, row, drawn["seeds"], sum_up)
        answer = client.send(asked, timeout=600)
        if answer is None:
            return
        drawn = {**drawn, "rows": [*drawn["rows"], {**asdict(row), "cells": answer.columns}]}
        yield grid(drawn, len(rows)), drawn


def _common(chosen: list[Run]) -> tuple[str, ConceptSpec]:
    if not chosen:
        return bases.EMOJI_SD, find_spec("dog")
    used = {run.job.base for run in chosen}
    if len(used) > 1:
        raise CrceError(f"These runs have different bases ({', '.join(sorted(used))}); choose runs of one.")
    return used.pop(), chosen[0].job.spec


def _refuse_hours(base: str, pictures: int) -> None:
    """A large model on a CPU takes minutes for a picture: say so instead of starting."""
    if pictures <= _MOST_ON_CPU or not _is_large(base):
        return
    status = client.send(StatusRequest(), timeout=30)
    if status and "cpu" in status.device.lower():
        raise CrceError(
            f"{pictures} pictures of {base} would take minutes each without a GPU. "
            f"Show fewer: one seed and one term, at most {_MOST_ON_CPU} pictures."
        )


def _is_large(base: str) -> bool:
    place = Path(bases.resolve(base))
    return not place.is_dir() or sum(path.stat().st_size for path in place.rglob("*.safetensors")) > _LARGE


def _titles(base: str, chosen: list[Run], sum_up: bool) -> list[dict]:
    after = [{"name": run.title, "about": run.job.config.title} for run in chosen]
    resolve_conflicts = [{"name": "all together", "about": "their changes added"}] if sum_up else []
    return [{"name": "before", "about": base}, *after, *resolve_conflicts]


# What the screen shows


def grid(drawn: dict, rows: int) -> str:
    if not drawn:
        return render("grid", titles=[])
    cells = [_row_cells(row) for row in drawn["rows"]]
    shown_rows = [
        {**row, "help": _HELP[row["kind"]], "cells": own} for row, own in zip(drawn["rows"], cells, strict=True)
    ]
    left = rows - len(shown_rows)
    link = "" if left else data_url(comparison_sheet.png(drawn), "image/png")
    facts = {"titles": drawn["titles"], "seeds": drawn["seeds"], "concept": drawn["concept"]}
    return render("grid", rows=shown_rows, left=left, sheet=link, **facts)


def _row_cells(row: dict) -> list[list[dict]]:
    return [[_cell(row, place, cell) for cell in cells] for place, cells in enumerate(row["cells"])]


def _cell(row: dict, column: int, cell: Cell) -> dict:
    verdict = as_it_should_be(row["kind"], column, cell.yes)
    seen = "The judge cannot tell"
    if cell.yes is not None:
        seen = f"The judge sees {'a' if cell.yes else 'no'} “{row['ask']}” (p = {cell.p:.2f})"
    src = data_url(small(base64.b64decode(cell.png)), "image/png")
    return {"src": src, "verdict": verdict, "seen": seen}


def scores(ids: list[str]) -> str:
    """The accuracies of the chosen runs, each with its n and interval, beside those of the base."""
    chosen = [run for name in ids if (run := _found(name))]
    reports = [run.report for run in chosen]
    first = next((report for report in reports if report), None)
    return render(
        "scores",
        runs=[{"title": run.title, "busy": _busy(run), "report": run.report} for run in chosen],
        metrics=METRICS if first else {},
        first=first,
    )


def _found(name: str) -> Run | None:
    """A run may have been deleted in another tab since it was chosen."""
    return next((run for run in _erased() if run.id == name), None)


def _busy(run: Run) -> str:
    state = run.state
    return run_view.says(run, state, [run.id]) if state in ("queued", "running") else ""


def expected(ids: list[str], images: float) -> str:
    """How long judging takes, from the last time it was done here."""
    reports = [report for run in runs.all_runs() if (report := run.report) and report.seconds]
    if not ids or not images or not reports:
        return ""
    return f"about {run_view.format_duration((reports[0].seconds or 0.0) / reports[0].images * images * len(ids))}"


# What a person does


@report_errors
def offer(ids: list[str]) -> gr.Dropdown:
    """The runs to choose from; what was chosen stays, the newest stands in for nothing."""
    found = choices()
    known = [name for name in ids if any(name == other for _, other in found)]
    return gr.Dropdown(found, value=known or [name for _, name in found[:1]])


@report_errors
def pair(drawn: dict, event: gr.EventData) -> tuple:
    """One picture large, before under after."""
    facts = event._data
    row, column, place = (int(facts[key]) for key in ("row", "column", "place"))
    told = drawn["rows"][row]
    column = column or min(1, len(told["cells"]) - 1)
    before, after = (large(told["cells"][side][place].png) for side in (0, column))
    title = drawn["titles"][column]["name"]
    label = f"“{told['prompt']}”, seed {drawn['seeds'][place]}: before | {title}"
    return gr.ImageSlider((before, after), label=label, visible=True), gr.Markdown(visible=False)


def large(png: str) -> Image.Image:
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    return image.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)


@report_errors
def evaluate(ids: list[str], images: float) -> str:
    if not ids:
        raise CrceError("Choose a run to judge first.")
    for name in ids:
        runs.find(name).request_evaluate(int(images))
    ensure_worker()
    return scores(ids)


# The tab


def build() -> SimpleNamespace:
    ui = SimpleNamespace(drawn=gr.State({}), timer=gr.Timer(2))
    _form(ui)
    with gr.Row(equal_height=False):
        with gr.Column(scale=7, min_width=520):
            ui.grid = html_panel(grid({}, 0))
        with gr.Column(scale=4, min_width=320):
            ui.hint = gr.Markdown("Click a picture: before and after, large, under one slider.", elem_classes="mute")
            ui.pair = gr.ImageSlider(
                format="png", type="pil", visible=False, interactive=False, slider_position=50, height=400,
                buttons=["download", "fullscreen"],
            )  # fmt: skip
            ui.scores = html_panel()
            _judging(ui)
    return ui


def _form(ui: SimpleNamespace) -> None:
    with gr.Row(elem_classes="line"):
        ui.chosen = gr.Dropdown(
            choices(), value=[], multiselect=True, max_choices=COLUMNS, scale=4, min_width=300,
            label="Runs, each a column beside the base",
        )  # fmt: skip
        ui.typed = gr.Textbox(
            "", label="Your own prompts, one a line", lines=1, max_lines=4, max_length=2000, scale=3, min_width=220
        )
        ui.draw = gr.Button("Draw", variant="primary", min_width=130, scale=0)
    with gr.Row(equal_height=True):
        ui.kinds = gr.CheckboxGroup(list(KINDS), value=list(KINDS), label="Show", scale=4, min_width=300)
        ui.count = gr.Slider(1, 5, 3, step=1, label="Terms a list", scale=2, min_width=150)
        ui.seeds = gr.Slider(1, 6, 3, step=1, label="Seeds", scale=2, min_width=150)
        ui.strength = gr.Slider(0, 1.5, 1, step=0.1, label="Strength", scale=2, min_width=150)
        ui.sum_up = gr.Checkbox(False, label="All together", info="One more column: the runs combined", min_width=150)


def _judging(ui: SimpleNamespace) -> None:
    with gr.Row(elem_classes="line"):
        ui.images = gr.Number(10, label="Pictures per term", precision=0, minimum=1, maximum=1000, min_width=110)
        with gr.Column(min_width=160):
            ui.evaluate = gr.Button("Evaluate all")
            ui.expect = gr.Markdown(elem_classes="mute")


def wire(ui: SimpleNamespace, app: SimpleNamespace) -> None:
    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    form = [ui.chosen, ui.seeds, ui.strength, ui.kinds, ui.count, ui.typed, ui.sum_up]
    # A second press need not wait: what it asks of the worker replaces what the first still waits for.
    drawing = {"fn": draw, "inputs": form, "outputs": [ui.grid, ui.drawn], "trigger_mode": "multiple"}
    gr.on([ui.draw.click, ui.typed.submit], **drawing, **quiet)
    app.tab["compare"].select(offer, ui.chosen, ui.chosen, **quiet)
    ui.grid.click(pair, ui.drawn, [ui.pair, ui.hint], **quiet)
    ui.timer.tick(report_errors(scores), ui.chosen, ui.scores, **quiet)
    ui.chosen.change(report_errors(scores), ui.chosen, ui.scores, **quiet)
    gr.on([ui.chosen.change, ui.images.change], report_errors(expected), [ui.chosen, ui.images], ui.expect, **quiet)
    ui.evaluate.click(evaluate, [ui.chosen, ui.images], ui.scores, api_visibility="private")
    _wire_arrivals(ui, app, drawing)


def _wire_arrivals(ui: SimpleNamespace, app: SimpleNamespace, drawing: dict) -> None:
    """Start and Erase send runs here; they are drawn at once."""
    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    place = [app.tabs, ui.chosen]
    for events in (app.start.card, app.erase.runs):
        events.select(bring, None, place, **quiet).success(**drawing, **quiet)
    app.start.arrived.change(arrive, app.start.arrived, place, **quiet).success(**drawing, **quiet)


@report_errors
def bring(event: gr.EventData) -> tuple:
    return arrive(event._data["id"])


def arrive(name: str) -> tuple:
    return gr.Tabs(selected="compare"), gr.Dropdown(choices(), value=[name])
