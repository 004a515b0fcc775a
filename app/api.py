"""Endpoints for other programs: propose, preview, erase, status and compare. docs/api.md has examples of each.

They do what the tabs do, under the same rules; everything else on the page is private to it. Their types and
docstrings are what clients and assistants are told of them.
"""

import base64
import json
import uuid
from collections.abc import Callable, Sequence
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar

import gradio as gr
from gradio.utils import get_upload_folder
from pydantic import ValidationError, validate_call

from app.errors import report_errors
from app.session import comparison as session
from app.tabs import base_download, run_view
from app.tabs import compare as compare_tab
from app.tabs.comparison_sheet import draw_sheet
from app.tabs.curate_preview import SHOWN
from app.tabs.erase import queue_run
from crce import bases, devices, files, runs
from crce.concepts.dataset import KINDS
from crce.concepts.drawn import read_record
from crce.concepts.library import find_concept, parse_spec
from crce.concepts.spec import ConceptSpec, spec_to_dict
from crce.config import EraseConfig
from crce.errors import CrceError
from crce.proposers.proposers import propose as ask_proposer
from crce.proposers.proposers import proposer
from crce.records import first_problem
from crce.runs import Job, Run
from crce.worker import client
from crce.worker.answers import Cell
from crce.worker.requests import Column, GenerateRequest, ModelRequest, PreviewRequest

MOST_PROMPTS, MOST_SEEDS = 32, 8
_PATIENCE = 3600  # seconds
Columns = list[list[tuple[Cell, ...]]]  # before and after, each with the pictures of each prompt
A = TypeVar("A")


class Proposal(TypedDict):
    """by: who proposes. concepts: one for each sense, in the form of a concept's JSON file."""

    by: str
    concepts: list[dict[str, Any]]


class Score(TypedDict):
    """`rate` of `n` pictures after the erasure, and the same of the base."""

    rate: float
    base_rate: float
    n: int


class RunStatus(TypedDict):
    """state: queued, running, done, stopped, failed or interrupted. text: the state for people. done, of: how much of
    the current phase. seconds_left: where it is known. scores: the accuracies by name, once the run is judged."""

    run: str
    title: str
    method: str
    base: str
    state: str
    text: str
    erased: bool
    done: int
    of: int
    seconds_left: float | None
    scores: dict[str, Score]


class File(TypedDict):
    """A PNG for a day: clients of Gradio give the path of a copy, others read it at `url`."""

    path: str
    url: str
    orig_name: str
    mime_type: str
    meta: dict[str, str]


class Picture(TypedDict):
    """yes, p: whether the judge sees the concept, and how sure it is; None where it was not asked."""

    file: File
    yes: bool | None
    p: float | None


class Row(TypedDict):
    """A prompt, the list of the concept that it comes from ("typed" for one of your own), and a picture per seed."""

    prompt: str
    kind: str
    before: list[Picture]
    after: list[Picture]


class Preview(TypedDict):
    """seconds: of the edit alone."""

    concept: str
    seconds: float
    rows: list[Row]


class Comparison(TypedDict):
    run: str
    seeds: list[int]
    rows: list[Row]


def propose(
    concept: str, category: Literal["object", "ip", "celebrity", "style"] = "object", sense: str = ""
) -> Proposal:
    """Propose other names of a concept (corefs, to be erased with it) and its neighbours (retains, to be kept), each
    with a certainty. Nothing is saved.

    Args:
        concept: A word or phrase, such as "lighthouse".
        category: "object", "ip" for fictional characters, "celebrity" or "style".
        sense: Which sense of an ambiguous word; empty for a concept for each.
    """
    found = ask_proposer(concept, category, sense)
    return {"by": proposer().label, "concepts": [spec_to_dict(spec) for spec in found]}


def preview(
    concept: str | dict[str, Any], prompts: list[str] | None = None, anchor: str = "", base: str = bases.EMOJI_SD
) -> tuple[Preview, File]:
    """Draw prompts before and after an instant edit with a concept's lists: what erasing it would do, within seconds,
    and a sheet of all pictures. Nothing is saved.

    Args:
        concept: A name of the library, such as "dog", or one of the concepts that `propose` returns.
        prompts: At most 32; left out, the concept with the hardest names and neighbours of its lists.
        anchor: What the concept is drawn as instead, such as "a wolf"; empty for nothing.
        base: The base model, which must be on the server.
    """
    spec = _find_spec(concept)
    asked = prompts or [spec.target]
    _require_count("prompts", asked, MOST_PROMPTS)
    _require_here(base)
    request = PreviewRequest(f"api-{uuid.uuid4().hex}", base, spec, asked,
                             anchor=anchor.strip() or None, fill=0 if prompts else SHOWN)  # fmt: skip
    answer = _ask(request)
    columns: Columns = [[(Cell(png),) for png in pictures] for pictures in (answer.before, answer.after)]
    kinds = {term.text: kind for kind, field in KINDS.items() for term in getattr(spec, field)}
    kinds[spec.target] = "target"
    chosen = [session.Prompt(kinds.get(text, "typed"), text, None) for text in answer.prompts]
    made: Preview = {"concept": spec.name, "seconds": answer.edit_seconds, "rows": _describe_rows(chosen, columns)}
    titles = [session.Title("before", bases.public_name(base)), session.Title("after", "instant edit")]
    return made, _draw_sheet(spec, base, titles, chosen, request.seeds, columns)


def erase(
    concept: str | dict[str, Any],
    method: str = "crce",
    base: str = bases.EMOJI_SD,
    steps: int | None = None,
    seed: int = 0,
    images: int = 0,
) -> RunStatus:
    """Queue an erasure and return at once; `status` tells how it goes.

    Args:
        concept: A name of the library, such as "dog", or one of the concepts that `propose` returns.
        method: "crce", or "crce-uce" for a result within seconds; `python -m crce methods` lists all.
        base: The base model, which must be on the server.
        steps: Training steps; the base's preset if left out.
        seed: The same seed gives the same result.
        images: Pictures per term to judge afterwards, 0 for none.
    """
    if not 0 <= images <= runs.MOST_IMAGES:
        raise CrceError(f"images is {images}; give a number from 0 to {runs.MOST_IMAGES}.")
    job = Job(base, _find_spec(concept), EraseConfig(method, steps=steps, seed=seed))
    _require_here(base)
    return _describe(queue_run(job, images))


def status(run: str) -> RunStatus:
    """How a run is doing, and what was measured of it.

    Args:
        run: Its id, as `erase` returns it.
    """
    return _describe(runs.find(run))


def compare(run: str, prompts: list[str] | None = None, seeds: list[int] | None = None) -> tuple[Comparison, File]:
    """Draw prompts before and after an erasure on the same seeds, with the judge's verdict where there is a judge, and
    a sheet of all pictures.

    Args:
        run: The id of a run whose erasure is done.
        prompts: At most 32; left out, the concept, and a name and a neighbour that were not used in training.
        seeds: At most 8; [0] if left out.
    """
    found, seeds = runs.find(run), [0] if seeds is None else seeds
    spec = found.job.spec
    kinds, typed = [] if prompts else [*compare_tab.KINDS], "\n".join(prompts or [])
    chosen = compare_tab.choose_prompts(spec, kinds, 1, typed, read_record(found.job.base))
    _require_count("prompts", chosen, MOST_PROMPTS)
    _require_count("seeds", seeds, MOST_SEEDS)
    request = GenerateRequest(
        f"api-{uuid.uuid4().hex}", found.job.base, [Column(), Column(found.id)], [each.text for each in chosen], seeds,
        [each.ask for each in chosen], neighbours=[spec.name, *(term.text for term in spec.retains)],
    )  # fmt: skip
    answer, width = _ask(request), len(seeds)
    columns = [[cells[i * width : (i + 1) * width] for i in range(len(chosen))] for cells in answer.columns]
    told: Comparison = {"run": found.id, "seeds": seeds, "rows": _describe_rows(chosen, columns)}
    base = found.job.base
    titles = [session.Title("before", bases.public_name(base)),
              session.Title(found.title, found.job.config.title, found.id)]  # fmt: skip
    return told, _draw_sheet(spec, base, titles, chosen, seeds, columns)


def _require_here(base: str) -> None:
    if not base_download.is_here(base, devices.AUTO, devices.AUTO):
        raise CrceError(f"{base} is not on the server. Download it in the Erase tab first.")


def _require_count(what: str, given: Sequence[object], most: int) -> None:
    if not 1 <= len(given) <= most:
        raise CrceError(f"These are {len(given)} {what}; give 1 to {most}.")


def _ask(request: ModelRequest[A]) -> A:
    answer = client.send(request, timeout=_PATIENCE)
    if answer is None:
        raise CrceError("The worker gave no pictures. Try again.")
    return answer


def _draw_sheet(
    spec: ConceptSpec, base: str, titles: list[session.Title], prompts: list[session.Prompt], seeds: list[int],
    columns: Columns,
) -> File:  # fmt: skip
    rows = tuple(session.Row(prompt, cells) for prompt, *cells in zip(prompts, *columns, strict=True))
    ids = tuple(title.run for title in titles if title.run)
    drawn = session.Comparison(spec.name, titles, seeds, len(rows), rows, base=bases.public_name(base), runs=ids)
    return _offer(draw_sheet(drawn), "comparison.png")


def _describe_rows(prompts: list[session.Prompt], columns: Columns) -> list[Row]:
    return [
        {"prompt": each.text, "kind": each.kind, "before": _describe_cells(before), "after": _describe_cells(after)}
        for each, before, after in zip(prompts, *columns, strict=True)
    ]


def _describe_cells(cells: tuple[Cell, ...]) -> list[Picture]:
    return [{"file": _offer(base64.b64decode(cell.png), "picture.png"), "yes": cell.yes, "p": cell.p} for cell in cells]


def _offer(png: bytes, name: str) -> File:
    """Below the folder that Gradio serves and clears after a day."""
    path = Path(get_upload_folder(), f"picture-{uuid.uuid4().hex}", name)
    files.write_atomic(path, png)
    return {
        "path": str(path), "url": f"/gradio_api/file={path}", "orig_name": name, "mime_type": "image/png",
        "meta": {"_type": "gradio.FileData"},
    }  # fmt: skip


def _find_spec(concept: str | dict[str, Any]) -> ConceptSpec:
    """No path: a caller names no files of the server."""
    if isinstance(concept, dict):
        return parse_spec(json.dumps(concept), "The concept")
    try:
        if concept.endswith(".json"):
            raise CrceError(f"There is no concept {concept[:80]!r}.")
        return find_concept(concept)
    except CrceError as error:
        raise CrceError(f"{error} Give a name of the library, or the concept itself.") from None


def _describe(run: Run) -> RunStatus:
    state, progress, report = run.state, run.progress, run.report
    waiting = run_view.list_queue(runs.all_runs())
    scores: dict[str, Score] = {
        key: {"rate": found.rate, "base_rate": found.base_rate, "n": found.n}
        for key, found in (report.metrics if report else {}).items()
    }
    return {
        "run": run.id, "title": run.title, "method": run.job.config.label, "base": bases.public_name(run.job.base),
        "state": state, "text": run_view.describe_state(run, state, waiting), "erased": run.erased,
        "done": progress.done if progress else 0, "of": progress.of if progress else 0,
        "seconds_left": progress.seconds_left if progress else None, "scores": scores,
    }  # fmt: skip


def _checked(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Gradio passes on whatever JSON a caller sends; here its types are checked."""
    strict, names = validate_call(endpoint), [*signature(endpoint).parameters]

    @wraps(endpoint)
    def call(*values: Any) -> Any:
        try:
            # By name, which is what a caller is told of a value that does not fit.
            return strict(**dict(zip(names, values, strict=False)))
        except ValidationError as error:
            raise CrceError(f"{first_problem(error)}.") from None

    return report_errors(call)


def build() -> None:
    """Adds the endpoints to the page that is being built."""
    for endpoint in (propose, preview, erase, status, compare):
        gr.api(_checked(endpoint), api_name=endpoint.__name__, concurrency_limit=4)
