"""Erase: start runs and watch them. Runs belong to the worker, so they continue when the page is closed."""

import html
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from typing import Any

import gradio as gr
import pandas as pd

from app.components import html_panel, render
from app.errors import report_errors
from app.events import EVERY_CHANGE, QUIET
from app.session import people
from app.session.drafts import OpenConcept, require_saved
from app.tabs import base_download, erase_form, run_view
from app.tabs.curate import CurateTab
from app.tabs.erase_form import EraseForm
from app.worker import ask_worker, tab_id
from crce import base_version, devices, runs
from crce.catalogue import METHOD_FACTS
from crce.concepts.library import find_concept
from crce.concepts.spec import resolve_conflicts
from crce.config import EraseConfig
from crce.cost import Cost, describe_room, describe_time, format_duration
from crce.errors import CrceError
from crce.judges.choices import AUTO, can_judge, choose_judge
from crce.runs import Job, ResolvedJob, Run
from crce.runs.events import StartEvent, StepEvent
from crce.worker.client import ensure_workers
from crce.worker.requests import EstimateRequest

_COLOURS = {"target": "#6366f1", "corefs": "#d6336c", "retains": "#0b8a72"}
_NO_LOSS = pd.DataFrame({"step": [], "term": [], "loss": []})


@dataclass(frozen=True)
class Seen:
    """What a page has drawn of a run: the plot and the previews are sent again only when there are new ones."""

    run: str | None = None
    steps: int = 0
    previews: int = 0


@dataclass(frozen=True)
class EraseTab:
    """form: the components by the fields of `EraseForm`. chosen: the id of the run to show; seen: a `Seen`;
    arrived: the base that was downloaded last."""

    form: dict[str, Any]
    chosen: gr.State
    seen: gr.State
    timer: gr.Timer
    method_facts: gr.Markdown
    base_panel: gr.HTML
    arrived: gr.State
    estimate: gr.HTML
    start: gr.Button
    runs: gr.HTML
    details: gr.HTML
    previews: gr.HTML
    plot: gr.Column
    curve: gr.LinePlot


# What the tab shows


def describe_method(method: str) -> str:
    facts = METHOD_FACTS[method]
    differs = f" Differs from the published method: {facts.differs}" if facts.differs else ""
    return f"{facts.what} Changes {facts.touches}. *{facts.source}*{differs}"


@report_errors
def show_anchor(method: str, backbone: str, concept: str | None) -> gr.Textbox:
    """As what the method draws the concept where nothing is entered."""
    spec = find_concept(concept) if concept else None
    return gr.Textbox(placeholder=erase_form.describe_anchor(EraseConfig(method, backbone=backbone), spec))


def describe_run(form: EraseForm) -> str:
    """What is about to start, and the time if one like it was measured here."""
    if not form.concept:
        return "Choose a concept first."
    spec = form.find_specs()[0]
    lists = f"{len(spec.train_corefs)} names to erase and {len(spec.train_retains)} to keep"
    place = devices.describe(form.device, form.dtype)
    ignored = f" {devices.problem()}" if form.device == devices.AUTO else ""
    unjudged = "" if can_judge(form.base, form.judge.strip() or AUTO) else " The base has no judge: compare by eye."
    return f"{spec.name}: {lists}, {form.count_steps()} steps on {place}. {measure_time(form)}{unjudged}{ignored}"


def measure_time(form: EraseForm) -> str:
    """The time at the pace of the last run of this base and method on this machine; empty without one."""
    found = [run for run in runs.all_runs() if run.job.base == form.base and run.job.config.method == form.method]
    paces = [pace for run in found if (pace := _measure_pace(run))]
    return f"About {format_duration(paces[0] * form.count_steps())} on this machine." if paces else ""


def _measure_pace(run: Run) -> float | None:
    """Seconds per step of a run that trained without interruption, else None."""
    starts = [event for event in run.events() if isinstance(event, StartEvent)]
    last = run.last(StepEvent)
    if not run.erased or len(starts) != 1 or not last:
        return None
    return (last.time - starts[0].time) / last.step


def render_runs(chosen: str | None) -> str:
    found = runs.all_runs()
    queue = run_view.list_queue(found)
    return render("runs", runs=[run_view.summarize(run, queue) for run in found], chosen=chosen)


def find_run(chosen: str | None) -> Run | None:
    """The chosen run, else the running one, else the newest."""
    found = runs.all_runs()
    first = next((run for run in found if run.state == "running"), found[0] if found else None)
    return next((run for run in found if run.id == chosen), first)


def render_details(run: Run | None) -> str:
    if run is None:
        return render("details", run=None)
    form = EraseForm.from_job(run.job)
    settings = {
        "base": form.base,
        "base version": base_version.describe(run.job.base_digest),
        "method": run.job.config.title,
        "steps": describe_steps(run),
        "learning rate": form.learning_rate or "none",
        "η": f"{form.eta:g}",
        "M": form.corefs,
        "N": form.retains,
        **_describe_phrases(run.job),
        "microbatch": form.microbatch_size or "all terms",
        "seed": form.seed,
        "spec": run.job.spec.digest[:8],
        "device": run.job.device,
        "precision": run.job.dtype,
        **run_view.compare_costs(run),
    }
    return render("details", run=run_view.summarize(run, []), settings=settings, notes=run.notes)


def describe_steps(run: Run) -> str:
    """The steps of a run; of one that stops when the concept is gone, those taken too."""
    config = run.job.config
    if not config.until_gone:
        return str(config.steps)
    limit = f"at most {config.steps}, until gone"
    return f"{run.kept_step}, {limit}" if run.erased else limit


def _describe_phrases(job: ResolvedJob) -> dict[str, str]:
    """As what the concept is drawn, or the concept that it is erased from alone."""
    if job.config.erase_from:
        return {"erased only from": job.config.erase_from}
    return {"drawn as": erase_form.describe_anchor(job.config, job.spec)}


def update_plot(run: Run | None) -> tuple[gr.Column, pd.DataFrame]:
    rows = run_view.average_losses(run) if run else []
    return gr.Column(visible=bool(rows)), pd.DataFrame(rows) if rows else _NO_LOSS


def render_previews(run: Run | None) -> str:
    rows = run_view.group_previews(run) if run else []
    hint = "Previews appear here during training." if run else ""
    return render("strip", rows=rows, hint=hint, side=56)


# What the user does


@report_errors
def estimate(http: gr.Request, **values: Any) -> Iterator[str]:
    """What is known at once, then the worker's estimate. A time measured here is preferred to an estimated one."""
    form = EraseForm.from_values(values)
    description = describe_run(form)
    yield render("line", text=description)
    if not form.concept:
        return
    specs = resolve_conflicts(form.find_specs())
    if not base_download.is_here(form.base, form.device, form.dtype):
        return
    try:
        cost = ask_worker(
            EstimateRequest(tab_id(http, "estimate"), form.base, list(specs), form.to_config(), form.dtype)
        )
    except CrceError as error:
        yield render("line", text=f"{description} {error}")
        return
    if cost:
        yield render("line", text=f"{description} {_describe_cost(cost, measured=bool(measure_time(form)))}")


def _describe_cost(cost: Cost, measured: bool) -> str:
    return describe_room(cost) if measured else f"{describe_time(cost)} {describe_room(cost)}"


@report_errors
def start(**values: Any) -> str:
    form = EraseForm.from_values(values)
    judge = form.judge.strip() or AUTO
    base_download.require(form.base, form.device, form.dtype, judge if form.images else AUTO)
    run = queue_run(form.to_job(), int(form.images), judge, form.leave_out_long)
    gr.Info(f"{html.escape(run.title)} is queued. It continues if you close this page.", title="Started")
    return run.id


def queue_run(job: Job, images: int, judge: str = AUTO, leave_out_long: bool = False) -> Run:
    """images: pictures per term that are judged after the training, where there is a judge; 0 for none. judge: whom.
    leave_out_long: see `runs.create`.

    Raises CrceError for a judge that is named and cannot be used.
    """
    if images and judge != AUTO:
        choose_judge(job.base, judge)
    people.require_room()
    run = runs.create(job, leave_out_long=leave_out_long)
    people.claim(run)
    if images and can_judge(job.base, judge):
        run.request_evaluate(images, judge=judge)
    ensure_workers()
    return run


@report_errors
def refresh(chosen: str | None, seen: Seen) -> tuple:
    """The runs and the details of one of them; its plot and previews only when there are new ones."""
    run = find_run(chosen)
    now = Seen(run.id, _count_events(run, "step"), _count_events(run, "preview")) if run else Seen()
    first = seen == Seen() or now.run != seen.run
    plot = update_plot(run) if first or now.steps != seen.steps else (gr.skip(), gr.skip())
    previews = render_previews(run) if first or now.previews != seen.previews else gr.skip()
    return render_runs(now.run), render_details(run), previews, *plot, now


def _count_events(run: Run, kind: str) -> int:
    return sum(event.kind == kind for event in run.events())


@report_errors
def press_run_button(chosen: str | None, event: gr.EventData) -> str | None:
    """Stops, resumes, deletes or shows a run. Returns the id of the run to show."""
    run = runs.find(event._data["id"])
    match event._data["do"]:
        case "stop":
            people.require_own(run).request_stop()
        case "resume":
            people.require_own(run).request_resume()
            ensure_workers()
        case "delete":
            people.require_own(run).delete()
            return None if chosen == run.id else chosen
    return run.id


@report_errors
def rename(event: gr.EventData) -> None:
    people.require_own(runs.find(event._data["id"])).rename(event._data["value"])


@report_errors
def refill_form(event: gr.EventData) -> tuple:
    """The settings of a run, for a run with changes."""
    gr.Info("The form now has the settings of this run and the current lists.", title="Settings copied")
    return astuple(EraseForm.from_job(runs.find(event._data["id"]).job))


@report_errors
def open_concept(opened: OpenConcept, anchor: str) -> tuple:
    concept = gr.Dropdown(erase_form.list_concepts(), value=require_saved(opened).slug)
    return gr.Tabs(selected="erase"), concept, anchor


# The tab


def build() -> EraseTab:
    chosen, seen, timer = gr.State(None), gr.State(Seen()), gr.Timer(1.5)
    with gr.Row(equal_height=True):
        form = erase_form.build_choice()
    base_panel, arrived = html_panel(elem_classes="maybe"), gr.State("")
    method_facts = gr.Markdown(describe_method(EraseForm.method), elem_classes="mute")
    with gr.Accordion("Settings", open=False), gr.Row():
        form |= erase_form.build_settings()
    with gr.Row(elem_classes="line", equal_height=True):
        expected = html_panel()
        with gr.Column(scale=0, min_width=330), gr.Row():
            form |= erase_form.build_device()
        start_button = gr.Button("Start", variant="primary", scale=0, min_width=180)
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=420):
            cards = html_panel()
        with gr.Column(scale=6, min_width=420):
            details, previews = html_panel(), html_panel()
            plot, curve = _build_plot()
    return EraseTab(
        form,
        chosen,
        seen,
        timer,
        method_facts,
        base_panel,
        arrived,
        expected,
        start_button,
        cards,
        details,
        previews,
        plot,
        curve,
    )


def _build_plot() -> tuple[gr.Column, gr.LinePlot]:
    with gr.Column(visible=False) as plot:
        html_panel(render("legend", curves=_COLOURS))
        curve = gr.LinePlot(
            _NO_LOSS, x="step", y="loss", color="term", color_map=_COLOURS, height=210,
            show_label=False, x_title="step", y_title="loss",
        )  # fmt: skip
    return plot, curve


def wire(ui: EraseTab, curate_tab: CurateTab, demo: gr.Blocks, tabs: gr.Tabs, page: gr.Tab) -> None:
    fields, view = list(ui.form.values()), [ui.runs, ui.details, ui.previews, ui.plot, ui.curve, ui.seen]
    update = {"fn": refresh, "inputs": [ui.chosen, ui.seen], "outputs": view, **QUIET}
    ui.timer.tick(**update)
    demo.load(**update)
    ui.start.click(start, None, ui.chosen, inputs_kwargs=ui.form, api_visibility="private").success(**update)
    ui.runs.click(press_run_button, ui.chosen, ui.chosen, **QUIET).then(**update)
    ui.runs.input(rename, **QUIET).then(**update)
    ui.runs.edit(refill_form, None, fields, **QUIET)
    ui.form["base"].change(erase_form.update_judges, [ui.form["base"], ui.form["judge"]], ui.form["judge"], **QUIET)
    ui.form["method"].change(describe_method, ui.form["method"], ui.method_facts, **QUIET)
    asked = [ui.form[name] for name in ("method", "backbone", "concept")]
    gr.on([part.change for part in asked], show_anchor, asked, ui.form["anchor"], **QUIET)
    # Opening the tab asks too, but not loading the page: that alone must not start a worker.
    costs = {name: ui.form[name] for name in erase_form.COST_FIELDS}
    changes = [page.select, ui.arrived.change, *(part.change for part in costs.values())]
    gr.on(changes, estimate, None, ui.estimate, inputs_kwargs=costs, **EVERY_CHANGE)
    place = [ui.form[name] for name in ("base", "device", "dtype", "judge")]
    shown = [page.select, *(part.change for part in place)]
    gr.on(shown, base_download.show, place, ui.base_panel, trigger_mode="always_last", **QUIET)
    ui.timer.tick(base_download.follow, place, [ui.base_panel, ui.arrived], **QUIET)
    ui.base_panel.click(base_download.press, place, ui.base_panel, **QUIET)
    page.select(lambda: gr.Dropdown(erase_form.list_concepts()), None, ui.form["concept"], **QUIET)
    given = [curate_tab.opened, curate_tab.preview.anchor]
    curate_tab.actions.erase.click(open_concept, given, [tabs, ui.form["concept"], ui.form["anchor"]], **QUIET)
