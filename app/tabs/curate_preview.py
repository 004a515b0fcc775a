"""What the base model makes of the lists: a quick edit in pictures, distances, and what it can draw."""

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from app.components import html_panel, render
from app.errors import in_page_words, report_errors
from app.events import EVERY_CHANGE, QUIET
from app.session import drafts, transcript
from app.session.drafts import OpenConcept
from app.session.question import ask_about
from app.worker import Pause, WorkerRequest, tab_id, waiting
from crce.concepts.spec import ConceptSpec, Term
from crce.errors import CrceError
from crce.worker.answers import CoverageAnswer, DistancesAnswer, PreviewAnswer
from crce.worker.requests import CoverageRequest, DistancesRequest, PreviewRequest

SHOWN = 3  # terms of each list in the preview
_SEED = 0
_PAUSE = 0.7  # seconds without a change before anything is computed
_PNG = "data:image/png;base64,"
_SIDES = {"target": "target", "coref": "erase", "retain": "keep"}
_OPENING = "Opening the concept…"
_NO_COREFS = "Add names to erase to see here what erasing them would do."
_NO_TERMS = "Add terms to see how far they are from the concept."
_NOTHING_TO_CHECK = "There are no terms to draw yet. Add some to the lists first."


@dataclass(frozen=True)
class ShownPreview:
    """What the preview shows: the worker's pictures of each prompt with the side of its term, or the problem. concept:
    the slug of the concept."""

    concept: str = ""
    prompts: list[str] = field(default_factory=list)
    sides: list[str] = field(default_factory=list)
    answer: PreviewAnswer | None = None
    problem: str = ""


@dataclass(frozen=True)
class PreviewPanel:
    """last: a `ShownPreview`. anchor: what the concept is drawn as instead of as nothing. drawable: the result of the
    check what the base draws."""

    last: gr.State
    anchor: gr.Textbox
    drawable: gr.HTML
    preview: gr.HTML


@dataclass(frozen=True)
class DistancesPanel:
    """open: whether the panel is expanded. shown: the slug of the concept whose distances it shows."""

    open: gr.State
    shown: gr.State
    accordion: gr.Accordion
    distances: gr.HTML


# A quick edit in pictures


def choose_prompts(spec: ConceptSpec, before: ConceptSpec | None, shown: list[str]) -> list[str]:
    """The target and up to three terms of each list: those changed since `before`, and those shown last. The worker
    adds the hardest of the others."""
    lists = [[*spec.train_corefs, *spec.test_corefs], [*spec.train_retains, *spec.test_retains]]
    old = {*before.corefs, *before.retains} if before else None
    return [spec.target, *(text for terms in lists for text in _choose_terms(terms, old, shown))]


def _choose_terms(terms: list[Term], old: set[Term] | None, shown: list[str]) -> list[str]:
    texts = [term.text for term in terms]
    changed = [term.text for term in terms if old is not None and term not in old and term.text not in shown]
    return [text for text in dict.fromkeys([*changed, *shown]) if text in texts][:SHOWN]


@waiting
@report_errors
def update_preview(
    opened: OpenConcept, base: str, anchor: str, last: ShownPreview, http: gr.Request
) -> Generator[Any, Any, None]:
    """Before and after the closed-form edit, once the user pauses."""
    spec = opened.mine
    if spec is None or not spec.train_corefs:
        yield render("preview", hint=_NO_COREFS), ShownPreview()
        return
    if last.concept != spec.slug:
        last = ShownPreview(spec.slug)
        yield render_preview(last, busy=True), last
    yield Pause(_PAUSE)
    given, texts = anchor.strip() or None, choose_prompts(spec, drafts.read_previous(spec.slug), last.prompts)
    yield render_preview(last, busy=True), gr.skip()
    request = PreviewRequest(tab_id(http, "preview"), base, spec, texts, [_SEED], given, SHOWN)
    try:
        answer = yield WorkerRequest(request, ask_about(http.session_hash, opened))
    except CrceError as error:
        now = ShownPreview(spec.slug, texts, problem=in_page_words(str(error)))
    else:
        if answer is None:
            return
        texts, corefs = list(answer.prompts), {term.text for term in spec.corefs}
        sides = ["target", *("erase" if text in corefs else "keep" for text in texts[1:])]
        now = ShownPreview(spec.slug, texts, sides, answer)
    yield render_preview(now), now


def render_preview(shown: ShownPreview, busy: bool = False) -> str:
    if shown.answer is None:
        return render("preview", problem=shown.problem, busy=busy)
    rows = zip(shown.prompts, shown.sides, shown.answer.before, shown.answer.after, strict=True)
    columns = [
        {"prompt": text, "side": side, "before": _PNG + before, "after": _PNG + after}
        for text, side, before, after in rows
    ]
    return render("preview", columns=columns, seconds=shown.answer.seconds, seed=_SEED, busy=busy)


# Distances


@waiting
@report_errors
def update_distances(
    opened: OpenConcept, base: str, is_open: bool, shown: str, http: gr.Request
) -> Generator[Any, Any, None]:
    """The table and the map, while the panel is open. The token counts are kept for the warnings on the terms."""
    spec = opened.mine
    if not is_open or spec is None:
        return
    if not spec.corefs and not spec.retains:
        yield render("distances", hint=_NO_TERMS), ""
        return
    if shown != spec.slug:
        yield render("distances", hint=f"Measuring how far each term is from “{spec.name}”…"), ""
    yield Pause(_PAUSE)
    try:
        request = DistancesRequest(tab_id(http, "distances"), base, spec)
        answer: DistancesAnswer | None = yield WorkerRequest(request, ask_about(http.session_hash, opened))
    except CrceError as error:
        yield render("distances", problem=in_page_words(str(error))), ""
        return
    if answer is None:
        return
    tokens = {term.text: term.tokens for term in answer.terms}
    transcript.remember(spec.slug, tokens=tokens, limit=answer.limit)
    yield render("distances", target=spec.target, base=base, **_build_map(answer)), spec.slug


def _build_map(answer: DistancesAnswer) -> dict:
    """Rows of the table, nearest first, and the map, scaled so that its farthest point is at 1.

    A term that is longer than the encoder reads has no distance: it is last in the table, and not on the map.
    """
    points = answer.sphere.points
    measured = [(term, term.x, term.y) for term in answer.terms if term.x is not None and term.y is not None]
    places = [*((x, y) for _, x, y in measured), *points]
    scale = max((abs(value) for place in places for value in place), default=1) or 1
    hard = _choose_hard(answer)
    dots = [{**vars(term), "side": _SIDES[term.kind], "x": x / scale, "y": y / scale} for term, x, y in measured]
    rows = [term for term in answer.terms if term.kind != "target"]
    rows.sort(key=lambda term: math.inf if term.euclidean is None else term.euclidean)
    return {
        "rows": [{**vars(term), "side": _SIDES[term.kind]} for term in rows],
        "limit": answer.limit,
        "dots": [{**dot, "anchor": _align_label(dot["x"]), "hard": dot["text"] in hard} for dot in dots],
        "points": [(x / scale, y / scale) for x, y in points],
        "radius": answer.sphere.radius / scale,
        "rings": (0.25, 0.5, 0.75, 1),
    }


def _choose_hard(answer: DistancesAnswer) -> list[str]:
    """The farthest names and the nearest neighbours, whose dots are labelled."""
    found = sorted(
        (term for term in answer.terms if term.euclidean is not None), key=lambda term: term.euclidean or 0.0
    )
    corefs, retains = ([term.text for term in found if term.kind == kind] for kind in ("coref", "retain"))
    return [*corefs[-SHOWN:], *retains[:SHOWN]]


def _align_label(x: float) -> str:
    """Keeps a label inside the map."""
    return "end" if x > 0.4 else "start" if x < -0.4 else "middle"


# What the base draws


@waiting
@report_errors
def check_drawable(opened: OpenConcept, base: str, http: gr.Request) -> Generator[Any, Any, None]:
    """Whether the base draws each term, by generating and judging pictures."""
    spec = opened.spec
    if not spec.corefs and not spec.retains:
        yield render("line", text=_NOTHING_TO_CHECK)
        return
    yield render("line", text=f"Drawing and judging ten pictures of each term with {base}. This takes some minutes.")
    try:
        request = CoverageRequest(tab_id(http, "coverage"), base, spec)
        answer: CoverageAnswer | None = yield WorkerRequest(request, ask_about(http.session_hash, opened))
    except CrceError as error:
        yield render("line", text=in_page_words(str(error)))
        return
    if answer:
        drawn = {term.text: (term.yes, term.of) for term in answer.terms}
        transcript.remember(spec.slug, drawn=drawn)
        yield render("line", text=_summarize_drawn(spec, drawn))


def _summarize_drawn(spec: ConceptSpec, drawn: dict[str, tuple[int, int]]) -> str:
    known = {text: (yes, of) for text, (yes, of) in drawn.items() if of and text != spec.target}
    missing = [text for text, (yes, of) in known.items() if yes < of / 2]
    if not known:
        return "The judge of this base knows none of these terms."
    details = f" Not drawn: {', '.join(missing)}." if missing else ""
    return f"{len(known) - len(missing)} of {len(known)} terms are drawn.{details}"


# The panels


def build_preview() -> PreviewPanel:
    last, drawable = gr.State(ShownPreview()), html_panel(elem_classes="maybe")
    anchor = gr.Textbox("", label="Draw it as", placeholder="nothing", max_length=200,
                        info="In the preview and in a run from here; such as: a wolf")  # fmt: skip
    return PreviewPanel(last, anchor, drawable, html_panel(render("preview", hint=_OPENING), elem_classes="strip-of"))


def build_distances() -> DistancesPanel:
    is_open, shown = gr.State(False), gr.State("")
    with gr.Accordion("How far is each term from the concept?", open=False) as accordion:
        distances = html_panel()
    return DistancesPanel(is_open, shown, accordion, distances)


def wire_preview(panel: PreviewPanel, opened: gr.State, base: gr.Dropdown) -> None:
    changes = [opened.change, base.change, panel.anchor.change]
    gr.on(
        changes, update_preview, [opened, base, panel.anchor, panel.last], [panel.preview, panel.last], **EVERY_CHANGE
    )


def wire_distances(panel: DistancesPanel, opened: gr.State, base: gr.Dropdown) -> None:
    changes = [opened.change, base.change, panel.open.change]
    inputs, outputs = [opened, base, panel.open, panel.shown], [panel.distances, panel.shown]
    gr.on(changes, update_distances, inputs, outputs, **EVERY_CHANGE)
    panel.accordion.expand(lambda: True, None, panel.open, **QUIET)
    panel.accordion.collapse(lambda: False, None, panel.open, **QUIET)


def wire_check(
    panel: PreviewPanel, check: gr.Button, opened: gr.State, base: gr.Dropdown, lists: list[gr.HTML], redraw: Callable
) -> None:
    """redraw: the handler that renders the lists again, with the warnings that follow from the check."""
    checked = check.click(check_drawable, [opened, base], panel.drawable, **QUIET)
    checked.then(redraw, opened, lists, **QUIET)
