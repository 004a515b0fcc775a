"""Publish: everything is previewed first, and nothing leaves this machine before the button is pressed."""

import re
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

import gradio as gr
import huggingface_hub
from gradio.utils import get_upload_folder

from app.components import html_panel, render
from app.errors import report_errors
from app.events import QUIET
from app.session.drafts import FIRST
from app.tabs import compare
from app.tabs.curate import CurateTab
from crce import runs
from crce.concepts.library import library, publishable
from crce.concepts.spec import ConceptSpec
from crce.cost import format_size
from crce.errors import CrceError
from crce.publishing import hub
from crce.publishing.cards import weights_card
from crce.publishing.export import DEFAULT, FORMATS, Exported, base_expression, check, export, snippet

_COLUMNS = ("concept", "kind", "term", "certainty", "weight", "rank", "source", "note")
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
    """parent: the commit that the previewed differences are relative to, or ""."""

    parent: gr.State
    concepts: gr.Dropdown
    reviewed: gr.Button
    all: gr.Button
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
    dataset: DatasetPanel
    weights: WeightsPanel


# What the tab shows


def list_concepts() -> list[tuple[str, str]]:
    return [(f"{'✓ ' if spec.provenance.reviewer else ''}{spec.name}", slug) for slug, spec in library().items()]


def render_login() -> str:
    return render("login", token=bool(huggingface_hub.get_token()), advice=hub.NO_TOKEN)


@report_errors
def preview_dataset(concepts: list[str]) -> tuple:
    """The files with their sizes, the card and the first rows; empty while no concept is chosen."""
    if not concepts:
        return render("public", files={}), gr.Column(visible=False), "", [], ""
    preview = hub.preview(_find_specs(concepts))
    header, text = _split_card(preview.card)
    files = {name: format_size(count) for name, count in preview.files.items()}
    rows = [[str(row[column]) for column in _COLUMNS] for row in preview.rows]
    public = render("public", files=files, differences=preview.problems)
    return public, gr.Column(visible=True), text, rows, header


@report_errors
def preview_weights(run_id: str | None, formats: list[str], fp16: bool, repo: str) -> tuple[str, str]:
    """Text and header of the card; empty while no run is chosen."""
    if not run_id:
        return "", ""
    run, place = runs.find(run_id), repo.strip() or "your-name/repository"
    if formats:
        check(formats, run.job.config.result.kind)
    header, text = _split_card(weights_card(run.job, run.report, formats, place, fp16=fp16))
    return text, header


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
    return render_login(), gr.Dropdown(list_concepts(), value=selected), gr.Dropdown(choices, value=run)


@report_errors
def list_reviewed() -> list[str]:
    return [slug for slug, spec in library().items() if spec.provenance.reviewer]


@report_errors
def show_difference(concepts: list[str], repo: str) -> tuple[str, str]:
    """What would change in the repository, and the commit it is at: if that changes, nothing is published."""
    specs, place = _find_specs(concepts), _require_repo(repo)
    difference = hub.Hub.connect().difference(specs, place)
    return render("difference", difference=difference), difference.parent


@report_errors
def publish_dataset(
    *, concepts: list[str], parent: str, repo: str, private: bool, pull_request: bool, tag: str
) -> tuple[str, str]:
    specs, place = _find_specs(concepts), _require_repo(repo)
    done = hub.Hub.connect().publish_dataset(specs, place, private, pull_request, tag.strip(), parent)
    what = f"{len(specs)} concept{'s' if len(specs) > 1 else ''}"
    return render("published", done=done, what=what, private=private, pull_request=pull_request), ""


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
    *,
    run_id: str | None,
    formats: list[str],
    fp16: bool,
    dataset: str,
    repo: str,
    private: bool,
    pull_request: bool,
    tag: str,
) -> str:
    if not run_id:
        raise CrceError("Choose the run whose weights to publish.")
    run, place = runs.find(run_id), _require_repo(repo)
    chosen = tuple(key for key in FORMATS if key in formats)
    done = hub.Hub.connect().publish_weights(
        run, place, chosen, private, pull_request, tag.strip(), dataset.strip(), fp16
    )
    what = f"the weights of {run.title}"
    return render("published", done=done, what=what, private=private, pull_request=pull_request)


def _require_repo(repo: str) -> str:
    if not repo.strip():
        raise CrceError("Enter the repository: your-name/repository.")
    return repo


# The tab


def build() -> PublishTab:
    login = html_panel()
    with gr.Tabs():
        with gr.Tab("Dataset"), gr.Row(equal_height=False):
            dataset = _build_dataset()
        with gr.Tab("Weights of a run"), gr.Row(equal_height=False):
            weights = _build_weights()
    return PublishTab(login, dataset, weights)


def _build_dataset() -> DatasetPanel:
    parent = gr.State("")
    with gr.Column(scale=4, min_width=340):
        concepts = gr.Dropdown([], value=[], multiselect=True, label="Concepts", info="✓: reviewed by a named person")
        with gr.Row():
            reviewed, everything = gr.Button("All reviewed", size="sm"), gr.Button("All", size="sm")
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
    return DatasetPanel(
        parent, concepts, reviewed, everything, target, difference, publish, result, files, preview, rows, card
    )


def _build_weights() -> WeightsPanel:
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
    return WeightsPanel(run, formats, fp16, export_button, files, exported, dataset, target, publish, result, card)


def _build_target(example: str) -> Target:
    repo = gr.Textbox("", label="To", placeholder=example, max_length=200)
    with gr.Row():
        private = gr.Checkbox(True, label="Private", min_width=100)
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
    page.select(refresh_choices, [*chosen, curate_tab.slug], [ui.login, *chosen], **QUIET)
    slow = {"show_progress": "minimal", "api_visibility": "private", "concurrency_limit": 1}
    _wire_dataset(ui.dataset, slow)
    _wire_weights(ui.weights, slow)


def _wire_dataset(panel: DatasetPanel, slow: dict) -> None:
    preview = [panel.files, panel.preview, panel.card.text, panel.rows, panel.card.header]
    panel.concepts.change(preview_dataset, panel.concepts, preview, **QUIET)
    panel.reviewed.click(list_reviewed, None, panel.concepts, **QUIET)
    panel.all.click(report_errors(lambda: list(publishable())), None, panel.concepts, **QUIET)
    result, repo = [panel.result, panel.parent], panel.target.repo
    panel.compare.click(show_difference, [panel.concepts, repo], result, **slow)
    form = {"concepts": panel.concepts, "parent": panel.parent, **vars(panel.target)}
    panel.publish.click(publish_dataset, None, result, inputs_kwargs=form, **slow)
    # The differences hold for one repository and one choice of concepts.
    gr.on([repo.change, panel.concepts.change], lambda: "", None, panel.parent, **QUIET)


def _wire_weights(panel: WeightsPanel, slow: dict) -> None:
    chosen = [panel.run, panel.formats, panel.fp16]
    changes = [panel.run.change, panel.formats.change, panel.fp16.change, panel.target.repo.change]
    gr.on(changes, preview_weights, [*chosen, panel.target.repo], [panel.card.text, panel.card.header], **QUIET)
    panel.export.click(export_weights, chosen, [panel.files, panel.exported], **slow)
    # What was exported belongs to one run.
    panel.run.change(lambda: (gr.update(value=None, visible=False), ""), None, [panel.files, panel.exported], **QUIET)
    form = {"run_id": panel.run, "formats": panel.formats, "fp16": panel.fp16, "dataset": panel.dataset,
            **vars(panel.target)}  # fmt: skip
    panel.publish.click(publish_weights, None, panel.result, inputs_kwargs=form, **slow)
