"""The talk beside the lists: what is wished for, what the proposer would change, and what is taken of it."""

import os
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from types import SimpleNamespace

import gradio as gr

from app.components import html_panel, render
from app.errors import report_errors
from app.session import drafts, transcript
from app.session.drafts import Opened
from crce.concepts.edits import Revision
from crce.concepts.library import library
from crce.concepts.spec import ConceptSpec, Provenance, spec_from_dict
from crce.errors import CrceError

IMPROVE = "Improve both lists; keep what is right."
_SAID = {True: "Improve both lists.", False: "Propose both lists."}
_CATEGORIES = {"ip": "Characters", "celebrity": "Celebrities"}
_OFTEN = 0.15  # seconds between two looks at what is being written
_TAIL = 160  # characters shown of what cannot be read yet


# What the screen shows


def log(spec: ConceptSpec) -> str:
    """The conversation. Only the last round can be taken or undone; older ones are history."""
    entries = [_row(spec, entry) for entry in transcript.entries(spec.slug)]
    rounds = [number for number, entry in enumerate(entries) if entry["who"] == "proposer"]
    return render("talk", spec=spec, entries=entries, last=rounds[-1] if rounds else None)


def offers(slug: str) -> list[dict]:
    return [entry for entry in transcript.entries(slug) if entry["who"] == "proposer"]


def _row(spec: ConceptSpec, entry: dict) -> dict:
    """An entry as it is shown: what was taken of it, and the meanings that it asks about."""
    if entry["who"] == "proposer":
        rows = [_change(spec, change) for change in transcript.changes(entry)]
        return {**entry, "rows": rows, "open": sum(not row["held"] for row in rows)}
    if entry["who"] == "senses":
        specs = map(spec_from_dict, entry["specs"])
        return {**entry, "senses": [{"name": s.name, "like": ", ".join(t.text for t in s.corefs[:3])} for s in specs]}
    return entry


def _change(spec: ConceptSpec, change) -> dict:
    label = replace(change, why="").label
    return {"verb": change.verb, "label": label, "why": change.why, "held": transcript.held(spec, change)}


def _writing(spec: ConceptSpec, by: str, text: str) -> str:
    from crce.proposers.offers import parse_terms

    tail = " ".join(text[-_TAIL:].split())
    return render("writing", target=spec.name, by=by, count=len(text), terms=parse_terms(text), tail=tail)


# What a person does


@report_errors
def ask(opened: Opened, wish: str, model: str) -> Iterator[tuple]:
    """A round: what the proposer would change, to choose from. Nothing is applied yet."""
    from crce.proposers.proposers import proposer

    spec, wish, who = drafts.settled(opened), wish.strip(), proposer(model or "")
    length = transcript.say(spec, wish or _SAID[bool(spec.corefs or spec.retains)])
    yield log(spec), _writing(spec, who.label, ""), ""
    try:
        entry = yield from _watched(spec, who, _entry(spec, wish, who))
    except CrceError as error:
        entry = {"who": "trouble", "text": str(error)}
    except GeneratorExit:
        transcript.answer(spec.slug, length, {"who": "note", "text": "Stopped before the answer was there."})
        raise
    transcript.answer(spec.slug, length, entry)
    yield gr.skip(), gr.skip(), gr.skip()


def _watched(spec: ConceptSpec, who, writing: Generator) -> Generator[tuple, None, dict]:
    """What the writing comes to; meanwhile the page shows how far it is."""
    text, looked = "", 0.0
    try:
        while True:
            try:
                text += next(writing)
            except StopIteration as end:
                return end.value
            if time.monotonic() - looked > _OFTEN:
                looked = time.monotonic()
                yield gr.skip(), _writing(spec, who.label, text), gr.skip()
    finally:
        # Gradio ends a handler that was stopped on its event loop's thread, where the request's own loop cannot run.
        threading.Thread(target=writing.close).start()


def _entry(spec: ConceptSpec, wish: str, who) -> Generator[str, None, dict]:
    if wish or spec.corefs or spec.retains:
        revision = yield from who.revise(spec, wish or IMPROVE, transcript.since(spec.slug))
        if revision.spec.slug != spec.slug:
            # Another meaning is a concept of its own; this one stays as it is.
            return transcript.choice([revision.spec], who.label)
        return transcript.offer(spec, revision, who.label)
    seed = spec.provenance.split_seed
    found = yield from who.meanings(spec.target, spec.category, spec.sense, seed)
    if len(found) > 1:
        return transcript.choice(found, who.label)
    return transcript.offer(spec, Revision(found[0]), who.label)


@report_errors
def stop(opened: Opened) -> tuple:
    talk = transcript.entries(opened.slug)
    if talk and talk[-1]["who"] == "you":
        transcript.answer(opened.slug, len(talk), {"who": "note", "text": "You stopped it."})
    return refreshed(opened)


@report_errors
def refreshed(opened: Opened) -> tuple:
    """The talk about the concept that is open by now."""
    return (log(opened.mine) if opened.mine else ""), ""


def pressed(opened: Opened, number: int, chosen: int | None, do: str) -> Opened:
    """A button of the talk: take something, undo a round, or say which meaning."""
    drafts.settled(opened)
    if do == "take":
        return transcript.take(opened, number, chosen)
    if do == "back":
        return transcript.take_back(opened, number)
    return _meant(opened, transcript.entries(opened.slug)[number], chosen)


def _meant(opened: Opened, entry: dict, chosen: int) -> Opened:
    """Opens the meaning that was chosen, with its lists as an offer."""
    offered = spec_from_dict(entry["specs"][chosen])
    bare = replace(offered, corefs=(), retains=(), provenance=Provenance(split_seed=offered.provenance.split_seed))
    if offered.slug not in library():
        drafts.keep_mine(Opened(None, bare))
    after = drafts.show(offered.slug)
    length = transcript.say(after.spec, f"“{offered.target}” as in {offered.sense}")
    transcript.answer(after.slug, length, transcript.offer(after.spec, Revision(offered), entry["by"]))
    return after


@report_errors
def label(model: str) -> str:
    from crce.proposers.proposers import proposer

    return render("proposer", by=proposer(model or "").label)


@report_errors
def models() -> tuple:
    """The models of the endpoint to choose from, where it lists them."""
    from crce.proposers import chat

    found, chosen = chat.models(), os.environ.get("CRCE_MODEL", "")
    return gr.Dropdown(found, value=chosen, visible=bool({*found} - {chosen})), label(chosen)


@report_errors
def suggest(category: str, model: str) -> Iterator[str]:
    from crce.proposers.offers import finish
    from crce.proposers.proposers import proposer

    who = proposer(model or "")
    yield render("line", text=f"{who.label} is thinking of names…")
    yield render("names", names=finish(who.names(category)), category=category, by=who.label)


def suggested(event: gr.EventData) -> tuple:
    return event._data["name"], event._data["category"]


# The parts of the tab


def build(ui: SimpleNamespace) -> None:
    ui.who = html_panel()
    ui.log = html_panel(elem_classes="log")
    ui.writing = html_panel(elem_classes="maybe")
    ui.wish = gr.Textbox(
        "", placeholder="fewer breeds, more synonyms…", label="What should change?", show_label=False,
        container=False, lines=2, max_lines=6, max_length=2000,
    )  # fmt: skip
    ui.propose = gr.Button("Propose", size="md")
    ui.model = gr.Dropdown([], value="", label="Model", allow_custom_value=True, visible=False)


def build_names(ui: SimpleNamespace) -> None:
    gr.Markdown("No idea yet? Suggest concepts:", elem_classes="mute")
    with gr.Row():
        ui.suggest = {key: gr.Button(name, size="sm", min_width=60) for key, name in _CATEGORIES.items()}
    ui.names = html_panel(elem_classes="maybe")


def wire(ui: SimpleNamespace, app: SimpleNamespace) -> None:
    asked = {"concurrency_id": "llm", "concurrency_limit": 4, "show_progress": "hidden", "api_visibility": "private"}
    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    said = [ui.log, ui.writing]
    asking = gr.on([ui.propose.click, ui.wish.submit], ask, [ui.opened, ui.wish, ui.model], [*said, ui.wish], **asked)
    asking.then(refreshed, ui.opened, said, **quiet)
    ui.writing.stop(stop, ui.opened, said, cancels=[asking], **quiet)
    app.demo.load(models, None, [ui.model, ui.who], **quiet)
    ui.model.change(label, ui.model, ui.who, **quiet)
    for category, button in ui.suggest.items():
        button.click(suggest, [gr.State(category), ui.model], ui.names, **asked)
    ui.names.click(suggested, None, [ui.name, ui.category], **quiet)
