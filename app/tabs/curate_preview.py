"""What the base model makes of the lists: an instant edit in pictures, distances, and what it cannot draw."""

import math
import time
from collections.abc import Iterator
from types import SimpleNamespace

import gradio as gr

from app.components import html_panel, render
from app.errors import report_errors
from app.session import drafts, transcript
from app.session.drafts import Opened
from crce.concepts.spec import ConceptSpec, Term
from crce.errors import CrceError
from crce.worker import client
from crce.worker.answers import DistancesAnswer
from crce.worker.requests import CoverageRequest, DistancesRequest, PreviewRequest

SHOWN = 3  # terms of each list in the preview
_SEED = 0
_STILL = 0.7  # seconds without a change before anything is drawn
PATIENCE = 600  # seconds for an answer
_PNG = "data:image/png;base64,"
_SIDES = {"target": "target", "coref": "erase", "retain": "keep"}
_NO_LISTS = "Once there are names to erase, you see here at once what erasing them would do."
_NO_TERMS = "Add terms to see how far they are from the concept."


# The instant edit in pictures


def prompts(spec: ConceptSpec, before: ConceptSpec | None, seen: list[str]) -> list[str]:
    """The target and three of each list: what was touched since `before`, what was seen, and the most certain."""
    lists = [[*spec.train_corefs, *spec.test_corefs], [*spec.train_retains, *spec.test_retains]]
    old = {*before.corefs, *before.retains} if before else None
    return [spec.target, *(text for terms in lists for text in _picked(terms, old, seen))]


def _picked(terms: list[Term], old: set[Term] | None, seen: list[str]) -> list[str]:
    texts = [term.text for term in terms]
    touched = [term.text for term in terms if old is not None and term not in old and term.text not in seen]
    return [text for text in dict.fromkeys([*touched, *seen, *texts]) if text in texts][:SHOWN]


@report_errors
def preview(opened: Opened, base: str, last: dict, request: gr.Request) -> Iterator[tuple]:
    """Before and after the instant edit, once the expert stops moving. A newer question replaces an older one."""
    spec = opened.mine
    if spec is None or not spec.train_corefs:
        yield render("preview", hint=_NO_LISTS), {}
        return
    time.sleep(_STILL)
    if opened.stale:
        return
    texts = prompts(spec, drafts.former(spec.slug), last.get("prompts", []))
    yield render("preview", busy=True, **_pictures(last)), gr.skip()
    try:
        answer = client.send(PreviewRequest(tab_id(request, "preview"), base, spec, texts, [_SEED]), timeout=PATIENCE)
    except CrceError as error:
        now = {"spec": spec, "prompts": texts, "error": str(error)}
        yield render("preview", **_pictures(now)), now
        return
    if answer:
        now = {"spec": spec, "prompts": texts, **vars(answer)}
        yield render("preview", **_pictures(now)), now


def _pictures(drawn: dict) -> dict:
    """What the page shows of an answer."""
    if "before" not in drawn:
        return {"trouble": drawn.get("error")}
    kinds = ["target", *(_kind(drawn["spec"], text) for text in drawn["prompts"][1:])]
    rows = zip(drawn["prompts"], kinds, drawn["before"], drawn["after"], strict=True)
    columns = [
        {"prompt": text, "side": _SIDES[kind], "before": _PNG + before, "after": _PNG + after}
        for text, kind, before, after in rows
    ]
    return {"columns": columns, "seconds": drawn["seconds"], "seed": _SEED}


def _kind(spec: ConceptSpec, text: str) -> str:
    return "coref" if text in [term.text for term in spec.corefs] else "retain"


def tab_id(request: gr.Request, part: str) -> str:
    """Names a part of an open page to the worker, which answers only the newest request of each."""
    return f"{request.session_hash}-{part}"


# Distances


@report_errors
def distances(opened: Opened, base: str, wanted: bool, request: gr.Request) -> str:
    """The table and the map, only while someone looks at them. The token counts stay for the marks of the terms."""
    spec = opened.mine
    if not wanted or spec is None:
        return gr.skip()
    if not spec.corefs and not spec.retains:
        return render("distances", hint=_NO_TERMS)
    time.sleep(_STILL)
    if opened.stale:
        return gr.skip()
    try:
        answer = client.send(DistancesRequest(tab_id(request, "distances"), base, spec), timeout=PATIENCE)
    except CrceError as error:
        return render("distances", trouble=str(error))
    if answer is None:
        return gr.skip()
    tokens = {term.text: term.tokens for term in answer.terms}
    transcript.remember(spec.slug, tokens=tokens, limit=answer.limit)
    return render("distances", target=spec.target, base=base, **_map(answer))


def _map(answer: DistancesAnswer) -> dict:
    """Rows for the table, nearest first, and the map scaled so that the farthest point is at 1.

    A term that is too long for the base stands last in the table and not on the map.
    """
    points = answer.sphere.points
    placed = [(term, term.x, term.y) for term in answer.terms if term.x is not None and term.y is not None]
    places = [*((x, y) for _, x, y in placed), *points]
    scale = max((abs(value) for place in places for value in place), default=1) or 1
    dots = [{**vars(term), "side": _SIDES[term.kind], "x": x / scale, "y": y / scale} for term, x, y in placed]
    rows = [term for term in answer.terms if term.kind != "target"]
    rows.sort(key=lambda term: math.inf if term.euclidean is None else term.euclidean)
    return {
        "rows": [{**vars(term), "side": _SIDES[term.kind]} for term in rows],
        "dots": [{**dot, "anchor": _anchor(dot["x"])} for dot in dots],
        "points": [(x / scale, y / scale) for x, y in points],
        "radius": answer.sphere.radius / scale,
        "rings": (0.25, 0.5, 0.75, 1),
    }


def _anchor(x: float) -> str:
    """Where a name begins, so that it stays inside the map."""
    return "end" if x > 0.4 else "start" if x < -0.4 else "middle"


# What the base draws


@report_errors
def coverage(opened: Opened, base: str, request: gr.Request) -> Iterator[str]:
    """Whether the base draws what the terms say, by generating and judging."""
    spec = opened.spec
    yield render("line", text=f"{base} draws each term ten times and its judge looks: some minutes. Go on meanwhile.")
    try:
        answer = client.send(CoverageRequest(tab_id(request, "coverage"), base, spec), timeout=PATIENCE)
    except CrceError as error:
        yield render("line", text=str(error))
        return
    if answer:
        drawn = {term.text: (term.yes, term.of) for term in answer.terms}
        transcript.remember(spec.slug, drawn=drawn)
        yield render("line", text=_summary(spec, drawn))


def _summary(spec: ConceptSpec, drawn: dict[str, tuple[int, int]]) -> str:
    known = {text: (yes, of) for text, (yes, of) in drawn.items() if of and text != spec.target}
    dead = [text for text, (yes, of) in known.items() if yes < of / 2]
    if not known:
        return "The judge of this base knows none of these terms, so nothing can be said."
    missing = f" Not drawn: {', '.join(dead)}." if dead else ""
    return f"{len(known) - len(dead)} of {len(known)} terms are drawn.{missing}"


# The parts of the tab


def build_preview(ui: SimpleNamespace) -> None:
    ui.previewed = gr.State({})
    ui.checked = html_panel(elem_classes="maybe")
    ui.preview = html_panel(render("preview", hint=_NO_LISTS), elem_classes="strip-of")


def build_distances(ui: SimpleNamespace) -> None:
    ui.wanted = gr.State(False)
    with gr.Accordion("How far is each term from the concept?", open=False) as ui.far:
        ui.distances = html_panel()


def wire(ui: SimpleNamespace, app: SimpleNamespace, marks) -> None:
    """marks: draws the lists anew, with what has been learned of their terms."""
    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    # Each change asks anew; the worker drops what is out of date.
    busy = {"trigger_mode": "multiple", "concurrency_limit": None, **quiet}
    base, lists = app.erase.base, [part.rows for part in ui.lists.values()]
    moved = [ui.opened.change, base.change]
    gr.on(moved, preview, [ui.opened, base, ui.previewed], [ui.preview, ui.previewed], **busy)
    gr.on([*moved, ui.wanted.change], distances, [ui.opened, base, ui.wanted], ui.distances, **busy)
    ui.far.expand(lambda: True, None, ui.wanted, **quiet)
    ui.far.collapse(lambda: False, None, ui.wanted, **quiet)
    ui.check.click(coverage, [ui.opened, base], ui.checked, **quiet).then(marks, ui.opened, lists, **quiet)
