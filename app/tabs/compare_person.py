"""Compare: a person says of each picture whether it shows the concept. The order is shuffled, and nothing tells before
from after or what the judge thinks, so that the agreement means something."""

import base64
import random
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.components import data_url, render
from app.errors import report_errors
from app.session.comparison import Comparison
from crce import runs
from crce.errors import CrceError
from crce.evaluation.agreement import Answer, PersonVerdict, Picture
from crce.runs.person import add_verdict
from crce.worker.answers import Cell

_WORDS: dict[Answer, str] = {"yes": "Yes", "no": "No", "unclear": "Cannot tell"}
_KEYS: dict[Answer, str] = {"yes": "y", "no": "n", "unclear": "u"}


@dataclass(frozen=True)
class Place:
    """A picture of a comparison. runs: the ids of the runs with which a verdict on it is saved."""

    row: int
    column: int
    seed: int
    runs: tuple[str, ...]


def list_places(comparison: Comparison) -> list[Place]:
    """Every picture that belongs to a run, shuffled, always alike. The base's own belong to all of them."""
    every = tuple(title.run for title in comparison.titles if title.run)
    columns = [(0, every), *((n, (title.run,)) for n, title in enumerate(comparison.titles) if title.run)]
    places = [
        Place(row, column, seed, owners)
        for row in range(len(comparison.rows))
        for column, owners in columns
        for seed in range(len(comparison.seeds))
        if owners
    ]
    random.Random(0).shuffle(places)
    return places


def render_person(comparison: Comparison | None, number: int | None = None) -> str:
    """The picture at this place of the order, else the first without an answer."""
    places = list_places(comparison) if comparison and comparison.complete else []
    if comparison is None or not places:
        return render("person", total=0, drawn=bool(comparison and comparison.complete))
    answers = _read_answers(comparison, places)
    if number is None:
        number = answers.index(None) if None in answers else 0
    place = places[number]
    return render(
        "person",
        total=len(places),
        done=sum(answer is not None for answer in answers),
        number=number,
        asked=comparison.rows[place.row].prompt.ask,
        src=data_url(base64.b64decode(_find_cell(comparison, place).png), "image/png"),
        answer=answers[number],
        choices=[(key, _KEYS[key], word) for key, word in _WORDS.items()],
    )


@report_errors
def start(comparison: Comparison | None) -> str:
    return render_person(comparison)


@report_errors
def press_button(comparison: Comparison, event: gr.EventData) -> str:
    """An answer is saved and the next picture without one is shown; the other buttons go back and forth."""
    places, number = list_places(comparison), int(event._data["number"])
    if event._data["do"] == "turn":
        return render_person(comparison, number % len(places))
    answer: Any = event._data["answer"]
    if answer not in _WORDS:
        raise CrceError(f"{answer!r} is no answer; use one of {', '.join(_WORDS)}.")
    _save(comparison, places[number], answer)
    answers = _read_answers(comparison, places)
    return render_person(comparison, answers.index(None, number) if None in answers[number:] else None)


def _save(comparison: Comparison, place: Place, answer: Answer) -> None:
    verdict = PersonVerdict(*_name_picture(comparison, place), answer, comparison.judge,
                            _find_cell(comparison, place).yes)  # fmt: skip
    for name in place.runs:
        add_verdict(runs.find(name).dir, verdict)


def _find_cell(comparison: Comparison, place: Place) -> Cell:
    return comparison.rows[place.row].columns[place.column][place.seed]


def _name_picture(comparison: Comparison, place: Place) -> Picture:
    prompt = comparison.rows[place.row].prompt
    return prompt.text, prompt.ask or "", comparison.seeds[place.seed], place.column > 0


def _read_answers(comparison: Comparison, places: list[Place]) -> list[Answer | None]:
    """What the person has said of each picture."""
    owners = {place.runs[0] for place in places}
    known = {(name, verdict.picture): verdict.answer for name in owners for verdict in runs.find(name).person}
    return [known.get((place.runs[0], _name_picture(comparison, place))) for place in places]
