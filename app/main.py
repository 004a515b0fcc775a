"""Builds the page and serves it. The work is the worker's, so this process starts in seconds."""

import argparse
import logging
import os
import threading
from types import SimpleNamespace

# Read when gradio is imported: no news of its use leaves the machine.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr

from app import compare, curate, erase, publish, start, status
from app.pages import board
from app.theme import CSS, ICON, theme
from crce import jobs, runs

TABS = {"start": start, "curate": curate, "erase": erase, "compare": compare, "publish": publish}
_BIGGEST_UPLOAD = "5mb"


def build() -> gr.Blocks:
    """The whole page. Tabs are built first and wired afterwards, since they speak with each other."""
    with gr.Blocks(title="CRCE Studio", fill_width=True, delete_cache=(3600, 86400)) as demo:
        app = SimpleNamespace(demo=demo, tab={})
        app.remembered = gr.BrowserState("", storage_key="crce-studio-concept", secret="not-a-secret")
        line, tick = board(status.at_first()), gr.Timer(2)
        app.pictures, app.redraw = gr.HTML("", apply_default_css=False, elem_classes="sheet"), gr.Timer(1.5)
        with gr.Tabs(selected="start") as app.tabs:
            for name, module in TABS.items():
                with gr.Tab(name.capitalize(), id=name) as app.tab[name]:
                    setattr(app, name, module.build())
        for name, module in TABS.items():
            module.wire(getattr(app, name), app)
        gr.on([demo.load, tick.tick], status.line, None, line, show_progress="hidden", api_visibility="private")
    return demo


def launch(host: str, port: int, block: bool = True) -> gr.Blocks:
    threading.Thread(target=_go_on, daemon=True).start()
    demo = build().queue(max_size=64, default_concurrency_limit=8)
    demo.launch(
        server_name=host,
        server_port=port,
        theme=theme(),
        css_paths=CSS,
        favicon_path=ICON,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        share=False,
        show_error=False,
        max_file_size=_BIGGEST_UPLOAD,
        prevent_thread_lock=not block,
    )
    return demo


def _go_on() -> None:
    """Runs that were waiting when the machine went down go on. Otherwise the first picture wakes the worker."""
    import crce.propose  # noqa: F401  the status line asks it, and its first import takes a second

    if any(run.state == "queued" for run in runs.all_runs()):
        jobs.ensure_worker()


def main() -> None:
    parser = argparse.ArgumentParser(description="CRCE Studio in the browser.")
    parser.add_argument(
        "--host", default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), help="address to listen on"
    )
    parser.add_argument("--port", type=int, default=int(os.environ.get("GRADIO_SERVER_PORT", 7860)), help="port")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    launch(asked.host, asked.port)
