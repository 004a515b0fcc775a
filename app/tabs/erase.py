"""Erase: start runs and watch them. Runs belong to the worker, so they continue when the page is closed."""

import html
from collections.abc import Generator
from dataclasses import astuple, dataclass, replace
from typing import Any

import gradio as gr
import pandas as pd

from app import news
from app.components import html_panel, pulse, render
from app.errors import in_page_words, report_errors
from app.events import EVERY_CHANGE, PLAIN_PULSE, PULSE, QUIET
from app.session import people
from app.session.drafts import OpenConcept
from app.session.question import require_saved
from app.tabs import base_download, erase_form, run_view
from app.tabs.curate import CurateTab
from app.tabs.erase_form import EraseForm
from app.tabs.run_forecast import estimate_judging, estimate_training
from app.worker import WorkerRequest, start_work, tab_id, waiting
from crce import base_version, bases, devices, runs
from crce.catalogue import METHOD_FACTS
from crce.concepts.drawn import Record, read_record
from crce.concepts.library import find_concept
from crce.concepts.spec import ConceptSpec, resolve_conflicts
from crce.config import EraseConfig
from crce.cost import Cost, describe_room, describe_time, format_duration
from crce.errors import CrceError
from crce.judges.choices import AUTO, can_judge, choose_judge
from crce.runs import EvaluationRequest, Job, ResolvedJob, Run
from crce.worker.requests import EstimateRequest

_COLOURS = {"target": "#6366f1", "corefs": "#c2255c", "retains": "#087a64"}
CARDS = 50
_NO_LOSS = pd.DataFrame({"step": [], "term": [], "loss": []})


@dataclass(frozen=True)
class Seen:
    """What a page shows: each part is sent again only when there is something new. shown: how many cards at most, the
    newest runs'. cards, details: what stands there."""

    run: str | None = None
    cards: str = ""
    details: str = ""
    steps: int = 0
    previews: int = 0
    shown: int = CARDS

    @property
    def html(self) -> tuple[str, str]:
        return self.cards, self.details


@dataclass(frozen=True)
class EraseTab:
    """form: the components by the fields of `EraseForm`. chosen: the id of the run to show; seen: a `Seen`;
    arrived: the base that was downloaded last."""

    form: dict[str, Any]
    effort: gr.Radio
    find: gr.Textbox
    order: gr.Dropdown
    chosen: gr.State
    seen: gr.State
    pulse: gr.HTML
    method_facts: gr.Markdown
    base_panel: gr.HTML
    base_pulse: gr.HTML
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


def warn_undrawn(form: EraseForm) -> list[str]:
    """What the base is known not to draw of the concepts: there is nothing to erase."""
    if not form.concept:
        return []
    record, base = read_record(form.base), bases.public_name(form.base)
    return [line for spec in form.find_specs() if (line := _describe_undrawn(record, spec, base))]


def _describe_undrawn(record: Record, spec: ConceptSpec, base: str) -> str:
    if record.draws(spec) is False:
        return (f"{base} does not draw {spec.name}: the run would train, but its pictures cannot show whether the "
                "concept is gone. Choose a concept that it draws, or another base model.")  # fmt: skip
    missing = record.list_undrawn(spec)
    return f"{base} does not draw {len(missing)} of the terms of {spec.name}: {', '.join(missing)}." if missing else ""


def measure_time(form: EraseForm) -> str:
    """The time at the pace of the last run of this base and method on this machine, with the judging where its pace is
    known too; empty without such a run."""
    erasing, judging = estimate_training(form.base, form.method, form.count_steps()), _estimate_judging(form)
    if erasing is None:
        return ""
    if not judging:
        return f"About {format_duration(erasing)} to erase on this machine."
    parts = f"{format_duration(erasing)} to erase, {format_duration(judging)} to judge"
    return f"About {format_duration(erasing + judging)} on this machine: {parts}."


def _estimate_judging(form: EraseForm) -> float | None:
    judge = form.judge.strip() or AUTO
    if not form.concept or not form.images or not can_judge(form.base, judge):
        return None
    return estimate_judging(form.to_job(), form.images)


def render_runs(found: list[Run], chosen: str | None, most: int = CARDS, find: str = "", order: str = "") -> str:
    """The cards of the first runs in this order, and of those that wait or run."""
    queue, fitting = run_view.list_queue(found), run_view.arrange(found, find, order)
    shown = [run for n, run in enumerate(fitting) if n < most or run.id in queue.waiting or run.state == "running"]
    cards = [run_view.summarize(run, queue) for run in shown]
    broken = {run.id: problem for run, problem in runs.broken_runs(found).items()}
    older = len(fitting) - len(shown)
    return render("runs", runs=cards, chosen=chosen, older=older, found=bool(found), broken=broken)


def find_run(found: list[Run], chosen: str | None) -> Run | None:
    """The chosen run, else the running one, else the newest."""
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
        **({"λ": form.damping} if form.damping else {}),
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
    summary = run_view.summarize(run)
    return render("details", run=summary, settings=settings, explained=erase_form.EXPLAINED, notes=run.notes)


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
    hint = "Previews appear here during training." if run and run.state in ("queued", "running") else ""
    return render("strip", rows=rows, hint=hint, side=56)


# What the user does


@waiting
@report_errors
def estimate(http: gr.Request, **values: Any) -> Generator[Any, Any, None]:
    """What is known at once, then the worker's estimate. A time measured here is preferred to an estimated one."""
    try:
        form = EraseForm.from_values(values)
        config = form.to_config()
        form.check_images()
        description, warnings = describe_run(form), warn_undrawn(form)
    except CrceError as error:
        yield render("line", text=in_page_words(str(error)), wrong=getattr(error, "field", ""))
        return
    yield render("line", text=description, warnings=warnings)
    if not form.concept:
        return
    specs = resolve_conflicts(form.find_specs())
    if not base_download.is_here(form.base, form.device, form.dtype):
        return
    if devices.worker_of(form.device) != devices.AUTO:
        # The worker that answers pages has the model elsewhere, and a second copy might not fit.
        text = f"{description} What it needs on {form.device} is not estimated here."
        yield render("line", text=text, warnings=warnings)
        return
    try:
        tab = tab_id(http, "estimate")
        cost: Cost | None = yield WorkerRequest(EstimateRequest(tab, form.base, list(specs), config, form.dtype))
    except CrceError as error:
        yield render("line", text=f"{description} {in_page_words(str(error))}", warnings=warnings)
        return
    if cost:
        text = f"{description} {_describe_cost(cost, measured=bool(measure_time(form)))}"
        yield render("line", text=text, warnings=warnings)


def _describe_cost(cost: Cost, measured: bool) -> str:
    return describe_room(cost) if measured else f"{describe_time(cost)} {describe_room(cost)}"


@report_errors
def start(**values: Any) -> str:
    form = EraseForm.from_values(values)
    judge = form.judge.strip() or AUTO
    base_download.require(form.base, form.device, form.dtype, judge if form.images else AUTO)
    form.check_images()
    run = queue_run(form.to_job(), int(form.images), judge, form.leave_out_long)
    gr.Info(f"{html.escape(run.title)} is queued. It continues if you close this page.", title="Started")
    return run.id


def queue_run(job: Job, images: int, judge: str = AUTO, leave_out_long: bool = False) -> Run:
    """images: pictures per term that are judged after the training, where there is a judge; 0 for none. judge: whom.
    leave_out_long: see `runs.create`.

    Raises CrceError before there is a run: for a number of pictures out of range, for a judge that is named and cannot
    be used, and for what no run can have.
    """
    if images:
        EvaluationRequest(images, judge=judge)
        if judge != AUTO:
            choose_judge(job.base, judge)
    people.require_room()
    run = runs.create(job, leave_out_long=leave_out_long)
    people.claim(run)
    if images and can_judge(job.base, judge):
        run.request_evaluate(images, judge=judge)
    start_work(run)
    return run


@report_errors
def refresh(chosen: str | None, seen: Seen, find: str = "", order: str = "") -> tuple:
    """The runs and the details of one of them, its previews, and its plot."""
    found = runs.all_runs()
    run = find_run(found, chosen)
    cards = render_runs(found, run.id if run else None, seen.shown, find, order)
    now = Seen(cards=cards, details=render_details(run), shown=seen.shown)
    if run:
        now = replace(now, run=run.id, steps=_count_events(run, "step"), previews=_count_events(run, "preview"))
    first = seen.run is None or now.run != seen.run
    plot = update_plot(run) if first or now.steps != seen.steps else (gr.skip(), gr.skip())
    previews = render_previews(run) if first or now.previews != seen.previews else gr.skip()
    changed = [part if part != before else gr.skip() for part, before in zip(now.html, seen.html, strict=True)]
    return *changed, previews, *plot, now


def find_news(found: list[Run]) -> object:
    """Of all runs, the broken ones too."""
    return news.follow(found), news.changed(runs.store())


def _count_events(run: Run, kind: str) -> int:
    return run.history.counts.get(kind, 0)


@report_errors
def press_run_button(chosen: str | None, event: gr.EventData) -> str | None:
    """Stops, resumes, deletes or shows a run. Returns the id of the run to show."""
    if event._data["do"] == "delete":
        people.require_own(runs.find_folder(event._data["id"])).delete()
        return None if chosen == event._data["id"] else chosen
    run = runs.find(event._data["id"])
    match event._data["do"]:
        case "stop":
            people.require_own(run).request_stop()
        case "resume":
            people.require_own(run).request_resume()
            start_work(run)
    return run.id


def show_older(seen: Seen) -> Seen:
    """More cards of the list, from its next redrawing on."""
    return replace(seen, shown=seen.shown + CARDS)


@report_errors
def rename(event: gr.EventData) -> None:
    people.require_own(runs.find(event._data["id"])).rename(event._data["value"])


@report_errors
def refill_form(event: gr.EventData) -> tuple:
    """The settings of a run, for a run with changes. As many pictures are judged as are to be, or were."""
    run = runs.find(event._data["id"])
    form, judged = EraseForm.from_job(run.job), run.evaluation or run.scores
    gr.Info("The form now has the settings of this run and the current lists.", title="Settings copied")
    return astuple(replace(form, images=judged.images or form.images))


@report_errors
def open_concept(opened: OpenConcept, anchor: str) -> tuple:
    concept = gr.Dropdown(erase_form.list_concepts(), value=require_saved(opened).slug)
    return gr.Tabs(selected="erase"), concept, anchor


# The tab


def build() -> EraseTab:
    chosen, seen, news_pulse = gr.State(None), gr.State(Seen()), pulse("erase")
    with gr.Row(equal_height=True):
        form = erase_form.build_choice()
        effort = erase_form.build_effort()
    base_panel, base_pulse, arrived = html_panel(elem_classes="maybe"), pulse("downloads"), gr.State("")
    method_facts = gr.Markdown(describe_method(EraseForm.method), elem_classes="mute")
    with gr.Accordion("Settings", open=False), gr.Row():
        form |= erase_form.build_settings()
    with gr.Row(elem_classes="line", equal_height=True):
        expected = html_panel(elem_classes="roomy")
        with gr.Column(scale=0, min_width=330), gr.Row():
            form |= erase_form.build_device()
        start_button = gr.Button("Start", variant="primary", scale=0, min_width=180)
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=420):
            find, order = _build_finder()
            cards = html_panel()
        with gr.Column(scale=6, min_width=420):
            details, previews = html_panel(), html_panel()
            plot, curve = _build_plot()
    return EraseTab(
        form,
        effort,
        find,
        order,
        chosen,
        seen,
        news_pulse,
        method_facts,
        base_panel,
        base_pulse,
        arrived,
        expected,
        start_button,
        cards,
        details,
        previews,
        plot,
        curve,
    )


def _build_finder() -> tuple[gr.Textbox, gr.Dropdown]:
    with gr.Row(elem_classes="line"):
        find = gr.Textbox("", placeholder="Find runs", label="Find runs", show_label=False,
                          container=False, scale=3, min_width=150, max_length=100)  # fmt: skip
        order = gr.Dropdown(list(run_view.ORDERS), value=next(iter(run_view.ORDERS)), label="Order of the runs",
                            show_label=False, container=False, scale=2, min_width=150)  # fmt: skip
        html_panel(render("notify"))
    return find, order


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
    update = {"fn": refresh, "inputs": [ui.chosen, ui.seen, ui.find, ui.order], "outputs": view, **QUIET}
    ui.pulse.tick(**update | PLAIN_PULSE)
    gr.on([ui.find.change, ui.order.change], **update)
    effort = [ui.form["steps"], ui.form["images"]]
    given = [ui.effort, *(ui.form[name] for name in ("method", "backbone", "base"))]
    ui.effort.input(report_errors(erase_form.apply_effort), given, [ui.effort, *effort], **QUIET)
    others = [ui.form[name].input for name in ("method", "backbone", "base")]
    gr.on(others, report_errors(erase_form.renew_effort), given, [ui.effort, *effort], **QUIET)
    ui.start.click(start, None, ui.chosen, inputs_kwargs=ui.form, api_visibility="private").success(**update)
    ui.runs.submit(show_older, ui.seen, ui.seen, **QUIET).then(**update)
    ui.runs.click(press_run_button, ui.chosen, ui.chosen, **QUIET).then(**update)
    ui.runs.input(rename, **QUIET).then(**update)
    ui.runs.edit(refill_form, None, fields, **QUIET)
    ui.form["base"].change(erase_form.update_judges, [ui.form["base"], ui.form["judge"]], ui.form["judge"], **QUIET)
    ui.form["method"].change(describe_method, ui.form["method"], ui.method_facts, **QUIET)
    asked = [ui.form[name] for name in ("method", "backbone", "concept")]
    gr.on([part.change for part in asked], show_anchor, asked, ui.form["anchor"], **QUIET)
    # Opening the tab asks too, but not loading the page: that alone must not start a worker.
    changes = [page.select, ui.arrived.change, *(part.change for part in fields)]
    gr.on(changes, estimate, None, ui.estimate, inputs_kwargs=ui.form, **EVERY_CHANGE)
    place = [ui.form[name] for name in ("base", "device", "dtype", "judge")]
    shown = [page.select, *(part.change for part in place)]
    gr.on(shown, base_download.show, place, ui.base_panel, trigger_mode="always_last", **QUIET)
    ui.base_pulse.tick(base_download.follow, place, [ui.base_panel, ui.arrived], **PULSE)
    ui.base_panel.click(base_download.press, place, ui.base_panel, **QUIET)
    page.select(lambda: gr.Dropdown(erase_form.list_concepts()), None, ui.form["concept"], **QUIET)
    given = [curate_tab.opened, curate_tab.preview.anchor]
    curate_tab.actions.erase.click(open_concept, given, [tabs, ui.form["concept"], ui.form["anchor"]], **QUIET)
