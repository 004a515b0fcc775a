"""Curate: which names are erased with a concept, which neighbours are kept, and how sure that is."""

import csv
import io
import json
import re
from collections import Counter
from dataclasses import asdict
from types import SimpleNamespace

import gradio as gr

from app import drafts, thumbs
from app.pages import board, data_url, page
from app.shown import shown
from crce import rounds, runs
from crce.concepts import CATEGORIES, CERTAINTY, ConceptSpec, Provenance, spec_to_dict
from crce.errors import CrceError
from crce.library import library

_WORDS = {
    "corefs": (
        "erase (corefs)",
        "Other names of the same thing: each must go with it. The slider says how certain that is.",
        "Propose some, or type names that mean the same: puppy, hound, guide dog.",
    ),
    "retains": (
        "keep (retains)",
        "Close, but something else: each must stay. The slider says how much it counts.",
        "Propose some, or type neighbours that must survive: wolf, cat, fox.",
    ),
}
_NAMES = {weight: name for name, weight in CERTAINTY.items()}


# What the screen shows


def shelf(search: str, slug: str) -> str:
    """The library: what is drafted, reviewed and used."""
    specs, used = library(), _used()
    found = [spec for spec in specs.values() if search.strip().casefold() in spec.name.casefold()]
    states = {spec.slug: _state(spec, used) for spec in found}
    return page("library", specs=found, states=states, slug=slug, mark=thumbs.mark)


def reviewed_count() -> str:
    specs = library().values()
    return f"{sum(bool(spec.provenance.reviewer) for spec in specs)} of {len(specs)} reviewed"


def head(spec: ConceptSpec) -> str:
    undo, redo = drafts.steps(spec.slug)
    return page(
        "spec",
        spec=spec,
        mark=thumbs.mark,
        own=drafts.is_own(spec),
        shipped=drafts.is_shipped(spec),
        runs=_used()[spec.slug],
        undo=undo,
        redo=redo,
        json=data_url(as_json(spec), "application/json"),
        csv=data_url(as_csv(spec), "text/csv"),
    )


def terms(spec: ConceptSpec, kind: str) -> str:
    title, about, hint = _WORDS[kind]
    facts = {"terms": getattr(spec, kind), "list": kind, "side": rounds.LISTS[kind]}
    return page("terms", title=title, help=about, hint=hint, mark=thumbs.mark, **facts)


def screen(slug: str, search: str = "") -> tuple:
    """Everything that shows the concept `slug`."""
    if not slug:
        return "", "", "", shelf(search, ""), reviewed_count()
    spec = drafts.read(slug)
    return head(spec), *(terms(spec, kind) for kind in rounds.LISTS), shelf(search, slug), reviewed_count()


def as_json(spec: ConceptSpec) -> str:
    return json.dumps(spec_to_dict(spec), indent=2, ensure_ascii=False)


def as_csv(spec: ConceptSpec) -> str:
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["concept", "kind", "term", "certainty", "split", "source", "note"])
    for kind in rounds.LISTS:
        for t in getattr(spec, kind):
            table.writerow([spec.name, kind[:-1], t.text, t.certainty, t.split, t.source, t.note])
    return text.getvalue()


def _used() -> Counter:
    return Counter(run.job.spec.slug for run in runs.all_runs())


def _state(spec: ConceptSpec, used: Counter) -> str:
    if spec.provenance.reviewer:
        return "✓ reviewed"
    return "● used, draft" if used[spec.slug] else "◐ draft"


def _phrases(slug: str) -> list[str]:
    """What there should be pictures of: the first screen, the library, the lists of the open concept."""
    specs = library()
    spec = specs.get(slug)
    own = [term.text for term in (*spec.corefs, *spec.retains)] if spec else []
    return [*thumbs.HERO, *(other.target for other in specs.values()), *own]


# What a person does


@shown
def restore(remembered: str | None) -> tuple:
    slug = drafts.open_or_first(remembered)
    return slug, *screen(slug)


@shown
def choose(search: str, event: gr.EventData) -> tuple:
    return event.slug, *screen(event.slug, search)


@shown
def moved(slug: str, search: str, event: gr.EventData) -> tuple:
    """A field of a row was changed. The lists are drawn anew only when that shows something new."""
    spec = drafts.change(slug, lambda spec: _edited(spec, event))
    if event._data["do"] == "text":
        return screen(slug, search)
    return head(spec), gr.skip(), gr.skip(), shelf(search, slug), reviewed_count()


def _edited(spec: ConceptSpec, event: gr.EventData) -> ConceptSpec:
    row = event._data
    facts = {
        "certainty": lambda value: {"certainty": _NAMES[round(float(value), 1)]},
        "note": lambda value: {"note": value.strip()},
        "text": lambda value: {"text": value.strip(), "source": "expert"},
    }[row["do"]](row["value"])
    return rounds.with_term(spec, row["list"], row["text"], **facts)


@shown
def pressed(slug: str, search: str, event: gr.EventData) -> tuple:
    """A button of a row: drop, or the other split."""
    row = event._data
    edit = {"drop": rounds.without_term, "split": _other_split}[row["do"]]
    drafts.change(slug, lambda spec: edit(spec, row["list"], row["text"]))
    return screen(slug, search)


def _other_split(spec: ConceptSpec, kind: str, text: str) -> ConceptSpec:
    term = next(term for term in getattr(spec, kind) if term.text == text)
    return rounds.with_term(spec, kind, text, split="test" if term.split == "train" else "train")


@shown
def tool(slug: str, search: str, event: gr.EventData) -> tuple:
    """Undo, redo, or back to what was shipped."""
    kept = {"undo": drafts.undo, "redo": drafts.redo, "discard": drafts.discard}[event._data["do"]](slug)
    slug = slug if kept else drafts.open_or_first(None)
    return slug, *screen(slug, search)


@shown
def add(slug: str, search: str, kind: str, typed: str) -> tuple:
    """One phrase, or a pasted list."""
    texts = [text for text in re.split(r"[\n,;]+", typed) if text.strip()]
    before = drafts.read(slug)
    after = drafts.change(slug, lambda spec: rounds.with_terms(spec, kind, texts))
    if texts and after == before:
        raise CrceError("The lists have this already, or it is the concept itself.")
    return "", *screen(slug, search)


@shown
def begin(name: str, category: str, sense: str) -> tuple:
    slug = drafts.create(name, category, sense).slug
    return slug, "", "", *screen(slug)


@shown
def sign(slug: str, search: str, reviewer: str) -> tuple:
    drafts.change(slug, lambda spec: drafts.reviewed(spec, reviewer))
    return screen(slug, search)


@shown
def pictures(slug: str, seen: list[str], request: gr.Request) -> tuple:
    """Draws a few missing pictures, unless a run needs the machine. Sends them only when there are new ones."""
    phrases = _phrases(slug)
    if not any(run.state in ("queued", "running") for run in runs.all_runs()):
        thumbs.draw(phrases, request.session_hash)
    ready = thumbs.ready(phrases)
    return (gr.skip(), gr.skip()) if ready == seen else (thumbs.styles(ready), ready)


@shown
def propose(slug: str, wish: str) -> tuple:
    """A round: what the model would change, to choose from. Nothing is applied yet."""
    spec = drafts.read(slug)
    offer = _offer(spec, wish.strip())
    found = rounds.changes(spec, offer)
    if not found:
        raise CrceError("The model would change nothing. Say more exactly what you wish for.")
    numbers = list(range(len(found)))
    box = gr.CheckboxGroup(choices=[(change.label, n) for n, change in enumerate(found)], value=numbers)
    offered = {"slug": slug, "changes": rounds.to_state(found), "by": asdict(offer.provenance)}
    return offered, box, gr.Group(visible=True), ""


def _offer(spec: ConceptSpec, wish: str) -> ConceptSpec:
    from crce.propose import ChatProposer  # the LLM client takes a second to import

    proposer = ChatProposer.from_env()
    if spec.corefs or spec.retains:
        return proposer.revise(spec, wish or "Improve both lists; keep what is right.")
    return proposer.propose(spec.target, spec.category, spec.sense)


@shown
def accept(search: str, offered: dict, numbers: list[int]) -> tuple:
    taken = rounds.from_state(offered["changes"], numbers)
    made_by = Provenance(**offered["by"])
    drafts.change(offered["slug"], lambda spec: rounds.apply(spec, taken, made_by))
    return gr.Group(visible=False), offered["slug"], *screen(offered["slug"], search)


# The tab


def build() -> SimpleNamespace:
    ui = SimpleNamespace(slug=gr.State(""), offered=gr.State({}), pictured=gr.State([]))
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=200):
            _library(ui)
        with gr.Column(scale=10, min_width=640):
            ui.head = board()
            _actions(ui)
            _proposals(ui)
            with gr.Row(equal_height=False):
                ui.lists = {kind: _list(kind) for kind in rounds.LISTS}
    ui.shows = [ui.head, *(part.rows for part in ui.lists.values()), ui.shelf, ui.count]
    return ui


def _library(ui: SimpleNamespace) -> None:
    ui.search = gr.Textbox("", placeholder="Search the library", show_label=False, container=False)
    ui.shelf = board()
    ui.count = gr.Markdown(elem_classes="mute")
    with gr.Accordion("+ your own concept", open=False) as ui.own:
        ui.name = gr.Textbox("", label="Concept", placeholder="lighthouse", max_length=200)
        ui.category = gr.Dropdown(CATEGORIES, label="Category", value="object")
        ui.sense = gr.Textbox("", label="Sense", info="Only if the word has several", max_length=200)
        ui.begin = gr.Button("Begin", size="sm")


def _actions(ui: SimpleNamespace) -> None:
    with gr.Row(elem_classes="line"):
        ui.wish = gr.Textbox(
            "", placeholder="fewer breeds, more synonyms…", show_label=False, container=False,
            scale=5, min_width=260, max_length=2000,
        )  # fmt: skip
        ui.propose = gr.Button("Propose", size="md", scale=0, min_width=100)
        ui.reviewer = gr.Textbox("", placeholder="Your name", show_label=False, container=False, scale=2, min_width=110)
        ui.sign = gr.Button("Mark reviewed", size="md", scale=0, min_width=130)
        ui.erase = gr.Button("Erase this →", variant="primary", size="md", scale=0, min_width=120)


def _proposals(ui: SimpleNamespace) -> None:
    with gr.Group(visible=False, elem_classes="round") as ui.round:
        ui.changes = gr.CheckboxGroup(label="The model proposes. Take what is right; nothing is applied yet.")
        with gr.Row():
            ui.accept = gr.Button("Take the checked ones", variant="primary", size="sm")
            ui.discard = gr.Button("Leave it all", size="sm")


def _list(kind: str) -> SimpleNamespace:
    with gr.Column(min_width=420):
        rows = board()
        more = gr.Textbox(
            "", placeholder=f"Add to {_WORDS[kind][0].split()[0]}: one phrase, or a pasted list",
            show_label=False, container=False, lines=1, max_lines=8,
        )  # fmt: skip
    return SimpleNamespace(rows=rows, more=more)


def wire(ui: SimpleNamespace, app: SimpleNamespace) -> None:
    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    # One change after the other: each starts from the draft that the one before has saved.
    edits = {"concurrency_id": "drafts", "concurrency_limit": 1, **quiet}
    shows, where = ui.shows, [ui.slug, ui.search]
    app.demo.load(restore, app.remembered, [ui.slug, *shows], **quiet)
    ui.slug.change(lambda slug: slug, ui.slug, app.remembered, **quiet)
    ui.search.change(shelf, [ui.search, ui.slug], ui.shelf, **quiet)
    ui.shelf.click(choose, ui.search, [ui.slug, *shows], **quiet)
    # Two quick presses of Undo are two steps back.
    ui.head.click(tool, where, [ui.slug, *shows], trigger_mode="multiple", **edits)
    for kind, part in ui.lists.items():
        # Each row speaks for itself: none may replace another's event that still waits.
        part.rows.input(moved, where, shows, trigger_mode="multiple", **edits)
        part.rows.click(pressed, where, shows, trigger_mode="multiple", **edits)
        part.more.submit(add, [*where, gr.State(kind), part.more], [part.more, *shows], **edits)
    ui.begin.click(begin, [ui.name, ui.category, ui.sense], [ui.slug, ui.name, ui.sense, *shows], **edits)
    ui.sign.click(sign, [*where, ui.reviewer], shows, **edits)
    gr.on([app.redraw.tick, ui.slug.change], pictures, [ui.slug, ui.pictured], [app.pictures, ui.pictured], **quiet)
    _wire_rounds(ui, edits)


def _wire_rounds(ui: SimpleNamespace, edits: dict) -> None:
    asked = {"concurrency_id": "llm", "concurrency_limit": 4, "api_visibility": "private"}
    offer = [ui.offered, ui.changes, ui.round, ui.wish]
    gr.on([ui.propose.click, ui.wish.submit], propose, [ui.slug, ui.wish], offer, **asked)
    taken = [ui.search, ui.offered, ui.changes]
    ui.accept.click(accept, taken, [ui.round, ui.slug, *ui.shows], **edits)
    ui.discard.click(lambda: gr.Group(visible=False), None, ui.round, api_visibility="private")
