"""Erase: start runs and watch them. Runs belong to the worker, so closing the page changes nothing."""

import html
from collections.abc import Iterator
from types import SimpleNamespace

import gradio as gr
import pandas as pd

from app.components import html_panel, render
from app.errors import report_errors
from app.session.drafts import Opened, open_or_first, settled
from app.tabs import run_view
from app.tabs.curate_preview import PATIENCE, tab_id
from crce import bases, runs
from crce.catalogue import BACKBONES, METHOD_FACTS
from crce.concepts.library import find_spec, library
from crce.concepts.spec import resolve_conflicts
from crce.config import EraseConfig, resolve_config
from crce.cost import Cost, describe_room, describe_time
from crce.errors import CrceError
from crce.runs import Job, Run
from crce.runs.events import StartEvent, StepEvent
from crce.worker import client
from crce.worker.client import ensure_worker
from crce.worker.requests import EstimateRequest

JUDGED = 4  # pictures per term that are judged after a run, unless another number is asked for
_COLOURS = {"target": "#6366f1", "corefs": "#d6336c", "retains": "#0b8a72"}
_NO_LOSS = pd.DataFrame({"step": [], "term": [], "loss": []})
_UNSEEN = [None, 0, 0]


# What the screen shows


def concepts() -> list[tuple[str, str]]:
    return [(spec.name, slug) for slug, spec in library().items()]


def about(method: str) -> str:
    card = METHOD_FACTS[method]
    return f"{card.what} Changes {card.touches}. *{card.source}*"


def about_run(slug: str | None, base: str, method: str, steps: str, on: str = EraseConfig.backbone) -> str:
    """What is about to start, and how long the last one like it took."""
    if not slug:
        return "Choose a concept first."
    spec = find_spec(slug)
    config = resolve_config(EraseConfig(method=method, steps=_whole("steps", steps), backbone=on), base)
    lists = f"{len(spec.train_corefs)} names to erase and {len(spec.train_retains)} to keep"
    return f"{spec.name}: {lists}, {config.steps} steps. {measured(base, config)}"


def expected(base: str, config: EraseConfig) -> str:
    """An honest guess from what was measured here, or none."""
    return measured(base, config) or "The time is known once a first run has been made here."


def measured(base: str, config: EraseConfig) -> str:
    """By the pace of the last run of this base and method on this machine; nothing where there was none."""
    paces = [pace for run in runs.all_runs() if run.job.base == base and (pace := _pace(run, config.method))]
    return f"About {run_view.format_duration(paces[0] * config.steps)} on this machine." if paces else ""


@report_errors
def foreseen(
    slug: str | None, base: str, method: str, steps: str, corefs: float, retains: float, also: list[str],
    rows: float, on: str, request: gr.Request,
) -> Iterator[str]:  # fmt: skip
    """That at once, and with the worker's estimate when it comes. A time that was measured stands for an estimated."""
    known = about_run(slug, base, method, steps, on)
    yield render("line", text=known)
    if not slug:
        return
    drawn = {
        "corefs": int(corefs or 0),
        "retains": int(retains or 0),
        "microbatch_size": int(rows or 0),
        "backbone": on,
    }
    config = EraseConfig(method=method, steps=_whole("steps", steps), **drawn)
    specs = resolve_conflicts([find_spec(slug), *(find_spec(other) for other in also if other != slug)])
    try:
        cost = client.send(EstimateRequest(tab_id(request, "preflight"), base, list(specs), config), timeout=PATIENCE)
    except CrceError as error:
        yield render("line", text=f"{known} {error}")
        return
    if cost:
        yield render("line", text=f"{known} {_told(cost, measured(base, resolve_config(config, base)))}")


def _told(cost: Cost, pace: str) -> str:
    return describe_room(cost) if pace else f"{describe_time(cost)} {describe_room(cost)}"


def _pace(run: Run, method: str) -> float | None:
    """Seconds for a step, from the start to the last step of a run that trained in one go."""
    events = run.events()
    starts = [event for event in events if isinstance(event, StartEvent)]
    last = run.last(StepEvent)
    if not run.erased or len(starts) != 1 or not last or run.job.config.method != method:
        return None
    return (last.time - starts[0].time) / last.step


def listing(chosen: str | None) -> str:
    found = runs.all_runs()
    queue = [run.id for run in reversed(found) if run.state == "queued"]
    return render("runs", runs=[run_view.facts(run, queue) for run in found], chosen=chosen)


def watched(chosen: str | None) -> Run | None:
    """The chosen run; without a choice the one that works, else the newest."""
    found = runs.all_runs()
    first = next((run for run in found if run.state == "running"), found[0] if found else None)
    return next((run for run in found if run.id == chosen), first)


def details(run: Run | None) -> str:
    if run is None:
        return render("facts", run=None)
    config = run.job.config
    settings = {
        "base": run.job.base,
        "method": config.title,
        "steps": config.steps,
        "learning rate": f"{config.lr:g}",
        "η": f"{config.eta:g}",
        "M": config.corefs,
        "N": config.retains,
        "at once": config.microbatch_size or "all terms",
        "seed": config.seed,
        "spec": run.job.spec.digest[:8],
        "device": run.job.device,
        **run_view.costs(run),
    }
    return render("facts", run=run_view.facts(run, []), settings=settings)


def curve(run: Run | None) -> tuple[gr.Column, pd.DataFrame]:
    rows = run_view.losses(run) if run else []
    return gr.Column(visible=bool(rows)), pd.DataFrame(rows) if rows else _NO_LOSS


def strip(run: Run | None) -> str:
    rows = run_view.frames(run) if run else []
    hint = "Previews appear here while the run trains." if run else ""
    return render("strip", rows=rows, hint=hint, side=56)


# What a person does


@report_errors
def refresh(chosen: str | None, seen: list) -> tuple:
    """What changed since the last look; the curve and the pictures only when there are new ones."""
    run = watched(chosen)
    identity = run.id if run else None
    now = [identity, *(_count(run, kind) for kind in ("step", "preview"))]
    new_steps, new_frames = (now[0] != seen[0] or now[place] != seen[place] for place in (1, 2))
    plot = curve(run) if new_steps or seen == _UNSEEN else (gr.skip(), gr.skip())
    previews = strip(run) if new_frames or seen == _UNSEEN else gr.skip()
    return listing(identity), details(run), previews, *plot, now


def _count(run: Run | None, kind: str) -> int:
    return sum(event.kind == kind for event in run.events()) if run else 0


@report_errors
def start(
    slug: str, base: str, method: str, steps: str, lr: str, eta: float, corefs: float, retains: float,
    seed: float, judged: float, also: list[str], rows: float, on: str,
) -> str:  # fmt: skip
    if not slug:
        raise CrceError("Choose a concept to erase first.")
    config = EraseConfig(
        method, _whole("steps", steps), _number("learning rate", lr), eta, int(corefs), int(retains), int(seed),
        backbone=on, microbatch_size=int(rows or 0),
    )  # fmt: skip
    others = tuple(find_spec(other) for other in also if other != slug)
    run = begin(Job(base.strip(), find_spec(slug), config, also=others), int(judged or 0))
    gr.Info(f"{html.escape(run.title)} is in the queue. You may close this page; it goes on.", title="Started")
    return run.id


def begin(job: Job, judged: int) -> Run:
    """Queues a run and wakes the worker."""
    run = runs.create(job)
    if judged:
        run.request_evaluate(judged)
    ensure_worker()
    return run


def _number(name: str, typed: str) -> float | None:
    """None where nothing is typed: the base's preset. Gradio's number field would show that as 0."""
    try:
        return float(typed) if typed.strip() else None
    except ValueError:
        raise CrceError(f"{name} is {typed!r}; write a number, or nothing for the preset.") from None


def _whole(name: str, typed: str) -> int | None:
    number = _number(name, typed)
    if number is not None and number != int(number):
        raise CrceError(f"{name} is {typed!r}; write a whole number, or nothing for the preset.")
    return None if number is None else int(number)


@report_errors
def act(chosen: str | None, event: gr.EventData) -> str | None:
    """Stop, resume, delete or watch a run. Returns the one to be watched."""
    run = runs.find(event._data["id"])
    match event._data["do"]:
        case "stop":
            run.request_stop()
        case "resume":
            run.request_resume()
            ensure_worker()
        case "delete":
            run.delete()
            return None if chosen == run.id else chosen
    return run.id


@report_errors
def rename(event: gr.EventData) -> None:
    runs.find(event._data["id"]).rename(event._data["value"])


@report_errors
def again(event: gr.EventData) -> tuple:
    """The form as it was for this run; only the concept's lists are those of today."""
    job = runs.find(event._data["id"]).job
    c = job.config
    gr.Info("The form above is filled with the settings of this run.", title="Again with changes")
    slug = job.spec.slug if job.spec.slug in library() else None
    others = [spec.slug for spec in job.also if spec.slug in library()]
    return (
        slug, job.base, c.method, str(c.steps), f"{c.lr:g}", c.eta, c.corefs, c.retains, c.seed, JUDGED, others,
        c.microbatch_size, c.backbone,
    )  # fmt: skip


# The tab


def build() -> SimpleNamespace:
    ui = SimpleNamespace(chosen=gr.State(None), seen=gr.State(_UNSEEN), timer=gr.Timer(1.5))
    with gr.Row(equal_height=True):
        ui.concept = gr.Dropdown(
            concepts(), value=open_or_first(None), label="Concept", info="Its lists come from Curate"
        )
        ui.base = gr.Dropdown(
            list(bases.BASES), value=bases.EMOJI_SD, label="Base model", allow_custom_value=True,
            info="Or the path of a diffusers folder, or a Hub id",
        )  # fmt: skip
        methods = [(card.title, key) for key, card in METHOD_FACTS.items()]
        ui.method = gr.Dropdown(methods, value="crce", label="Method", info="CRCE erases names, keeps neighbours")
    ui.about = gr.Markdown(about("crce"), elem_classes="mute")
    ui.settings = _settings()
    with gr.Row(elem_classes="line"):
        ui.expect = html_panel()
        ui.start = gr.Button("Start", variant="primary", scale=0, min_width=180)
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=420):
            ui.runs = html_panel()
        with gr.Column(scale=6, min_width=420):
            ui.details = html_panel()
            ui.strip = html_panel()
            with gr.Column(visible=False) as ui.plot:
                html_panel(render("legend", curves=_COLOURS))
                ui.curve = gr.LinePlot(
                    _NO_LOSS, x="step", y="loss", color="term", color_map=_COLOURS, height=210,
                    show_label=False, x_title="step", y_title="loss",
                )  # fmt: skip
    return ui


def _settings() -> list:
    preset = EraseConfig()
    with gr.Accordion("Settings", open=False), gr.Row():
        return [
            gr.Textbox("", label="Steps", info="Empty: preset", placeholder="preset", min_width=90),
            gr.Textbox("", label="Learning rate", info="Empty: preset", placeholder="preset", min_width=110),
            gr.Number(preset.eta, label="η", info="Strength of the push", minimum=0),
            gr.Number(preset.corefs, label="M", info="Names erased per step", precision=0, minimum=0),
            gr.Number(preset.retains, label="N", info="Neighbours held per step", precision=0, minimum=0),
            gr.Number(preset.seed, label="Seed", info="Same seed, same result", precision=0, minimum=0),
            gr.Number(JUDGED, label="Judge", info="Pictures per term, after", precision=0, minimum=0),
            gr.Dropdown(concepts(), value=[], multiselect=True, label="Together with", info="More in the same run"),
            gr.Number(preset.microbatch_size, label="At once", precision=0, minimum=0,
                      info="Terms in a batch; 0: all, 1: least memory"),
            gr.Dropdown([(METHOD_FACTS[key].title, key) for key in BACKBONES], value=preset.backbone, label="CRCE on",
                        info="Whose loss its lists are added to"),
        ]  # fmt: skip


def wire(ui: SimpleNamespace, app: SimpleNamespace) -> None:
    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    form = [ui.concept, ui.base, ui.method, *ui.settings]
    view = [ui.runs, ui.details, ui.strip, ui.plot, ui.curve, ui.seen]
    look = {"fn": refresh, "inputs": [ui.chosen, ui.seen], "outputs": view, **quiet}
    ui.timer.tick(**look)
    app.demo.load(**look)
    ui.start.click(start, form, ui.chosen, api_visibility="private").success(**look)
    ui.runs.click(act, ui.chosen, ui.chosen, **quiet).then(**look)
    ui.runs.input(rename, **quiet).then(**look)
    ui.runs.edit(again, None, form, **quiet)
    ui.method.change(about, ui.method, ui.about, **quiet)
    steps, _, _, corefs, retains, _, _, others, rows, on = ui.settings
    chosen = [ui.concept, ui.base, ui.method, steps, corefs, retains, others, rows, on]
    # Each change asks anew; the worker drops what is out of date. A page that only opens wakes no worker.
    busy = {"trigger_mode": "multiple", "concurrency_limit": None, **quiet}
    gr.on([app.tab["erase"].select, *(part.change for part in chosen)], foreseen, chosen, ui.expect, **busy)
    app.tab["erase"].select(lambda: gr.Dropdown(concepts()), None, ui.concept, **quiet)
    app.curate.erase.click(_bring, app.curate.opened, [app.tabs, ui.concept], **quiet)


@report_errors
def _bring(opened: Opened) -> tuple:
    return gr.Tabs(selected="erase"), gr.Dropdown(concepts(), value=settled(opened).slug)
