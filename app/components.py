"""The parts of the page that no Gradio component covers: HTML from templates that escape every value."""

import base64
import io

import gradio as gr
from jinja2 import Environment, FileSystemLoader
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from crce.files import DATA
from crce.redact import redact

ASSETS = DATA / "assets" / "app"
_templates = Environment(
    loader=FileSystemLoader(ASSETS),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
    finalize=lambda value: redact(value) if type(value) is str else value,
)


def render(template: str, **values: object) -> str:
    """The template with its values filled in. The environment escapes them and hides keys: no caller can forget to."""
    return _templates.get_template(f"{template}.html").render(values)


def html_panel(value: str = "", elem_classes: str | None = None) -> gr.HTML:
    """A place for rendered HTML. Its buttons and fields trigger `.click` and `.input` with their data-* attributes."""
    script = (ASSETS / "act.js").read_text(encoding="utf-8")
    return gr.HTML(value, js_on_load=script, apply_default_css=False, elem_classes=elem_classes)


def pulse(part: str) -> gr.HTML:
    """Nothing to see. Its `.tick` comes when the news of this source (`app.news`) change while its place is shown."""
    script = (ASSETS / "pulse.js").read_text(encoding="utf-8")
    mark = render("pulse", part=part)
    return gr.HTML(mark, js_on_load=script, apply_default_css=False, elem_classes="pulse", padding=False)


def data_url(data: bytes | str, media_type: str) -> str:
    data = data.encode() if isinstance(data, str) else data
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def shrink(png: bytes, side: int = 128) -> bytes:
    """The picture at most `side` pixels wide and high. Still PNG: a JPEG artefact might be taken for the model's."""
    image = Image.open(io.BytesIO(png))
    if max(image.size) <= side:
        return png
    image.thumbnail((side, side))
    return encode_png(image)


def encode_png(image: Image.Image, info: PngInfo | None = None) -> bytes:
    """info: texts that are kept in the file."""
    file = io.BytesIO()
    image.save(file, "PNG", pnginfo=info)
    return file.getvalue()
