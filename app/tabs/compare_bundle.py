"""Runs as files to pass on: one zip file for each, out of Compare and into it."""

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from app.components import html_panel, render
from app.errors import report_errors
from app.session import people
from crce import runs
from crce.errors import CrceError
from crce.runs import bundle


@dataclass(frozen=True)
class BundlePanel:
    """opened: the id of the run that came in last."""

    pack: gr.Button
    upload: gr.UploadButton
    files: gr.File
    told: gr.HTML
    opened: gr.State


@report_errors
def pack_runs(ids: list[str]) -> dict:
    """The chosen runs as files to download."""
    if not ids:
        raise CrceError("Choose a run above first.")
    # Below the folder that Gradio serves and clears after a day: elsewhere it would copy the files.
    folder = Path(get_upload_folder()) / f"bundle-{uuid.uuid4().hex}"
    return gr.update(value=[str(bundle.pack(runs.find(name), folder / f"{name}.zip")) for name in ids], visible=True)


@report_errors
def take_in(path: str) -> tuple[str, str]:
    """The id of the run in an uploaded file, and what is to say of it."""
    done = bundle.unpack(Path(path))
    people.claim(done.run)
    # Uploads of others stay for a day, and so count towards what may be uploaded.
    if people.is_operator():
        Path(path).unlink(missing_ok=True)
    made = ", ".join(f"{name} {version}" for name, version in done.versions.items())
    return done.run.id, render("line", text=f"{done.run.title} is here, packed with {made}. {done.warning}")


def build() -> BundlePanel:
    with gr.Accordion("Pass a run on", open=False):
        with gr.Row():
            pack = gr.Button("Pack into one file", size="sm")
            upload = gr.UploadButton("Open such a file", file_types=[".zip"], size="sm")
        files = gr.File(visible=False, label="Download", file_count="multiple")
        told = html_panel()
    return BundlePanel(pack, upload, files, told, gr.State(""))


def wire(ui: BundlePanel, chosen: gr.Dropdown) -> None:
    slow: dict[str, Any] = {"show_progress": "minimal", "api_visibility": "private", "concurrency_limit": 1}
    ui.pack.click(pack_runs, chosen, ui.files, **slow)
    ui.upload.upload(take_in, ui.upload, [ui.opened, ui.told], **slow)
