"""Builds the page and serves it. The worker does the computing, so this process starts in seconds."""

import argparse
import logging
import os
import threading

# Read when gradio is imported: no usage data leaves the machine.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr

from app.components import html_panel
from app.events import QUIET
from app.tabs import compare, curate, erase, publish, start, status_bar
from app.theme import CSS, ICON, build_theme
from crce import runs
from crce.worker.client import ensure_workers

_MAX_UPLOAD = "5mb"


def build() -> gr.Blocks:
    """The whole page. Tabs are built first and wired afterwards, because they refer to each other."""
    with gr.Blocks(title="CRCE Studio", fill_width=True, delete_cache=(3600, 86400)) as demo:
        remembered = gr.BrowserState("", storage_key="crce-studio-concept", secret="not-a-secret")
        status, tick = html_panel(status_bar.render_initial()), gr.Timer(2)
        styles, redraw = gr.HTML("", apply_default_css=False, elem_classes="sheet"), gr.Timer(1.5)
        with gr.Tabs(selected="start") as tabs:
            with gr.Tab("Start", id="start"):
                start_tab = start.build()
            with gr.Tab("Curate", id="curate"):
                curate_tab = curate.build()
            with gr.Tab("Erase", id="erase") as erase_page:
                erase_tab = erase.build()
            with gr.Tab("Compare", id="compare") as compare_page:
                compare_tab = compare.build()
            with gr.Tab("Publish", id="publish") as publish_page:
                publish_tab = publish.build()
        start.wire(start_tab, curate_tab, demo, tabs)
        curate.wire(curate_tab, erase_tab.form["base"], demo, remembered)
        curate.wire_pictures(curate_tab, styles, redraw)
        erase.wire(erase_tab, curate_tab, demo, tabs, erase_page)
        compare.wire(compare_tab, start_tab, erase_tab, tabs, compare_page)
        publish.wire(publish_tab, curate_tab, publish_page)
        gr.on([demo.load, tick.tick], status_bar.render_status, None, status, **QUIET)
    return demo


def launch(host: str, port: int, block: bool = True) -> gr.Blocks:
    threading.Thread(target=_warm_up, daemon=True).start()
    demo = build().queue(max_size=64, default_concurrency_limit=8)
    demo.launch(
        server_name=host,
        server_port=port,
        theme=build_theme(),
        css_paths=CSS,
        favicon_path=ICON,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        share=False,
        show_error=False,
        max_file_size=_MAX_UPLOAD,
        prevent_thread_lock=not block,
    )
    return demo


def _warm_up() -> None:
    """Continues runs that were queued when the machine went down. Without any, the first picture starts the worker."""
    import crce.proposers.proposers  # noqa: F401  the status line needs it, and its first import takes a second

    if any(run.state == "queued" for run in runs.all_runs()):
        ensure_workers()


def main() -> None:
    parser = argparse.ArgumentParser(description="CRCE Studio in the browser.")
    parser.add_argument(
        "--host", default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), help="address to listen on"
    )
    parser.add_argument("--port", type=int, default=int(os.environ.get("GRADIO_SERVER_PORT", 7860)), help="port")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    launch(options.host, options.port)
