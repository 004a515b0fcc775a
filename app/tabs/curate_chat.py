"""The chat beside the lists: what the user requests, what the proposer would change, and what is accepted of it."""

import os
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from app.components import html_panel, render
from app.errors import in_page_words, report_errors
from app.events import QUIET
from app.session import drafts, transcript
from app.session.drafts import OpenConcept
from app.session.question import Question, current_tab, is_open, require_saved
from crce.concepts.edits import Change, Revision
from crce.concepts.library import library
from crce.concepts.spec import ConceptSpec, Provenance, spec_from_dict
from crce.errors import CrceError
from crce.generators import Stream
from crce.redact import redact_growing

if TYPE_CHECKING:
    from crce.proposers.llm import ChatProposer
    from crce.proposers.offline import LexiconProposer

IMPROVE = "Improve both lists; keep what is right."
_CATEGORIES = {"ip": "Characters", "celebrity": "Celebrities"}
_INTERVAL = 0.15  # seconds between two updates of an answer that is being written
_TAIL = 160  # characters shown of an answer that has no complete term yet
_ASKING: dict[str, Any] = {"concurrency_id": "llm", "concurrency_limit": 4, **QUIET}


@dataclass(frozen=True)
class ChatPanel:
    """who: the proposer. wishes: what it understands, to choose from. writing: an answer that is being written. model:
    which model of the endpoint answers."""

    who: gr.HTML
    log: gr.HTML
    writing: gr.HTML
    wishes: gr.HTML
    request: gr.Textbox
    propose: gr.Button
    model: gr.Dropdown


@dataclass(frozen=True)
class NamesPanel:
    """Suggestions of concepts, by category."""

    suggest: dict[str, gr.Button]
    names: gr.HTML


# What the panel shows


def render_chat(spec: ConceptSpec) -> str:
    """The conversation. Only the last round can be accepted or undone."""
    entries = [_describe_entry(spec, entry) for entry in transcript.read_entries(spec.slug)]
    rounds = [number for number, entry in enumerate(entries) if entry["who"] == "proposer"]
    broken = transcript.is_broken(spec.slug)
    return render("chat", spec=spec, entries=entries, last=rounds[-1] if rounds else None, broken=broken)


def _describe_entry(spec: ConceptSpec, entry: dict) -> dict:
    """An entry for the template: with what is accepted of a round, or with the senses to choose from."""
    if entry["who"] == "proposer":
        rows = [_describe_change(spec, change) for change in transcript.read_changes(entry)]
        return {**entry, "rows": rows, "open": sum(not row["applied"] for row in rows)}
    if entry["who"] == "senses":
        specs = map(spec_from_dict, entry["specs"])
        return {**entry, "senses": [{"name": s.name, "like": ", ".join(t.text for t in s.corefs[:3])} for s in specs]}
    return entry


def _describe_change(spec: ConceptSpec, change: Change) -> dict:
    label, applied = replace(change, why="").label, transcript.is_applied(spec, change)
    return {"verb": change.verb, "label": label, "why": change.why, "applied": applied}


def render_writing(spec: ConceptSpec, by: str, text: str) -> str:
    from crce.proposers.offers import parse_terms

    text = redact_growing(text)
    tail = " ".join(text[-_TAIL:].split())
    return render("writing", target=spec.name, by=by, count=len(text), terms=parse_terms(text), tail=tail)


# What the user does


@report_errors
def ask(opened: OpenConcept, request: str, model: str) -> Iterator[tuple]:
    """A round: the changes that the proposer offers. Nothing is applied yet."""
    from crce.proposers.proposers import proposer

    spec, request, who = require_saved(opened), request.strip(), proposer(model or "")
    default = "Improve both lists." if spec.corefs or spec.retains else "Propose both lists."
    length = transcript.say(spec, request or default)
    yield render_chat(spec), render_writing(spec, who.label, ""), ""
    try:
        asked = Question(current_tab(), spec.slug)
        entry = yield from _watch(spec, who.label, _write_entry(spec, request, who), asked)
    except CrceError as error:
        entry = {"who": "trouble", "text": in_page_words(str(error))}
    except GeneratorExit:
        transcript.answer(spec.slug, length, {"who": "note", "text": "Stopped before the answer was complete."})
        raise
    transcript.answer(spec.slug, length, entry)
    yield gr.skip(), gr.skip(), gr.skip()


def _watch(
    spec: ConceptSpec, by: str, writing: Generator[str, None, dict], asked: Question
) -> Generator[tuple, None, dict]:
    """Shows an answer while it is written and its concept is open; returns its entry."""
    text, updated, stream = "", 0.0, Stream(writing)
    try:
        for piece in stream:
            text += piece
            if time.monotonic() - updated > _INTERVAL and is_open(asked):
                updated = time.monotonic()
                yield gr.skip(), render_writing(spec, by, text), gr.skip()
        return stream.result
    finally:
        # Gradio ends a stopped handler on the thread of its event loop, where the request's own loop cannot run.
        threading.Thread(target=writing.close).start()


def _write_entry(spec: ConceptSpec, request: str, who: "ChatProposer | LexiconProposer") -> Generator[str, None, dict]:
    if request or spec.corefs or spec.retains:
        revision = yield from who.revise(spec, request or IMPROVE, transcript.read_since(spec.slug))
        if revision.spec.slug != spec.slug:
            # Another sense is a separate concept; this one stays unchanged.
            return transcript.build_choice([revision.spec], who.label)
        return transcript.build_offer(spec, revision, who.label)
    seed = spec.provenance.split_seed
    specs = yield from who.meanings(spec.target, spec.category, spec.sense, seed)
    if len(specs) > 1:
        return transcript.build_choice(specs, who.label)
    return transcript.build_offer(spec, Revision(specs[0]), who.label)


@report_errors
def stop(opened: OpenConcept) -> tuple:
    entries = transcript.read_entries(opened.slug)
    if entries and entries[-1]["who"] == "you":
        transcript.answer(opened.slug, len(entries), {"who": "note", "text": "You stopped it."})
    return refresh(opened)


@report_errors
def refresh(opened: OpenConcept) -> tuple:
    """The chat about the concept that is open now, without an answer that is being written."""
    return (render_chat(opened.mine) if opened.mine else ""), ""


def press_button(opened: OpenConcept, facts: dict) -> OpenConcept:
    """A button in the chat: accepts changes, undoes a round, or chooses a sense.

    facts: of the button: do, entry (its number), and n (of the change or sense).
    """
    require_saved(opened)
    if facts["do"] == "forget":
        transcript.forget(opened.slug)
        return opened
    number = int(facts["entry"])
    if facts["do"] == "take":
        return transcript.take(opened, number, int(facts["n"]) if "n" in facts else None)
    if facts["do"] == "back":
        return transcript.take_back(opened, number)
    return _open_sense(transcript.read_entries(opened.slug)[number], int(facts["n"]))


def _open_sense(entry: dict, chosen: int) -> OpenConcept:
    """Opens the chosen sense as a concept, with its lists as an offer."""
    offered = spec_from_dict(entry["specs"][chosen])
    bare = replace(offered, corefs=(), retains=(), provenance=Provenance(split_seed=offered.provenance.split_seed))
    if offered.slug not in library():
        drafts.keep_mine(OpenConcept(None, bare))
    after = drafts.open_concept(offered.slug)
    length = transcript.say(after.spec, f"“{offered.target}” as in {offered.sense}")
    transcript.answer(after.slug, length, transcript.build_offer(after.spec, Revision(offered), entry["by"]))
    return after


@report_errors
def render_proposer(model: str) -> tuple[str, str]:
    """Who proposes, and wishes that this proposer understands."""
    from crce.proposers.proposers import proposer

    who = proposer(model or "")
    return render("proposer", by=who.label), render("wishes", wishes=who.wishes)


@report_errors
def list_models() -> tuple:
    """The models of the endpoint, if it lists them; and the proposer."""
    from crce.proposers import chat

    models, chosen = chat.models(), os.environ.get("CRCE_MODEL", "")
    return gr.Dropdown(models, value=chosen, visible=bool({*models} - {chosen})), *render_proposer(chosen)


@report_errors
def suggest_names(category: str, model: str) -> Iterator[str]:
    from crce.generators import drain
    from crce.proposers.proposers import proposer

    who = proposer(model or "")
    yield render("line", text=f"Waiting for names from {who.label}…")
    yield render("names", names=drain(who.names(category)), category=category, by=who.label)


def use_wish(event: gr.EventData) -> str:
    return event._data["wish"]


def use_name(event: gr.EventData) -> tuple:
    return event._data["name"], event._data["category"]


# The panels


def build() -> ChatPanel:
    who, log, writing = html_panel(), html_panel(elem_classes="log"), html_panel(elem_classes="maybe")
    wishes = html_panel(elem_classes="maybe")
    request = gr.Textbox(
        "", placeholder="What should change?", label="What should change?", show_label=False,
        container=False, lines=2, max_lines=6, max_length=2000,
    )  # fmt: skip
    propose = gr.Button("Propose", size="md")
    model = gr.Dropdown([], value="", label="Model", allow_custom_value=True, visible=False)
    return ChatPanel(who, log, writing, wishes, request, propose, model)


def build_names() -> NamesPanel:
    gr.Markdown("No idea yet? Suggest concepts:", elem_classes="mute")
    with gr.Row():
        buttons = {key: gr.Button(name, size="sm", min_width=60) for key, name in _CATEGORIES.items()}
    return NamesPanel(buttons, html_panel(elem_classes="maybe"))


def wire(panel: ChatPanel, opened: gr.State, demo: gr.Blocks) -> None:
    shown, inputs = [panel.log, panel.writing], [opened, panel.request, panel.model]
    asking = gr.on([panel.propose.click, panel.request.submit], ask, inputs, [*shown, panel.request], **_ASKING)
    asking.then(refresh, opened, shown, **QUIET)
    wished = panel.wishes.click(use_wish, None, panel.request, **QUIET)
    wished = wished.success(ask, inputs, [*shown, panel.request], **_ASKING)
    wished.then(refresh, opened, shown, **QUIET)
    panel.writing.stop(stop, opened, shown, cancels=[asking, wished], **QUIET)
    demo.load(list_models, None, [panel.model, panel.who, panel.wishes], **QUIET)
    panel.model.change(render_proposer, panel.model, [panel.who, panel.wishes], **QUIET)


def wire_names(panel: NamesPanel, model: gr.Dropdown, name: gr.Textbox, category: gr.Dropdown) -> None:
    for key, button in panel.suggest.items():
        button.click(suggest_names, [gr.State(key), model], panel.names, **_ASKING)
    panel.names.click(use_name, None, [name, category], **QUIET)
