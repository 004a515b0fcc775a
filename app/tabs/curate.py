"""Curate: which names are erased with a concept, which neighbours are kept, and how sure that is."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gradio as gr

from app.components import data_url, html_panel, render
from app.errors import report_errors
from app.session import drafts, thumbnails, transcript
from app.session.drafts import Opened
from app.tabs import curate_chat, curate_preview
from crce import runs
from crce.concepts import csv_json, edits
from crce.concepts.library import is_shipped, library, parse_spec
from crce.concepts.lint import Finding, lint
from crce.concepts.spec import CATEGORIES, CERTAINTY, ConceptSpec
from crce.errors import CrceError

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
_OTHER = {"corefs": "retains", "retains": "corefs"}
_NAMES = {weight: name for name, weight in CERTAINTY.items()}
_MOST_SHOWN = 12  # differences between two versions


# What the screen shows


def shelf(search: str, slug: str) -> str:
    """The library: what is drafted, reviewed and used."""
    specs, used = library(), _used()
    found = [spec for spec in specs.values() if search.strip().casefold() in spec.name.casefold()]
    states = {spec.slug: _state(spec, used) for spec in found}
    drawn = {spec.slug for spec in thumbnails.drawn(found)}
    return render("library", specs=found, states=states, slug=slug, mark=thumbnails.mark, drawn=drawn)


def search_shelf(search: str, opened: Opened) -> str:
    return shelf(search, opened.slug)


def reviewed_count() -> str:
    specs = library().values()
    return f"{sum(bool(spec.provenance.reviewer) for spec in specs)} of {len(specs)} reviewed"


def head(opened: Opened) -> str:
    spec = opened.spec
    undo, redo = drafts.steps(spec.slug)
    return render(
        "spec",
        spec=spec,
        conflict=_conflict(opened),
        mark=thumbnails.mark,
        own=drafts.is_own(spec),
        shipped=is_shipped(spec),
        runs=_used()[spec.slug],
        locked=_locked(spec.slug),
        undo=undo,
        redo=redo,
        json=data_url(csv_json.to_json(spec), "application/json"),
        csv=data_url(csv_json.to_csv(spec), "text/csv"),
    )


def terms(spec: ConceptSpec, kind: str) -> str:
    title, about, hint = _WORDS[kind]
    return render(
        "terms",
        title=title,
        help=about,
        hint=hint,
        mark=thumbnails.mark,
        terms=getattr(spec, kind),
        list=kind,
        side=edits.LISTS[kind],
        other=edits.LISTS[_OTHER[kind]],
        locked=_locked(spec.slug),
        lint=_lint(spec, kind),
        told=_told(spec),
    )


def screen(opened: Opened, search: str = "") -> tuple:
    """Everything that shows the concept, in the order of `ui.classify`."""
    if not opened.slug:
        return opened, "", "", "", "", shelf(search, ""), reviewed_count(), ""
    spec, slug = opened.spec, opened.slug
    lists = (terms(spec, kind) for kind in edits.LISTS)
    return opened, slug, head(opened), *lists, shelf(search, slug), reviewed_count(), curate_chat.log(spec)


def _conflict(opened: Opened) -> dict | None:
    """What another window has made of the concept since this page read it."""
    theirs = opened.theirs
    if theirs == opened.seen:
        return None
    if theirs is None:
        return {"title": "Another window deleted this concept.", "about": "What you see is not saved.", "lines": []}
    lines = [change.label for change in edits.changes(opened.spec, theirs)]
    left = len(lines) - _MOST_SHOWN
    more = [f"and {left} more"] if left > 0 else []
    about = "Yours are not saved over them. Theirs differ by:" if lines else "Notes, the split or the review differ."
    return {"title": "Another window changed these lists.", "about": about, "lines": lines[:_MOST_SHOWN] + more}


def _lint(spec: ConceptSpec, kind: str) -> dict[str, list[Finding]]:
    """By term, what is doubtful about it; under "" what is doubtful about the whole list."""
    facts = transcript.read(spec.slug)["facts"]
    marks = defaultdict(list)
    for found in lint(spec, library().values(), facts.get("tokens"), facts.get("limit", 77), facts.get("drawn")):
        if found.kind == kind:
            marks[found.text].append(found)
    return marks


def _told(spec: ConceptSpec) -> dict[str, str]:
    """By term, its note, and why the proposer wanted it where the note says something else."""
    whys = {
        change.term.text: change.why for entry in curate_chat.offers(spec.slug) for change in transcript.changes(entry)
    }
    return {term.text: _reasons(term.note, whys.get(term.text, "")) for term in (*spec.corefs, *spec.retains)}


def _reasons(note: str, why: str) -> str:
    return " · ".join(filter(None, [note, f"the proposer: {why}" if why and why != note else ""]))


def _used() -> Counter:
    return Counter(run.job.spec.slug for run in runs.all_runs())


def _locked(slug: str) -> str:
    """Why the split may not change any more; "" while no run uses it."""
    used = _used()[slug]
    count = f"{used} run{'s' if used > 1 else ''}"
    return f"The split is kept: {count} trained with it, and held-out terms must stay unseen." if used else ""


def _state(spec: ConceptSpec, used: Counter) -> str:
    if spec.provenance.reviewer:
        return "✓ reviewed"
    return "● used, draft" if used[spec.slug] else "◐ draft"


def _phrases(slug: str) -> list[str]:
    """What there should be pictures of: the first screen, the library, the lists of the open concept."""
    specs = library()
    spec = specs.get(slug)
    own = [term.text for term in (*spec.corefs, *spec.retains)] if spec else []
    return [*thumbnails.HERO, *(other.target for other in thumbnails.drawn(specs.values())), *own]


# What a person does


@report_errors
def restore(remembered: str | None) -> tuple:
    return screen(drafts.show(drafts.open_or_first(remembered)))


@report_errors
def marked(opened: Opened) -> tuple:
    """The lists, with what has been learned of their terms."""
    return tuple(terms(opened.spec, kind) for kind in edits.LISTS)


@report_errors
def choose(search: str, event: gr.EventData) -> tuple:
    return screen(drafts.show(event.slug), search)


@report_errors
def moved(opened: Opened, search: str, event: gr.EventData) -> tuple:
    """A field of a row was changed. The lists are drawn anew only when that shows something new."""
    after = drafts.change(opened, lambda spec: _edited(spec, event._data))
    everything = screen(after, search)
    if event._data["do"] == "text":
        return everything
    return *everything[:3], gr.skip(), gr.skip(), *everything[5:]


def _edited(spec: ConceptSpec, row: dict) -> ConceptSpec:
    facts = {
        "certainty": lambda value: {"certainty": _NAMES[round(float(value), 1)]},
        "note": lambda value: {"note": value.strip()},
        "text": lambda value: {"text": value.strip(), "source": "expert"},
    }[row["do"]](row["value"])
    return edits.with_term(spec, row["list"], row["text"], **facts)


@report_errors
def pressed(opened: Opened, search: str, event: gr.EventData) -> tuple:
    """A button of a row: drop, the other split, the other list."""
    row = event._data
    edit = {"drop": edits.without_term, "split": _other_split, "move": _other_list}[row["do"]]
    return screen(drafts.change(opened, lambda spec: edit(spec, row["list"], row["text"])), search)


def _other_split(spec: ConceptSpec, kind: str, text: str) -> ConceptSpec:
    _refuse_locked(spec)
    term = _term(spec, kind, text)
    return edits.with_term(spec, kind, text, split="test" if term.split == "train" else "train")


def _other_list(spec: ConceptSpec, kind: str, text: str) -> ConceptSpec:
    here, there = edits.without_term(spec, kind, text), _OTHER[kind]
    return replace(here, **{there: (*getattr(here, there), _term(spec, kind, text))})


def _term(spec: ConceptSpec, kind: str, text: str):
    return next(term for term in getattr(spec, kind) if term.text == text)


def _refuse_locked(spec: ConceptSpec) -> None:
    if why := _locked(spec.slug):
        raise CrceError(f"{why} Keep a copy of the concept to split it another way.")


@report_errors
def tool(opened: Opened, search: str, event: gr.EventData) -> tuple:
    """A button above the lists, with which the whole concept changes."""
    return screen(_TOOLS[event._data["do"]](opened), search)


def _theirs(opened: Opened) -> Opened:
    return drafts.show(drafts.open_or_first(opened.slug))


def _discard(opened: Opened) -> Opened:
    transcript.forget(opened.slug)
    return drafts.discard(opened)


_TOOLS: dict[str, Callable[[Opened], Opened]] = {
    "undo": drafts.undo,
    "redo": drafts.redo,
    "discard": _discard,
    "theirs": _theirs,
    "mine": drafts.keep_mine,
    "copy": drafts.keep_copy,
    "resplit": lambda opened: _split(opened, opened.spec.provenance.split_seed + 1),
}


@report_errors
def seeded(opened: Opened, search: str, event: gr.EventData) -> tuple:
    """The seed of the split was typed."""
    typed = event._data["value"].strip()
    if not typed.isdecimal():
        raise CrceError(f"The seed is {typed!r}; write a whole number of at least 0.")
    return screen(_split(opened, int(typed)), search)


def _split(opened: Opened, seed: int) -> Opened:
    def drawn(spec: ConceptSpec) -> ConceptSpec:
        _refuse_locked(spec)
        lists = {kind: edits.draw_split(_sorted(getattr(spec, kind)), seed) for kind in edits.LISTS}
        return replace(spec, **lists, provenance=replace(spec.provenance, reviewer="", split_seed=seed))

    return drafts.change(opened, drawn)


def _sorted(terms: tuple) -> list:
    """In an order of their own, so that the same terms and seed give the same split."""
    return sorted(terms, key=lambda term: (-term.weight, term.text))


@report_errors
def add(opened: Opened, search: str, kind: str, typed: str) -> tuple:
    """One phrase, or a pasted list."""
    texts = [text for text in re.split(r"[\n,;]+", typed) if text.strip()]
    after = drafts.change(opened, lambda spec: edits.with_terms(spec, kind, texts))
    if texts and after == opened:
        raise CrceError("The lists have this already, or it is the concept itself.")
    return "", *screen(after, search)


@report_errors
def bring(opened: Opened, search: str, path: str) -> tuple:
    """A file: JSON is a whole concept, which is opened; CSV adds to the lists on screen and updates their rows."""
    file = Path(path)
    text = csv_json.text_of(file)
    if file.suffix.casefold() == ".csv":
        after = drafts.change(opened, lambda spec: csv_json.from_csv(spec, text, file.name))
    else:
        after = _brought(opened, parse_spec(text, file.name))
    gr.Info("Undo takes it back.", title="Imported")
    return screen(after, search)


def _brought(opened: Opened, spec: ConceptSpec) -> Opened:
    if spec.slug == opened.slug:
        return drafts.change(opened, lambda _: spec)
    if spec.slug in library():
        return drafts.change(drafts.show(spec.slug), lambda _: spec)
    return drafts.keep_mine(Opened(None, spec))


@report_errors
def begin(name: str, category: str, sense: str) -> tuple:
    slug = drafts.create(name, category, sense).slug
    return "", "", *screen(drafts.show(slug))


@report_errors
def sign(opened: Opened, search: str, reviewer: str) -> tuple:
    return screen(drafts.change(opened, lambda spec: drafts.reviewed(spec, reviewer)), search)


@report_errors
def talked(opened: Opened, search: str, event: gr.EventData) -> tuple:
    """A button of the talk: a change or a round is taken, a round undone, a meaning chosen."""
    row = event._data
    chosen = int(row["n"]) if "n" in row else None
    return screen(curate_chat.pressed(opened, int(row["entry"]), chosen, row["do"]), search)


@report_errors
def pictures(slug: str, seen: list[str], request: gr.Request) -> tuple:
    """Draws a few missing pictures, unless a run needs the machine. Sends them only when there are new ones."""
    phrases = _phrases(slug)
    if not any(run.state in ("queued", "running") for run in runs.all_runs()):
        thumbnails.draw(phrases, request.session_hash)
    ready = thumbnails.ready(phrases)
    return (gr.skip(), gr.skip()) if ready == seen else (thumbnails.styles(ready), ready)


# The tab


def build() -> SimpleNamespace:
    ui = SimpleNamespace(opened=gr.State(Opened()), slug=gr.State(""), pictured=gr.State([]))
    with gr.Row(equal_height=False, elem_classes="desk"):
        with gr.Column(scale=2, min_width=190, elem_classes="shelfside"):
            _library(ui)
        with gr.Column(scale=8, min_width=600, elem_classes="middle"):
            ui.head = html_panel()
            _actions(ui)
            curate_preview.build_preview(ui)
            with gr.Row(equal_height=False):
                ui.lists = {kind: _list(kind) for kind in edits.LISTS}
            curate_preview.build_distances(ui)
        with gr.Column(scale=3, min_width=290, elem_classes="talkside"):
            curate_chat.build(ui)
    lists = [part.rows for part in ui.lists.values()]
    ui.classify = [ui.opened, ui.slug, ui.head, *lists, ui.shelf, ui.count, ui.log]
    return ui


def _library(ui: SimpleNamespace) -> None:
    ui.search = gr.Textbox("", placeholder="Search the library", show_label=False, container=False)
    ui.shelf = html_panel()
    ui.count = gr.Markdown(elem_classes="mute")
    with gr.Accordion("+ your own concept", open=False) as ui.own:
        ui.name = gr.Textbox("", label="Concept", placeholder="lighthouse", max_length=200)
        ui.category = gr.Dropdown(CATEGORIES, label="Category", value="object")
        ui.sense = gr.Textbox("", label="Sense", info="Only if the word has several", max_length=200)
        ui.begin = gr.Button("Begin", size="sm")
        curate_chat.build_names(ui)


def _actions(ui: SimpleNamespace) -> None:
    with gr.Row(elem_classes="line"):
        ui.bring = gr.UploadButton("Import", file_types=[".json", ".csv"], size="sm", scale=0, min_width=76)
        ui.check = gr.Button("Check what the model draws", size="sm", scale=0, min_width=196)
        ui.reviewer = gr.Textbox("", placeholder="Your name", show_label=False, container=False, scale=1, min_width=110)
        ui.sign = gr.Button("Mark reviewed", size="sm", scale=0, min_width=110)
        ui.erase = gr.Button("Erase this →", variant="primary", size="sm", scale=0, min_width=110)


def _list(kind: str) -> SimpleNamespace:
    with gr.Column(min_width=290):
        rows = html_panel()
        more = gr.Textbox(
            "", placeholder=f"Add to {_WORDS[kind][0].split()[0]}: one phrase, or a pasted list",
            show_label=False, container=False, lines=1, max_lines=8,
        )  # fmt: skip
    return SimpleNamespace(rows=rows, more=more)


def wire(ui: SimpleNamespace, app: SimpleNamespace) -> None:
    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    # One change after the other: each starts from the draft that the one before has saved.
    edits = {"concurrency_id": "drafts", "concurrency_limit": 1, **quiet}
    shows, where = ui.classify, [ui.opened, ui.search]
    app.demo.load(restore, app.remembered, shows, **quiet)
    ui.slug.change(lambda slug: slug, ui.slug, app.remembered, **quiet)
    ui.search.change(search_shelf, [ui.search, ui.opened], ui.shelf, **quiet)
    ui.shelf.click(choose, ui.search, shows, **quiet)
    # Two quick presses of Undo are two steps back.
    ui.head.click(tool, where, shows, trigger_mode="multiple", **edits)
    ui.head.input(seeded, where, shows, **edits)
    for kind, part in ui.lists.items():
        # Each row speaks for itself: none may replace another's event that still waits.
        part.rows.input(moved, where, shows, trigger_mode="multiple", **edits)
        part.rows.click(pressed, where, shows, trigger_mode="multiple", **edits)
        part.more.submit(add, [*where, gr.State(kind), part.more], [part.more, *shows], **edits)
    ui.bring.upload(bring, [*where, ui.bring], shows, **edits)
    ui.begin.click(begin, [ui.name, ui.category, ui.sense], [ui.name, ui.sense, *shows], **edits)
    ui.sign.click(sign, [*where, ui.reviewer], shows, **edits)
    gr.on([app.redraw.tick, ui.slug.change], pictures, [ui.slug, ui.pictured], [app.pictures, ui.pictured], **quiet)
    ui.log.click(talked, where, shows, **edits)
    curate_chat.wire(ui, app)
    curate_preview.wire(ui, app, marked)
