"""The parts of a screen that no Gradio component shows: HTML from templates that escape every value."""

import base64
import io

import gradio as gr
from jinja2 import Environment, FileSystemLoader
from PIL import Image

from crce.files import DATA

ASSETS = DATA / "assets" / "app"
_templates = Environment(
    loader=FileSystemLoader(ASSETS), autoescape=True, trim_blocks=True, lstrip_blocks=True, auto_reload=False
)


def page(name: str, **facts: object) -> str:
    """The template `name`, filled. Escaping is the environment's, so no caller can forget it."""
    return _templates.get_template(f"{name}.html").render(facts)


def board(value: str = "", **options: object) -> gr.HTML:
    """A place for a page. Its buttons and fields report to `.click` and `.input` with their data-* facts."""
    act = (ASSETS / "act.js").read_text(encoding="utf-8")
    return gr.HTML(value, js_on_load=act, apply_default_css=False, **options)


def data_url(data: bytes | str, kind: str) -> str:
    data = data.encode() if isinstance(data, str) else data
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def small(png: bytes, side: int = 128) -> bytes:
    """A picture no larger than shown; still PNG, so that no artefact is taken for the model's."""
    image = Image.open(io.BytesIO(png))
    if max(image.size) <= side:
        return png
    image.thumbnail((side, side))
    return png_bytes(image)


def png_bytes(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
