"""Publish: what will be public is seen first, and nothing leaves this machine before the button is pressed."""

import re
from types import SimpleNamespace

import gradio as gr
import huggingface_hub

from app.components import html_panel, render
from app.errors import report_errors
from app.session.drafts import FIRST
from app.tabs import compare
from crce import runs
from crce.concepts.library import library, publishable
from crce.concepts.spec import ConceptSpec
from crce.cost import format_size
from crce.errors import CrceError
from crce.publishing import hub
from crce.publishing.cards import weights_card
from crce.publishing.export import FORMATS, check

_COLUMNS = ("concept", "kind", "term", "certainty", "weight", "rank", "source", "note")
_FORMATS = {"diffusers": "diffusers", "kohya": "A1111, Forge, ComfyUI", "lora": "LoRA (approximate)"}
_HEADER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)


# What the screen shows


def concepts() -> list[tuple[str, str]]:
    return [(f"{'✓ ' if spec.provenance.reviewer else ''}{spec.name}", slug) for slug, spec in library().items()]


def login() -> str:
    return render("login", token=bool(huggingface_hub.get_token()), advice=hub.NO_TOKEN)


def of_dataset(slugs: list[str]) -> tuple:
    """The files with their sizes, the first rows and the card; nothing of it while no concept is chosen."""
    if not slugs:
        return render("public", files={}), gr.Column(visible=False), "", [], ""
    seen = hub.preview(_chosen(slugs))
    header, body = _parts(seen.card)
    files = {name: format_size(count) for name, count in seen.files.items()}
    rows = [[str(row[column]) for column in _COLUMNS] for row in seen.rows]
    public = render("public", files=files, problems=seen.problems)
    return public, gr.Column(visible=True), body, rows, header


def of_weights(name: str | None, formats: list[str], repo: str) -> tuple[str, str]:
    if not name:
        return "", ""
    run = runs.find(name)
    if formats:
        check(formats, run.job.config.method)
    files = [FORMATS[key][0] for key in FORMATS if key in formats]
    header, body = _parts(weights_card(run.job, run.report, files, repo.strip() or "your-name/repository"))
    return body, header


def _chosen(slugs: list[str]) -> list[ConceptSpec]:
    specs = library()
    if not slugs:
        raise CrceError("Choose at least one concept to publish.")
    return [specs[slug] for slug in slugs if slug in specs]


def _parts(card: str) -> tuple[str, str]:
    """Header and text of a card. Pictures in it would be fetched from elsewhere, so they are named instead."""
    found = _HEADER.match(card)
    header, body = (found[1], card[found.end() :]) if found else ("", card)
    return header, re.sub(r"!\[([^\]]*)\]\([^)]*\)", r"*(picture: \1)*", body)


# What a person does


@report_errors
def enter(slugs: list[str], weights: str | None, opened: str) -> tuple:
    """The choices of today. At first, what was reviewed is chosen, or else the concept that is open in Curate."""
    found = compare.choices()
    known = [slug for slug in slugs if slug in library()] or reviewed() or [opened or FIRST]
    kept = weights if any(weights == name for _, name in found) else None
    picked = kept or (found[0][1] if found else None)
    return login(), gr.Dropdown(concepts(), value=known), gr.Dropdown(found, value=picked)


@report_errors
def reviewed() -> list[str]:
    return [slug for slug, spec in library().items() if spec.provenance.reviewer]


@report_errors
def difference(slugs: list[str], repo: str) -> tuple[str, str]:
    """What would change there. The commit that was seen is the only one that will be written upon."""
    specs, place = _chosen(slugs), _named(repo)
    found = hub.Hub.connect().difference(specs, place)
    return render("difference", found=found), found.parent


@report_errors
def publish_dataset(slugs: list[str], repo: str, private: bool, pull: bool, tag: str, parent: str) -> tuple[str, str]:
    specs, place = _chosen(slugs), _named(repo)
    done = hub.Hub.connect().publish_dataset(specs, place, private, pull, tag.strip(), parent)
    what = f"{len(specs)} concept{'s' if len(specs) > 1 else ''}"
    return render("published", done=done, what=what, private=private, pull=pull), ""


@report_errors
def publish_weights(
    name: str | None, formats: list[str], repo: str, private: bool, pull: bool, tag: str, dataset: str
) -> str:
    if not name:
        raise CrceError("Choose the run whose weights are to be published.")
    run, place = runs.find(name), _named(repo)
    chosen = tuple(key for key in FORMATS if key in formats)
    done = hub.Hub.connect().publish_weights(run, place, chosen, private, pull, tag.strip(), dataset.strip())
    return render("published", done=done, what=f"the weights of {run.title}", private=private, pull=pull)


def _named(repo: str) -> str:
    if not repo.strip():
        raise CrceError("Say where to: your-name/repository.")
    return repo


# The tab


def build() -> SimpleNamespace:
    ui = SimpleNamespace(login=html_panel(), data=SimpleNamespace(parent=gr.State("")), weights=SimpleNamespace())
    with gr.Tabs():
        with gr.Tab("Dataset"), gr.Row(equal_height=False):
            _dataset(ui.data)
        with gr.Tab("Weights of a run"), gr.Row(equal_height=False):
            _weights(ui.weights)
    return ui


def _dataset(ui: SimpleNamespace) -> None:
    with gr.Column(scale=4, min_width=340):
        ui.concepts = gr.Dropdown([], value=[], multiselect=True, label="Concepts", info="✓ reviewed by a named person")
        with gr.Row():
            ui.reviewed = gr.Button("All reviewed", size="sm")
            ui.all = gr.Button("All", size="sm")
        _target(ui, "your-name/CorefConcept")
        ui.look = gr.Button("What would change there?")
        ui.publish = gr.Button("Publish the dataset", variant="primary")
        ui.result = html_panel()
    with gr.Column(scale=7, min_width=420):
        ui.public = html_panel()
        with gr.Column(visible=False) as ui.preview:
            ui.rows = gr.Dataframe(
                headers=list(_COLUMNS), datatype="str", interactive=False, label="First rows", max_height=300
            )
            _card(ui)


def _weights(ui: SimpleNamespace) -> None:
    with gr.Column(scale=4, min_width=340):
        ui.run = gr.Dropdown([], label="Run")
        choices = [(_FORMATS.get(key, key), key) for key in FORMATS]
        ui.formats = gr.CheckboxGroup(choices, value=["diffusers", "kohya"], label="Formats")
        ui.dataset = gr.Textbox(
            value="", label="Dataset of its terms", info="If it is published", placeholder="your-name/CorefConcept"
        )
        _target(ui, "your-name/emoji-sd-without-dog")
        ui.publish = gr.Button("Publish the weights", variant="primary")
        ui.result = html_panel()
    with gr.Column(scale=7, min_width=420):
        _card(ui)


def _target(ui: SimpleNamespace, example: str) -> None:
    ui.repo = gr.Textbox("", label="To", placeholder=example, max_length=200)
    with gr.Row():
        ui.private = gr.Checkbox(True, label="Private", min_width=100)
        ui.pull = gr.Checkbox(False, label="As pull request", min_width=130)
    ui.tag = gr.Textbox("", label="Tag", info="Optional, such as v1; a pull request gets none", max_length=50)


def _card(ui: SimpleNamespace) -> None:
    with gr.Accordion("The card", open=True):
        ui.card = gr.Markdown(sanitize_html=True, max_height=420)
        with gr.Accordion("Its header, for machines", open=False):
            ui.header = gr.Code(language="yaml", interactive=False, show_label=False)


def wire(ui: SimpleNamespace, app: SimpleNamespace) -> None:
    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    slow = {"show_progress": "minimal", "api_visibility": "private", "concurrency_limit": 1}
    data, weights = ui.data, ui.weights
    app.tab["publish"].select(
        enter, [data.concepts, weights.run, app.curate.slug], [ui.login, data.concepts, weights.run], **quiet
    )
    data.concepts.change(
        report_errors(of_dataset),
        data.concepts,
        [data.public, data.preview, data.card, data.rows, data.header],
        **quiet,
    )
    data.reviewed.click(reviewed, None, data.concepts, **quiet)
    data.all.click(report_errors(lambda: list(publishable())), None, data.concepts, **quiet)
    data.look.click(difference, [data.concepts, data.repo], [data.result, data.parent], **slow)
    form = [data.concepts, data.repo, data.private, data.pull, data.tag, data.parent]
    data.publish.click(publish_dataset, form, [data.result, data.parent], **slow)
    # What was seen of one repository says nothing of another.
    gr.on([data.repo.change, data.concepts.change], lambda: "", None, data.parent, **quiet)
    facts = [weights.run, weights.formats, weights.repo]
    gr.on([part.change for part in facts], report_errors(of_weights), facts, [weights.card, weights.header], **quiet)
    form = [*facts, weights.private, weights.pull, weights.tag, weights.dataset]
    weights.publish.click(publish_weights, form, weights.result, **slow)
