"""Start: one button that shows the whole thing, and the library in pictures."""

from types import SimpleNamespace

import gradio as gr

from app.components import html_panel, render
from app.errors import report_errors
from app.session import thumbnails
from app.tabs import curate, erase, run_view
from crce import bases, runs
from crce.concepts.library import find_spec, library
from crce.config import EraseConfig, resolve_config
from crce.runs import Job, Run

NAME = "Try it: dog"


def shelf() -> str:
    """The concepts that the default model draws; Curate has them all."""
    return render("shelf", specs=thumbnails.drawn(library().values()), mark=thumbnails.mark)


@report_errors
def expected() -> str:
    return erase.expected(bases.EMOJI_SD, resolve_config(EraseConfig(), bases.EMOJI_SD))


def latest() -> Run | None:
    """The trial of any tab: a page that is opened again finds it."""
    return next((run for run in runs.all_runs() if run.job.name == NAME), None)


@report_errors
def begin() -> str:
    """Erases "dog" with the preset. A trial under way is joined, not doubled."""
    run = latest()
    if run and run.state in ("queued", "running"):
        return run.id
    job = Job(bases.EMOJI_SD, find_spec("dog"), EraseConfig(), name=NAME)
    return erase.begin(job, erase.JUDGED).id


@report_errors
def refresh(mine: str | None, seen: int) -> tuple:
    """The trial's progress; when the one that this page started has erased, its id goes to Compare."""
    run = latest()
    if run is None:
        return "", "", 0, gr.skip(), gr.skip()
    queue = [other.id for other in reversed(runs.all_runs()) if other.state == "queued"]
    rows = run_view.frames(run) if run.state != "done" else []
    shots = sum(len(row["shots"]) for row in rows)
    previews = gr.skip() if shots == seen else render("strip", rows=rows, side=64)
    arrived = mine == run.id and run.erased
    card = render("trial", run=run_view.facts(run, queue))
    return card, previews, shots, *((None, run.id) if arrived else (gr.skip(), gr.skip()))


@report_errors
def stop(event: gr.EventData) -> None:
    runs.find(event._data["id"]).request_stop()


def _own() -> tuple:
    return gr.Tabs(selected="curate"), gr.Accordion(open=True)


def build() -> SimpleNamespace:
    ui = SimpleNamespace(mine=gr.State(None), seen=gr.State(-1), arrived=gr.State(None), timer=gr.Timer(1))
    html_panel(render("start", hero=thumbnails.HERO, mark=thumbnails.mark))
    with gr.Row(elem_classes="line"):
        ui.try_it = gr.Button("Try it: erase “dog”", variant="primary", size="lg", scale=0, min_width=240)
        ui.expect = gr.Markdown(elem_classes="mute")
    ui.card = html_panel()
    ui.previews = html_panel()
    gr.Markdown("#### Or pick a concept from the library")
    ui.shelf = html_panel(shelf())
    with gr.Row():
        ui.own = gr.Button("+ your own concept", size="sm", scale=0, min_width=180)
    return ui


def wire(ui: SimpleNamespace, app: SimpleNamespace) -> None:
    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    seen = [ui.card, ui.previews, ui.seen, ui.mine, ui.arrived]
    look = {"fn": refresh, "inputs": [ui.mine, ui.seen], "outputs": seen, **quiet}
    ui.timer.tick(**look)
    app.demo.load(shelf, None, ui.shelf, **quiet)
    app.demo.load(expected, None, ui.expect, **quiet)
    ui.try_it.click(begin, None, ui.mine, **quiet).success(**look)
    ui.card.click(stop, **quiet).then(**look)
    ui.own.click(_own, None, [app.tabs, app.curate.own], **quiet)
    ui.shelf.click(lambda: gr.Tabs(selected="curate"), None, app.tabs, **quiet)
    ui.shelf.click(curate.choose, app.curate.search, app.curate.classify, **quiet)
