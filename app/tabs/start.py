"""Start: one button that runs a complete example, and the library in pictures."""

from contextlib import suppress
from dataclasses import dataclass

import gradio as gr

from app import news
from app.components import html_panel, pulse, render
from app.errors import report_errors
from app.events import PULSE, QUIET
from app.session import example, people, thumbnails
from app.session.drafts import find_slug
from app.tabs import curate, erase, erase_form, run_view
from app.tabs.curate import CurateTab
from app.tabs.erase_form import EraseForm
from crce import bases, runs
from crce.concepts.library import find_concept, library
from crce.config import EraseConfig
from crce.errors import CrceError
from crce.runs import Job, Run
from crce.worker.client import ensure_workers

TRIAL, TRIAL_CONCEPT = "Try it: dog", "dog"


@dataclass(frozen=True)
class StartTab:
    """own_trial: the run that this page started; drawn: how many previews it shows; finished: goes to Compare."""

    own_trial: gr.State
    drawn: gr.State
    finished: gr.State
    pulse: gr.HTML
    try_it: gr.Button
    time: gr.Markdown
    card: gr.HTML
    previews: gr.HTML
    shelf: gr.HTML
    own_concept: gr.Button


# What the tab shows


def render_shelf() -> str:
    """The concepts that the default model draws; Curate lists all of them."""
    specs = thumbnails.filter_drawn(library().values())
    return render("shelf", specs=specs, picture_class=thumbnails.picture_class)


@report_errors
def estimate_time() -> str:
    form = EraseForm(concept=find_slug(TRIAL_CONCEPT), images=erase_form.JUDGED_IMAGES)
    return erase.measure_time(form) or "The time will be known after the first run on this machine."


def find_trial() -> Run | None:
    """The latest trial of any page, so that a page that is reloaded finds it."""
    return _find_trial(runs.all_runs())


def _find_trial(found: list[Run]) -> Run | None:
    return next((run for run in found if run.facts.name == TRIAL), None)


def find_news(found: list[Run]) -> object:
    """Of the trial, or the example; and of all runs while it waits for them."""
    run = _find_trial(found) or example.find(found)
    return news.follow([] if run is None else found if run.state == "queued" else [run])


# What the user does


def make_example() -> None:
    """Opening the first page makes the example. Without the default model there is none; the status line says so."""
    with suppress(CrceError):
        if example.make():
            ensure_workers()


@report_errors
def start_trial() -> str:
    """Erases "dog" with the preset. A trial in progress is joined, not started twice."""
    run = find_trial()
    if run and run.state in ("queued", "running"):
        return run.id
    job = Job(bases.EMOJI_SD, find_concept(TRIAL_CONCEPT), EraseConfig(), name=TRIAL)
    return erase.queue_run(job, erase_form.JUDGED_IMAGES).id


@report_errors
def follow_trial(own_trial: str | None, drawn: int) -> tuple:
    """The trial's progress. When the trial that this page started has erased, its id goes to Compare."""
    run = find_trial() or example.find(runs.all_runs())
    if run is None:
        return "", "", 0, gr.skip(), gr.skip()
    rows = run_view.group_previews(run) if run.state != "done" else []
    count = sum(len(row.images) for row in rows)
    previews = gr.skip() if count == drawn else render("strip", rows=rows, side=64)
    finished = own_trial == run.id and run.erased
    card = render("trial", run=run_view.summarize(run, run_view.list_queue(runs.all_runs())))
    return card, previews, count, *((None, run.id) if finished else (gr.skip(), gr.skip()))


@report_errors
def stop(event: gr.EventData) -> None:
    people.require_own(runs.find(event._data["id"])).request_stop()


def open_own_concept() -> tuple:
    """Goes to the form for a new concept."""
    return gr.Tabs(selected="curate"), gr.Accordion(open=True)


# The tab


def build() -> StartTab:
    own_trial, drawn, finished, news_pulse = gr.State(None), gr.State(-1), gr.State(None), pulse("start")
    html_panel(render("start", hero=thumbnails.HERO, picture_class=thumbnails.picture_class))
    with gr.Row(elem_classes="line"):
        try_it = gr.Button("Try it: erase “dog”", variant="primary", size="lg", scale=0, min_width=240)
        time = gr.Markdown(elem_classes="mute")
    card, previews = html_panel(), html_panel()
    gr.Markdown("### Or pick a concept from the library")
    shelf = html_panel(render_shelf())
    with gr.Row():
        own_concept = gr.Button("+ your own concept", size="sm", scale=0, min_width=180)
    return StartTab(own_trial, drawn, finished, news_pulse, try_it, time, card, previews, shelf, own_concept)


def wire(ui: StartTab, curate_tab: CurateTab, demo: gr.Blocks, tabs: gr.Tabs) -> None:
    progress = [ui.card, ui.previews, ui.drawn, ui.own_trial, ui.finished]
    update = {"fn": follow_trial, "inputs": [ui.own_trial, ui.drawn], "outputs": progress, **QUIET}
    ui.pulse.tick(**update | PULSE)
    demo.load(render_shelf, None, ui.shelf, **QUIET)
    demo.load(estimate_time, None, ui.time, **QUIET)
    demo.load(make_example, None, None, **QUIET)
    ui.try_it.click(start_trial, None, ui.own_trial, **QUIET).success(**update)
    ui.card.click(stop, **QUIET).then(**update)
    ui.own_concept.click(open_own_concept, None, [tabs, curate_tab.shelf.own_concept], **QUIET)
    ui.shelf.click(lambda: gr.Tabs(selected="curate"), None, tabs, **QUIET)
    ui.shelf.click(curate.choose_concept, curate_tab.shelf.search, curate_tab.parts, **QUIET)
