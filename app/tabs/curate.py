"""Curate: which names are erased with a concept, which neighbours are kept, and how certain each of them is."""

from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from app.components import data_url, html_panel, pulse, render
from app.errors import report_errors
from app.events import PULSE, QUIET
from app.session import drafts, example, question, thumbnails, transcript
from app.session.drafts import OpenConcept
from app.tabs import curate_chat, curate_preview
from app.tabs.curate_chat import ChatPanel, NamesPanel
from app.tabs.curate_preview import DistancesPanel, PreviewPanel
from app.worker import WorkerRequest, waiting
from crce import files, runs
from crce.concepts import csv_json, edits
from crce.concepts.drawn import read_record
from crce.concepts.library import broken_concepts, is_shipped, library, parse_spec
from crce.concepts.lint import Finding, lint
from crce.concepts.spec import CATEGORIES, CERTAINTY, ConceptSpec, Term
from crce.errors import CrceError

# Of each list: title, explanation, and hint while it is empty.
_TEXTS = {
    "corefs": (
        "erase (corefs)",
        "Other names for the concept, erased with it. The slider sets how certain each one is.",
        "Press Propose, or add other names for the same thing: puppy, hound, guide dog.",
    ),
    "retains": (
        "keep (retains)",
        "Close but different concepts, to be kept. The slider sets how much each one counts.",
        "Press Propose, or add neighbours to keep: wolf, cat, fox.",
    ),
}
_OTHER = {"corefs": "retains", "retains": "corefs"}
_CERTAINTIES = {weight: name for name, weight in CERTAINTY.items()}
# What the terms share that one rule warns of.
_SHARED = {
    "duplicate": "are there twice",
    "leak": "name another concept",
    "contains": "contain a term of the other list, or are part of one",
    "vague": "are too vague",
    "long": "are too long",
    "modifiers": "are the concept's name with an addition",
    "taken": "are also erased with another concept",
    "dead": "are not drawn by the base model",
}
_MANY = 3  # equal warnings, or notes, that become one
# In a narrow window the talk is a drawer.
_TOGGLE_TALK = "() => document.querySelector('.desk').classList.toggle('talking')"
_THUMBNAIL_SECONDS = 60
# One edit after the other: each starts from what the one before has saved.
ONE_BY_ONE: dict[str, Any] = {"concurrency_id": "drafts", "concurrency_limit": 1, **QUIET}
_MAX_DIFFERENCES = 12  # shown between two versions


@dataclass(frozen=True)
class Imported:
    """An uploaded file: its name, and the concept or the rows that it holds."""

    name: str
    content: ConceptSpec | tuple[csv_json.Row, ...]


@dataclass(frozen=True)
class Shelf:
    """The library beside the lists, with the form for a new concept."""

    search: gr.Textbox
    concepts: gr.HTML
    reviewed: gr.Markdown
    own_concept: gr.Accordion
    name: gr.Textbox
    category: gr.Dropdown
    sense: gr.Textbox
    create: gr.Button
    names: NamesPanel


@dataclass(frozen=True)
class Actions:
    """The buttons above the lists."""

    import_file: gr.UploadButton
    check: gr.Button
    reviewer: gr.Textbox
    sign: gr.Button
    erase: gr.Button


@dataclass(frozen=True)
class TermList:
    terms: gr.HTML
    more: gr.Textbox


@dataclass(frozen=True)
class CurateTab:
    """opened: an `OpenConcept`. slug: of that concept. drawn: the phrases whose pictures the page has; pulse: there may
    be more."""

    opened: gr.State
    slug: gr.State
    drawn: gr.State
    pulse: gr.HTML
    shelf: Shelf
    head: gr.HTML
    actions: Actions
    preview: PreviewPanel
    lists: dict[str, TermList]
    distances: DistancesPanel
    chat: ChatPanel

    @property
    def terms(self) -> list[gr.HTML]:
        return [part.terms for part in self.lists.values()]

    @property
    def parts(self) -> list[Any]:
        """What shows the concept, in the order of `render_all`."""
        shelf = self.shelf
        return [self.opened, self.slug, self.head, *self.terms, shelf.concepts, shelf.reviewed, self.chat.log]


# What the tab shows


def render_shelf(search: str, slug: str) -> str:
    """The library, with whether each concept is a draft, reviewed or used."""
    uses = _count_runs()
    specs = [spec for spec in library().values() if search.strip().casefold() in spec.name.casefold()]
    return render(
        "library",
        specs=specs,
        states={spec.slug: _describe_state(spec, uses) for spec in specs},
        slug=slug,
        picture_class=thumbnails.picture_class,
        drawn={spec.slug for spec in thumbnails.filter_drawn(specs)},
        base=thumbnails.BASE,
        broken={path.stem: problem for path, problem in broken_concepts().items()},
    )


def search_shelf(search: str, opened: OpenConcept) -> str:
    return render_shelf(search, opened.slug)


def count_reviewed() -> str:
    specs = library().values()
    return f"{sum(bool(spec.provenance.reviewer) for spec in specs)} of {len(specs)} reviewed"


def render_head(opened: OpenConcept) -> str:
    spec = opened.spec
    undo, redo = drafts.count_steps(spec.slug)
    return render(
        "spec",
        spec=spec,
        conflict=_describe_conflict(opened),
        picture_class=thumbnails.picture_class,
        own=drafts.is_own(spec),
        shipped=is_shipped(spec),
        runs=_count_runs()[spec.slug],
        locked=explain_lock(spec.slug),
        undo=undo,
        redo=redo,
        forgotten=drafts.has_broken_history(spec.slug),
        json=data_url(csv_json.to_json(spec), "application/json"),
        csv=data_url(csv_json.to_csv(spec), "text/csv"),
    )


def render_terms(spec: ConceptSpec, kind: str) -> str:
    title, explanation, hint = _TEXTS[kind]
    return render(
        "terms",
        title=title,
        explanation=explanation,
        hint=hint,
        picture_class=thumbnails.picture_class,
        terms=getattr(spec, kind),
        list=kind,
        side=edits.LISTS[kind],
        other=edits.LISTS[_OTHER[kind]],
        locked=explain_lock(spec.slug),
        lint=_group_findings(spec, kind),
        repeated=_find_repeated(getattr(spec, kind)),
        reasons=_collect_reasons(spec),
    )


def render_all(opened: OpenConcept, search: str = "") -> tuple:
    """Everything that shows the concept, in the order of `CurateTab.parts`."""
    question.show(opened)
    if not opened.slug:
        return opened, "", "", "", "", render_shelf(search, ""), count_reviewed(), ""
    spec, slug = opened.spec, opened.slug
    lists = (render_terms(spec, kind) for kind in edits.LISTS)
    shelf = render_shelf(search, slug)
    return opened, slug, render_head(opened), *lists, shelf, count_reviewed(), curate_chat.render_chat(spec)


def _describe_conflict(opened: OpenConcept) -> dict | None:
    """What another window has changed since this page read the concept."""
    theirs = opened.theirs
    if theirs == opened.seen:
        return None
    if theirs is None:
        return {"title": "Another window deleted this concept.", "about": "Your version is not saved.", "lines": [],
                "deleted": True}  # fmt: skip
    lines = [change.label for change in edits.changes(opened.spec, theirs)]
    hidden = len(lines) - _MAX_DIFFERENCES
    more = [f"and {hidden} more"] if hidden > 0 else []
    differences = "Their version differs by:" if lines else "Their version differs in notes, split or review."
    return {
        "title": "Another window changed these lists.",
        "about": f"Your version is not saved. {differences}",
        "lines": lines[:_MAX_DIFFERENCES] + more,
    }


def _group_findings(spec: ConceptSpec, kind: str) -> dict[str, list[Finding]]:
    """Warnings by term; those about the whole list under "". Many of one rule become one about the whole list."""
    facts = transcript.read(spec.slug)["facts"]
    drawn = read_record(thumbnails.BASE).count_terms(spec) | facts.get("drawn", {})
    found = lint(spec, library().values(), facts.get("tokens"), facts.get("limit", 77), drawn)
    rules, groups = defaultdict(list), defaultdict(list)
    for finding in found:
        if finding.kind == kind:
            rules[finding.rule].append(finding)
    for alike in rules.values():
        for finding in alike if len(alike) < _MANY else [_join_findings(alike)]:
            groups[finding.text].append(finding)
    return groups


def _join_findings(alike: list[Finding]) -> Finding:
    """One warning for many terms; its first line says what they share."""
    lines = [f"{found.text} {found.reason}" for found in alike]
    return replace(alike[0], text="", reason="\n".join([f"{len(alike)} terms {_SHARED[alike[0].rule]}", *lines]))


def _find_repeated(terms: Sequence[Term]) -> dict[str, int]:
    """Notes that many terms have, with how many: they are shown once, and in a row when it is looked at."""
    return {note: count for note, count in Counter(term.note for term in terms).items() if note and count >= _MANY}


def _collect_reasons(spec: ConceptSpec) -> dict[str, str]:
    """By term: its note, and the proposer's reason if that is another one."""
    rounds = [entry for entry in transcript.read_entries(spec.slug) if entry["who"] == "proposer"]
    reasons = {change.term.text: change.why for entry in rounds for change in transcript.read_changes(entry)}
    return {term.text: _join_reasons(term.note, reasons.get(term.text, "")) for term in (*spec.corefs, *spec.retains)}


def _join_reasons(note: str, reason: str) -> str:
    return " · ".join(filter(None, [note, f"proposer: {reason}" if reason and reason != note else ""]))


def _count_runs() -> Counter[str]:
    """How many runs each concept is used in, by slug; the example that came by itself is not counted."""
    return Counter(run.facts.slug for run in runs.all_runs() if run.facts.name != example.NAME)


def explain_lock(slug: str) -> str:
    """Why the split can no longer change; "" while no run uses it."""
    count = _count_runs()[slug]
    trained = f"{count} run{'s' if count > 1 else ''}"
    return f"The split is locked: {trained} trained with it, and held-out terms must stay unseen." if count else ""


def _describe_state(spec: ConceptSpec, uses: Counter[str]) -> str:
    if spec.provenance.reviewer:
        return "✓ reviewed"
    return "● used, draft" if uses[spec.slug] else "◐ draft"


def _list_phrases(slug: str) -> list[str]:
    """What is shown with a picture: on Start, in the library, and in the lists of the open concept."""
    specs = library()
    spec = specs.get(slug)
    own = [term.text for term in (*spec.corefs, *spec.retains)] if spec else []
    return [*thumbnails.HERO, *(other.target for other in thumbnails.filter_drawn(specs.values())), *own]


# What the user does


@report_errors
def restore(remembered: str | None, http: gr.Request) -> tuple:
    """Opens the concept that the page's address names, else the one that this browser had open last."""
    return render_all(drafts.open_concept(drafts.find_slug(http.query_params.get("concept") or remembered)))


@report_errors
def redraw_lists(opened: OpenConcept) -> tuple:
    return tuple(render_terms(opened.spec, kind) for kind in edits.LISTS)


@report_errors
def choose_concept(search: str, event: gr.EventData) -> tuple:
    return render_all(drafts.open_concept(event._data["slug"]), search)


@report_errors
def delete_broken(search: str, opened: OpenConcept, event: gr.EventData) -> str:
    """Deletes a file of the library that holds no concept."""
    for path in broken_concepts():
        if path.stem == event._data["name"]:
            files.remove(path)
    return render_shelf(search, opened.slug)


def _change(opened: OpenConcept, edit: Callable[[ConceptSpec], ConceptSpec]) -> OpenConcept:
    """As `drafts.change`. Where it cannot be saved, that is told in sight: the two versions stand above the lists."""
    after = drafts.change(opened, edit)
    if after.stale:
        gr.Warning("Another window has changed it. Choose above the lists which version to keep.", title="Not saved")
    return after


@report_errors
def change_field(opened: OpenConcept, search: str, event: gr.EventData) -> tuple:
    """A field of a term was changed. The lists are redrawn only if that shows something new."""
    after = _change(opened, lambda spec: _edit_field(spec, event._data))
    everything = render_all(after, search)
    if event._data["do"] == "text":
        return everything
    return *everything[:3], gr.skip(), gr.skip(), *everything[5:]


def _edit_field(spec: ConceptSpec, field: dict) -> ConceptSpec:
    facts = {
        "certainty": lambda value: {"certainty": _CERTAINTIES[round(float(value), 1)]},
        "note": lambda value: {"note": value.strip()},
        "text": lambda value: {"text": value.strip(), "source": "expert"},
    }[field["do"]](field["value"])
    return edits.with_term(spec, field["list"], field["text"], **facts)


@report_errors
def press_term_button(opened: OpenConcept, search: str, event: gr.EventData) -> tuple:
    """Drops a term, or moves it to the other split or list."""
    button = event._data
    edit = {"drop": edits.without_term, "split": _move_to_split, "move": _move_to_list}[button["do"]]
    return render_all(_change(opened, lambda spec: edit(spec, button["list"], button["text"])), search)


def _move_to_split(spec: ConceptSpec, kind: str, text: str) -> ConceptSpec:
    _refuse_locked(spec)
    split = "test" if _find_term(spec, kind, text).split == "train" else "train"
    return edits.with_term(spec, kind, text, split=split)


def _move_to_list(spec: ConceptSpec, kind: str, text: str) -> ConceptSpec:
    here, other = edits.without_term(spec, kind, text), _OTHER[kind]
    lists: dict[str, Any] = {other: (*getattr(here, other), _find_term(spec, kind, text))}
    return replace(here, **lists)


def _find_term(spec: ConceptSpec, kind: str, text: str) -> Term:
    return next(term for term in getattr(spec, kind) if term.text == text)


def _refuse_locked(spec: ConceptSpec) -> None:
    if reason := explain_lock(spec.slug):
        raise CrceError(f"{reason} Keep a copy of the concept to split it another way.")


@report_errors
def press_concept_button(opened: OpenConcept, search: str, event: gr.EventData) -> tuple:
    """A button above the lists, which changes the whole concept."""
    return render_all(_CONCEPT_BUTTONS[event._data["do"]](opened), search)


def _load_theirs(opened: OpenConcept) -> OpenConcept:
    if opened.theirs is None:
        raise CrceError("Another window deleted this concept. Keep yours as a copy, or save it again.")
    return drafts.open_concept(drafts.find_slug(opened.slug))


def _open_unreviewed(opened: OpenConcept) -> OpenConcept:
    """The next concept of the library that no one has reviewed."""
    slugs, specs = list(library()), library()
    start = slugs.index(opened.slug) + 1 if opened.slug in slugs else 0
    ahead = [slug for slug in slugs[start:] + slugs[:start] if not specs[slug].provenance.reviewer]
    if not set(ahead) - {opened.slug}:
        raise CrceError("No other concept is left to review.")
    return drafts.open_concept(ahead[0])


def _forget_history(opened: OpenConcept) -> OpenConcept:
    drafts.forget_history(opened.slug)
    return opened


def _discard(opened: OpenConcept) -> OpenConcept:
    transcript.forget(opened.slug)
    return drafts.discard(opened)


_CONCEPT_BUTTONS: dict[str, Callable[[OpenConcept], OpenConcept]] = {
    "undo": drafts.undo,
    "redo": drafts.redo,
    "discard": _discard,
    "forget": _forget_history,
    "theirs": _load_theirs,
    "mine": drafts.keep_mine,
    "copy": drafts.keep_copy,
    "next": _open_unreviewed,
    "resplit": lambda opened: redraw_split(opened, opened.spec.provenance.split_seed + 1),
}


@report_errors
def change_seed(opened: OpenConcept, search: str, event: gr.EventData) -> tuple:
    """Redraws the split with the seed that was entered."""
    text = event._data["value"].strip()
    if not text.isdecimal():
        raise CrceError(f"The seed is {text!r}; enter a whole number of at least 0.")
    return render_all(redraw_split(opened, int(text)), search)


def redraw_split(opened: OpenConcept, seed: int) -> OpenConcept:
    """Holds out a third of each list by this seed. Raises CrceError where runs have locked the split."""

    def redraw(spec: ConceptSpec) -> ConceptSpec:
        _refuse_locked(spec)
        lists: dict[str, Any] = {kind: edits.draw_split(_sort(getattr(spec, kind)), seed) for kind in edits.LISTS}
        return replace(spec, provenance=replace(spec.provenance, reviewer="", split_seed=seed), **lists)

    return _change(opened, redraw)


def _sort(terms: tuple[Term, ...]) -> list[Term]:
    """By certainty and text, so that the same terms and seed always give the same split."""
    return sorted(terms, key=lambda term: (-term.weight, term.text))


@report_errors
def add_terms(opened: OpenConcept, search: str, kind: str, typed: str) -> tuple:
    """One phrase, or a pasted list."""
    texts = edits.split_phrases(typed)
    after = _change(opened, lambda spec: edits.with_terms(spec, kind, texts))
    if texts and after == opened:
        raise CrceError("The lists already have this, or it is the concept itself.")
    return "", *render_all(after, search)


@report_errors
def read_file(path: str) -> Imported:
    """Reads an uploaded file, before the lists are held for the change."""
    file = Path(path)
    text = csv_json.read_text(file)
    is_table = file.suffix.casefold() == ".csv"
    return Imported(file.name, csv_json.read_table(text, file.name) if is_table else parse_spec(text, file.name))


@report_errors
def import_file(opened: OpenConcept, search: str, read: Imported) -> tuple:
    """JSON is a whole concept, which is opened. CSV adds terms to the lists on screen and updates existing ones."""
    content = read.content
    if isinstance(content, ConceptSpec):
        after = _import_spec(opened, content)
    else:
        after = _change(opened, lambda spec: csv_json.merge_table(spec, content, read.name))
    gr.Info("Imported. Press Undo to revert.")
    return render_all(after, search)


def _import_spec(opened: OpenConcept, spec: ConceptSpec) -> OpenConcept:
    if spec.slug == opened.slug:
        return _change(opened, lambda _: spec)
    if spec.slug in library():
        return drafts.change(drafts.open_concept(spec.slug), lambda _: spec)
    return drafts.keep_mine(OpenConcept(None, spec))


@report_errors
def create_concept(name: str, category: str, sense: str) -> tuple:
    slug = drafts.create(name, category, sense).slug
    return "", "", *render_all(drafts.open_concept(slug))


@report_errors
def sign_review(opened: OpenConcept, search: str, reviewer: str) -> tuple:
    return render_all(_change(opened, lambda spec: drafts.mark_reviewed(spec, reviewer)), search)


@report_errors
def press_chat_button(opened: OpenConcept, search: str, event: gr.EventData) -> tuple:
    """Accepts a change or a round, undoes a round, or chooses a sense."""
    return render_all(curate_chat.press_button(opened, event._data), search)


@waiting
@report_errors
def draw_pictures(slug: str, drawn: list[str], http: gr.Request) -> Generator[Any, Any, None]:
    """Draws a few missing pictures, unless a run needs the machine. Sends them only if there are new ones."""
    phrases = _list_phrases(slug)
    request = thumbnails.request_missing(phrases, http.session_hash)
    if request and not thumbnails.is_busy(runs.all_runs()):
        with suppress(CrceError):  # an error or a newer request leaves them for the next time
            answer = yield WorkerRequest(request, timeout=_THUMBNAIL_SECONDS)
            thumbnails.keep(request, answer)
    ready = thumbnails.list_ready(phrases)
    if ready != drawn:
        yield thumbnails.build_styles(ready), ready


# The tab


def build() -> CurateTab:
    opened, slug, drawn, picture_pulse = gr.State(OpenConcept()), gr.State(""), gr.State([]), pulse("pictures")
    with gr.Row(equal_height=False, elem_classes="desk"):
        with gr.Column(scale=2, min_width=190, elem_classes="shelfside"):
            shelf = _build_shelf()
        with gr.Column(scale=8, min_width=600, elem_classes="middle"):
            gr.Button("Talk", size="sm", elem_classes="to-talk").click(None, js=_TOGGLE_TALK)
            head = html_panel()
            actions = _build_actions()
            preview = curate_preview.build_preview()
            with gr.Row(equal_height=False):
                lists = {kind: _build_list(kind) for kind in edits.LISTS}
            distances = curate_preview.build_distances()
        with gr.Column(scale=3, min_width=290, elem_classes="chatside"):
            gr.Button("Close the talk", size="sm", elem_classes="to-talk").click(None, js=_TOGGLE_TALK)
            chat = curate_chat.build()
    return CurateTab(opened, slug, drawn, picture_pulse, shelf, head, actions, preview, lists, distances, chat)


def _build_shelf() -> Shelf:
    search = gr.Textbox(
        "", placeholder="Search the library", label="Search the library", show_label=False, container=False
    )
    concepts, reviewed = html_panel(), gr.Markdown(elem_classes="mute")
    with gr.Accordion("+ your own concept", open=False) as own_concept:
        name = gr.Textbox("", label="Concept", placeholder="lighthouse", max_length=200)
        category = gr.Dropdown(CATEGORIES, label="Category", value="object")
        sense = gr.Textbox("", label="Sense", info="Only if the word has several", max_length=200)
        create = gr.Button("Create", size="sm")
        names = curate_chat.build_names()
    return Shelf(search, concepts, reviewed, own_concept, name, category, sense, create, names)


def _build_actions() -> Actions:
    with gr.Row(elem_classes="line"):
        return Actions(
            import_file=gr.UploadButton("Import", file_types=[".json", ".csv"], size="sm", scale=0, min_width=76),
            check=gr.Button("Check what the model draws", size="sm", scale=0, min_width=196),
            reviewer=gr.Textbox(
                "",
                placeholder="Your name",
                label="Your name",
                show_label=False,
                container=False,
                scale=1,
                min_width=110,
            ),
            sign=gr.Button("Mark reviewed", size="sm", scale=0, min_width=110),
            erase=gr.Button("Erase this →", variant="primary", size="sm", scale=0, min_width=110),
        )


def _build_list(kind: str) -> TermList:
    with gr.Column(min_width=290):
        terms = html_panel()
        more = gr.Textbox(
            "", placeholder=f"Add to {edits.LISTS[kind]}: one phrase, or a pasted list",
            label=f"Add to {edits.LISTS[kind]}",
            show_label=False, container=False, lines=1, max_lines=8,
        )  # fmt: skip
    return TermList(terms, more)


def wire(ui: CurateTab, base: gr.Dropdown, demo: gr.Blocks, remembered: gr.BrowserState) -> None:
    """base: the model with which previews and distances are computed."""
    _wire_shelf(ui, demo, remembered)
    _wire_edits(ui)
    curate_chat.wire(ui.chat, ui.opened, demo)
    curate_chat.wire_names(ui.shelf.names, ui.chat.model, ui.shelf.name, ui.shelf.category)
    curate_preview.wire_preview(ui.preview, ui.opened, base)
    curate_preview.wire_check(ui.preview, ui.actions.check, ui.opened, base, ui.terms, redraw_lists)
    curate_preview.wire_distances(ui.distances, ui.opened, base)


def _wire_shelf(ui: CurateTab, demo: gr.Blocks, remembered: gr.BrowserState) -> None:
    shelf = ui.shelf
    demo.load(restore, remembered, ui.parts, **QUIET)
    ui.slug.change(lambda slug: slug, ui.slug, remembered, **QUIET)
    # What was said about the concept before.
    ui.slug.change(lambda: ("", ""), None, [ui.preview.drawable, ui.chat.writing], **QUIET)
    shelf.search.change(search_shelf, [shelf.search, ui.opened], shelf.concepts, **QUIET)
    shelf.concepts.click(choose_concept, shelf.search, ui.parts, **QUIET)
    shelf.concepts.delete(delete_broken, [shelf.search, ui.opened], shelf.concepts, **QUIET)


def _wire_edits(ui: CurateTab) -> None:
    # No event is skipped while another waits: two quick presses of Undo are two steps back.
    every = {"trigger_mode": "multiple", **ONE_BY_ONE}
    inputs, shelf, actions = [ui.opened, ui.shelf.search], ui.shelf, ui.actions
    ui.head.click(press_concept_button, inputs, ui.parts, **every)
    ui.head.input(change_seed, inputs, ui.parts, **ONE_BY_ONE)
    for kind, part in ui.lists.items():
        part.terms.input(change_field, inputs, ui.parts, **every)
        part.terms.click(press_term_button, inputs, ui.parts, **every)
        part.more.submit(add_terms, [*inputs, gr.State(kind), part.more], [part.more, *ui.parts], **ONE_BY_ONE)
    read = gr.State()
    uploaded = actions.import_file.upload(read_file, actions.import_file, read, **QUIET)
    uploaded.success(import_file, [*inputs, read], ui.parts, **ONE_BY_ONE)
    shelf.create.click(
        create_concept, [shelf.name, shelf.category, shelf.sense], [shelf.name, shelf.sense, *ui.parts], **ONE_BY_ONE
    )
    actions.sign.click(sign_review, [*inputs, actions.reviewer], ui.parts, **ONE_BY_ONE)
    ui.chat.log.click(press_chat_button, inputs, ui.parts, **ONE_BY_ONE)


def wire_pictures(ui: CurateTab, styles: gr.HTML) -> None:
    """styles: a style sheet with the pictures, for the whole page."""
    gr.on([ui.pulse.tick, ui.slug.change], draw_pictures, [ui.slug, ui.drawn], [styles, ui.drawn], **PULSE)
