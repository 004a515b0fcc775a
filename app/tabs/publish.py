"""Publish: everything is previewed first, and nothing leaves this machine before the button is pressed."""

import os
import re
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import huggingface_hub
from gradio.utils import get_upload_folder

from app.components import html_panel, render
from app.errors import report_errors
from app.events import QUIET
from app.session import drafts, people, publications
from app.session.drafts import FIRST, OpenConcept
from app.tabs import compare, curate
from app.tabs.curate import CurateTab
from crce import runs
from crce.concepts import dataset
from crce.concepts.library import is_shipped, library, publishable
from crce.concepts.spec import ConceptSpec
from crce.cost import format_size
from crce.environment import OAUTH, on_space
from crce.errors import CrceError
from crce.publishing import hub
from crce.publishing.export import DEFAULT, FORMATS, Exported, base_expression, check, export, snippet
from crce.publishing.hub import Publication

_COLUMNS = ("concept", "kind", "term", "certainty", "weight", "rank", "source", "note")
_FIRST_ROWS = 10
_HEADER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)


@dataclass(frozen=True)
class Target:
    """Where to publish, and how."""

    repo: gr.Textbox
    private: gr.Checkbox
    pull_request: gr.Checkbox
    tag: gr.Textbox


@dataclass(frozen=True)
class Card:
    text: gr.Markdown
    header: gr.Code


@dataclass(frozen=True)
class DatasetPanel:
    """seen: the digest of what is shown."""

    seen: gr.State
    concepts: gr.Dropdown
    choose: gr.HTML
    target: Target
    compare: gr.Button
    publish: gr.Button
    result: gr.HTML
    files: gr.HTML
    preview: gr.Column
    rows: gr.Dataframe
    card: Card


@dataclass(frozen=True)
class WeightsPanel:
    """seen: the digest of what is shown."""

    seen: gr.State
    run: gr.Dropdown
    formats: gr.CheckboxGroup
    fp16: gr.Checkbox
    export: gr.Button
    files: gr.File
    exported: gr.HTML
    dataset: gr.Textbox
    target: Target
    publish: gr.Button
    result: gr.HTML
    card: Card


@dataclass(frozen=True)
class PublishTab:
    login: gr.HTML
    push: gr.HTML
    dataset: DatasetPanel
    weights: WeightsPanel


# What the tab shows


def list_concepts() -> list[tuple[str, str]]:
    return [(f"{'✓ ' if spec.provenance.reviewer else ''}{spec.name}", slug) for slug, spec in library().items()]


def list_reviewed() -> list[str]:
    return [slug for slug, spec in library().items() if spec.provenance.reviewer]


def list_all() -> list[str]:
    """What is published by default, without drafts of one's own that no one has reviewed."""
    return [slug for slug, spec in publishable().items() if spec.provenance.reviewer or is_shipped(spec)]


def render_choose() -> str:
    """The buttons that select many concepts at once, with how many of them no one has reviewed."""
    chosen, specs = list_all(), library()
    unreviewed = sum(not specs[slug].provenance.reviewer for slug in chosen)
    scratch = len(publishable()) - len(chosen)
    return render("choose", reviewed=len(list_reviewed()), count=len(chosen), unreviewed=unreviewed, scratch=scratch)


def render_login() -> str:
    return render("login", space=on_space(), token=bool(huggingface_hub.get_token()), advice=hub.NO_TOKEN)


@report_errors
def render_push() -> str:
    """How the last publication went, also one that another page began."""
    return render("push", push=publications.last())


@report_errors
def preview_dataset(concepts: list[str], repo: str) -> tuple:
    """What a new repository would hold: files, card and first rows; empty while no concept is chosen.

    Last comes the digest of what is shown: nothing else is published.
    """
    if not concepts:
        return render("public", files={}), gr.Column(visible=False), "", [], "", ""
    specs = _find_specs(concepts)
    return _show_dataset(hub.prepare_dataset(specs, repo.strip() or dataset.PLACE), specs)


def _show_dataset(made: Publication, specs: list[ConceptSpec]) -> tuple:
    header, text = _split_card(made.card)
    files = {name: format_size(count) for name, count in made.sizes.items()}
    rows = [[str(row[column]) for column in _COLUMNS] for row in dataset.rows(specs, "train")[:_FIRST_ROWS]]
    splittable = len(_list_splittable(specs))
    public = render("public", files=files, differences=dataset.find_problems(specs), splittable=splittable)
    return public, gr.Column(visible=True), text, rows, header, made.digest


def _list_splittable(specs: list[ConceptSpec]) -> list[ConceptSpec]:
    """Those of which nothing is held out, or all is, though their lists are long enough and no run has used them."""
    return [
        spec
        for spec in specs
        if dataset.find_unsplit([spec]) and dataset.can_split(spec) and not curate.explain_lock(spec.slug)
    ]


@report_errors
def preview_weights(
    run_id: str | None, formats: list[str], fp16: bool, repo: str, dataset_repo: str
) -> tuple[str, str, str]:
    """Text and header of the card, and the digest of what is shown; empty while no run or format is chosen."""
    if not run_id or not formats:
        return "", "", ""
    made = _prepare_weights(run_id, formats, fp16, repo.strip() or "your-name/repository", dataset_repo)
    header, text = _split_card(made.card)
    return text, header, made.digest


def _prepare_weights(run_id: str, formats: list[str], fp16: bool, repo: str, dataset_repo: str) -> Publication:
    run = runs.find(run_id)
    check(formats, run.job.config.result.kind)
    chosen = tuple(key for key in FORMATS if key in formats)
    return hub.prepare_weights(run, repo, chosen, dataset_repo.strip(), fp16)


def _find_specs(slugs: list[str]) -> list[ConceptSpec]:
    specs = library()
    if not slugs:
        raise CrceError("Choose at least one concept to publish.")
    return [specs[slug] for slug in slugs if slug in specs]


def _split_card(card: str) -> tuple[str, str]:
    """Header and text of a card. Its pictures would be fetched from other machines, so only their names are shown."""
    match = _HEADER.match(card)
    header, text = (match[1], card[match.end() :]) if match else ("", card)
    return header, re.sub(r"!\[([^\]]*)\]\([^)]*\)", r"*(picture: \1)*", text)


# What the user does


@report_errors
def refresh_choices(concepts: list[str], run_id: str | None, opened: str) -> tuple:
    """What can be chosen now. By default, the reviewed concepts are selected, else the one open in Curate."""
    choices = compare.list_choices()
    selected = [slug for slug in concepts if slug in library()] or list_reviewed() or [opened or FIRST]
    kept = run_id if any(run_id == name for _, name in choices) else None
    run = kept or (choices[0][1] if choices else None)
    concept = gr.Dropdown(list_concepts(), value=selected)
    return render_login(), render_choose(), concept, gr.Dropdown(choices, value=run)


@report_errors
def choose_concepts(event: gr.EventData) -> list[str]:
    return list_reviewed() if event._data["do"] == "reviewed" else list_all()


@report_errors
def draw_splits(concepts: list[str], repo: str, opened: OpenConcept, search: str) -> tuple:
    """Holds terms out in the chosen concepts that lack them. Shows what would be published now, and in Curate the
    concept that is open there."""
    stale = opened.stale
    for spec in _list_splittable(_find_specs(concepts)):
        curate.redraw_split(drafts.open_concept(spec.slug), spec.provenance.split_seed)
    now = opened if stale else drafts.open_concept(opened.slug)
    return *preview_dataset(concepts, repo), *curate.render_all(now, search)


@report_errors
def show_difference(concepts: list[str], repo: str, login: gr.OAuthToken | None = None) -> tuple:
    """What would change in the repository; then the whole of what would be public there, as `preview_dataset`."""
    token = people.find_token("use the Hub", login)
    specs, place = _find_specs(concepts), _require_repo(repo)
    made, difference = hub.Hub.connect(token).prepare_dataset(specs, place)
    return render("difference", difference=difference), *_show_dataset(made, specs)


@report_errors
def publish_dataset(
    login: gr.OAuthToken | None = None,
    *,
    concepts: list[str],
    seen: str,
    repo: str,
    private: bool,
    pull_request: bool,
    tag: str,
) -> str:
    token = people.find_token("use the Hub", login)
    specs, place = _find_specs(concepts), _require_repo(repo)
    what, api = f"{len(specs)} concept{'s' if len(specs) > 1 else ''}", hub.Hub.connect(token)
    done = publications.record(
        what, place, lambda: api.publish_dataset(specs, place, private, pull_request, tag.strip(), seen=seen)
    )
    return render("published", done=done, what=what, private=private, pull_request=pull_request)


@report_errors
def export_weights(run_id: str | None, formats: list[str], fp16: bool) -> tuple[dict, str]:
    """The files to download, a folder as a zip, and how each is loaded."""
    if not run_id:
        raise CrceError("Choose the run to export.")
    run = runs.find(run_id)
    # Below the folder that Gradio serves and clears after a day: elsewhere it would copy the files.
    folder = Path(get_upload_folder()) / f"export-{uuid.uuid4().hex}"
    done = export(run, formats, folder, fp16)
    paths = [str(_zip(each.path) if each.path.is_dir() else each.path) for each in done]
    told = render("exported", exported=[_describe_export(each, run.job.base) for each in done])
    return gr.update(value=paths, visible=True), told


def _zip(folder: Path) -> Path:
    """The folder as an archive in its place."""
    made = shutil.make_archive(str(folder), "zip", folder.parent, folder.name)
    shutil.rmtree(folder)
    return Path(made)


def _describe_export(done: Exported, base: str) -> dict:
    code = snippet(done.format, repr(done.path.name), base_expression(base, public=True))
    return {"title": FORMATS[done.format].title, "file": done.path.name, "size": format_size(done.size),
            "limits": done.limits, "how": done.how, "snippet": code}  # fmt: skip


@report_errors
def publish_weights(
    login: gr.OAuthToken | None = None,
    *,
    run_id: str | None,
    formats: list[str],
    fp16: bool,
    dataset: str,
    seen: str,
    repo: str,
    private: bool,
    pull_request: bool,
    tag: str,
) -> str:
    token = people.find_token("use the Hub", login)
    if not run_id:
        raise CrceError("Choose the run whose weights to publish.")
    made = _prepare_weights(run_id, formats, fp16, _require_repo(repo), dataset)
    what, api = f"the weights of {runs.find(run_id).title}", hub.Hub.connect(token)
    done = publications.record(what, made.repo, lambda: api.publish(made, private, pull_request, tag.strip(), seen))
    return render("published", done=done, what=what, private=private, pull_request=pull_request)


def _require_repo(repo: str) -> str:
    """With the account: the card, which is shown before anything is sent, names the repository."""
    if not repo.strip():
        raise CrceError("Enter the repository: your-name/repository.")
    return hub.full_name(repo)


# The tab


def build() -> PublishTab:
    login = html_panel()
    # Only on a Space that offers it: elsewhere the button would ask for a token when the app starts.
    if on_space() and os.environ.get(OAUTH):
        gr.LoginButton(size="sm")
    push = html_panel(elem_classes="maybe")
    with gr.Tabs():
        with gr.Tab("Dataset"), gr.Row(equal_height=False):
            dataset = _build_dataset()
        with gr.Tab("Weights of a run"), gr.Row(equal_height=False):
            weights = _build_weights()
    return PublishTab(login, push, dataset, weights)


def _build_dataset() -> DatasetPanel:
    seen = gr.State("")
    with gr.Column(scale=4, min_width=340):
        concepts = gr.Dropdown([], value=[], multiselect=True, label="Concepts", info="✓: reviewed by a named person")
        choose = html_panel()
        target = _build_target("your-name/CorefConcept")
        difference = gr.Button("Preview changes")
        publish = gr.Button("Publish the dataset", variant="primary")
        result = html_panel()
    with gr.Column(scale=7, min_width=420):
        files = html_panel()
        with gr.Column(visible=False) as preview:
            rows = gr.Dataframe(
                headers=list(_COLUMNS), datatype="str", interactive=False, label="First rows", max_height=300
            )
            card = _build_card()
    return DatasetPanel(seen, concepts, choose, target, difference, publish, result, files, preview, rows, card)


def _build_weights() -> WeightsPanel:
    seen = gr.State("")
    with gr.Column(scale=4, min_width=340):
        run = gr.Dropdown([], label="Run")
        choices = [(form.title, key) for key, form in FORMATS.items()]
        formats = gr.CheckboxGroup(choices, value=list(DEFAULT), label="Formats")
        fp16 = gr.Checkbox(False, label="Half the size (fp16)")
        export_button = gr.Button("Export to download")
        files, exported = gr.File(visible=False, label="Download", file_count="multiple"), html_panel()
        dataset = gr.Textbox(
            value="", label="Dataset of the terms", info="If published", placeholder="your-name/CorefConcept"
        )
        target = _build_target("your-name/emoji-sd-without-dog")
        publish = gr.Button("Publish the weights", variant="primary")
        result = html_panel()
    with gr.Column(scale=7, min_width=420):
        card = _build_card()
    return WeightsPanel(
        seen, run, formats, fp16, export_button, files, exported, dataset, target, publish, result, card
    )


def _build_target(example: str) -> Target:
    repo = gr.Textbox("", label="To", placeholder=example, max_length=200)
    with gr.Row():
        private = gr.Checkbox(True, label="Private", info="Its viewer needs a paid plan", min_width=130)
        pull_request = gr.Checkbox(False, label="As pull request", min_width=130)
    tag = gr.Textbox("", label="Tag", info="Optional, such as v1; not for a pull request", max_length=50)
    return Target(repo, private, pull_request, tag)


def _build_card() -> Card:
    with gr.Accordion("Card", open=True):
        text = gr.Markdown(sanitize_html=True, max_height=420)
        with gr.Accordion("Machine-readable header", open=False):
            header = gr.Code(language="yaml", interactive=False, show_label=False)
    return Card(text, header)


def wire(ui: PublishTab, curate_tab: CurateTab, page: gr.Tab) -> None:
    chosen = [ui.dataset.concepts, ui.weights.run]
    page.select(refresh_choices, [*chosen, curate_tab.slug], [ui.login, ui.dataset.choose, *chosen], **QUIET)
    page.select(render_push, None, ui.push, **QUIET)
    slow = {"show_progress": "minimal", "api_visibility": "private", "concurrency_limit": 1}
    _wire_dataset(ui.dataset, curate_tab, slow)
    _wire_weights(ui.weights, slow)


def _wire_dataset(panel: DatasetPanel, curate_tab: CurateTab, slow: dict) -> None:
    repo = panel.target.repo
    preview = [panel.files, panel.preview, panel.card.text, panel.rows, panel.card.header, panel.seen]
    gr.on([panel.concepts.change, repo.change], preview_dataset, [panel.concepts, repo], preview, **QUIET)
    panel.choose.click(choose_concepts, None, panel.concepts, **QUIET)
    lists = [panel.concepts, repo, curate_tab.opened, curate_tab.shelf.search]
    panel.files.click(draw_splits, lists, [*preview, *curate_tab.parts], **curate.ONE_BY_ONE)
    panel.compare.click(show_difference, [panel.concepts, repo], [panel.result, *preview], **slow)
    form = {"concepts": panel.concepts, "seen": panel.seen, **vars(panel.target)}
    panel.publish.click(publish_dataset, None, panel.result, inputs_kwargs=form, **slow)


def _wire_weights(panel: WeightsPanel, slow: dict) -> None:
    chosen = [panel.run, panel.formats, panel.fp16]
    facts: list[Any] = [*chosen, panel.target.repo, panel.dataset]
    shown = [panel.card.text, panel.card.header, panel.seen]
    gr.on([each.change for each in facts], preview_weights, facts, shown, **QUIET)
    panel.export.click(export_weights, chosen, [panel.files, panel.exported], **slow)
    # What was exported belongs to one run.
    panel.run.change(lambda: (gr.update(value=None, visible=False), ""), None, [panel.files, panel.exported], **QUIET)
    form = {"run_id": panel.run, "formats": panel.formats, "fp16": panel.fp16, "dataset": panel.dataset,
            "seen": panel.seen, **vars(panel.target)}  # fmt: skip
    panel.publish.click(publish_weights, None, panel.result, inputs_kwargs=form, **slow)
