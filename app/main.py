"""Builds the page and serves it. The worker does the computing, so this process starts in seconds."""

import argparse
import logging
import os
import threading
from importlib.util import find_spec

# Read when gradio is imported: no usage data leaves the machine.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
from gradio.utils import get_upload_folder
from starlette.middleware import Middleware

from app import api, guard, news
from app.components import ASSETS, html_panel, pulse
from app.events import PLAIN_PULSE, QUIET
from app.session import people, thumbnails
from app.tabs import base_download, compare, curate, erase, publish, start, status_bar
from app.theme import CSS, ICON, build_theme
from crce import files, runs
from crce.environment import LOOPBACK, bypass_proxy, on_space, on_zero_gpu
from crce.errors import CrceError
from crce.redact import AUTH, SHORTEST, hide
from crce.worker.client import ensure_workers

SOURCES = {
    "status": status_bar.find_news,
    "start": start.find_news,
    "pictures": thumbnails.find_news,
    "erase": erase.find_news,
    "downloads": base_download.find_news,
    "compare": compare.find_news,
}
_MAX_UPLOAD = "100mb"  # a bundle of Stable Diffusion v1.4 has 80


def build() -> gr.Blocks:
    """The whole page. Tabs are built first and wired afterwards, because they refer to each other."""
    with gr.Blocks(title="CRCE Studio", fill_width=True, delete_cache=(3600, 86400)) as demo:
        remembered = gr.BrowserState("", storage_key="crce-studio-concept", secret="not-a-secret")
        status, status_pulse = html_panel(status_bar.render_initial()), pulse("status")
        page_script = (ASSETS / "page.js").read_text(encoding="utf-8")
        pictures = thumbnails.build_styles(thumbnails.list_first())
        styles = gr.HTML(pictures, js_on_load=page_script, apply_default_css=False, elem_classes="sheet")
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
        curate.wire_pictures(curate_tab, styles)
        erase.wire(erase_tab, curate_tab, demo, tabs, erase_page)
        compare.wire(compare_tab, start_tab, erase_tab, tabs, compare_page)
        demo.load(compare.read_link, None, start_tab.finished, **QUIET)
        publish.wire(publish_tab, curate_tab, publish_page)
        status_pulse.tick(status_bar.render_status, None, status, **PLAIN_PULSE)
        api.build()
    return demo


def launch(
    host: str, port: int, block: bool = True, auth: str = "", insecure: bool = False, mcp: bool = False
) -> gr.Blocks:
    """auth: accounts as "name:password", with commas between them; the first is the operator's. mcp: offer the
    endpoints of `api` to assistants too.

    Raises CrceError for a host that others reach, unless there are accounts or it is insecure on purpose; and for MCP
    without its package.
    """
    if mcp:
        _require_mcp()
    if on_zero_gpu():
        import crce.zerogpu  # noqa: F401  before anything looks for a GPU
    accounts, alone = _read_accounts(auth), guard.is_loopback(host)
    if not (alone or accounts or insecure or on_space()):
        raise CrceError(
            f"{host} can be reached from other machines, and anyone there could use this one. Give accounts "
            "(--auth name:password, or CRCE_AUTH), or say that you want it open to all (--insecure)."
        )
    shared = bool(accounts) or not alone
    people.share(people.Sharing([name for name, _ in accounts]) if shared else None)
    bypass_proxy(host)
    # Our own folder: what other programs leave in the one that all of Gradio share must not fill our quota.
    os.environ.setdefault("GRADIO_TEMP_DIR", str(files.home().resolve() / "uploads"))
    hosts = {*LOOPBACK, host} if alone else None
    shield = Middleware(
        guard.Guard, hosts=hosts, token=shared and not accounts, uploads=get_upload_folder, framed=on_space()
    )
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
        auth=accounts or None,
        mcp_server=mcp,
        app_kwargs={"middleware": [shield], "routes": [news.build_route(SOURCES)]},
        prevent_thread_lock=not block,
    )
    return demo


def _require_mcp() -> None:
    if find_spec("mcp") is None:
        raise CrceError("MCP needs a package that is not here: pip install 'mcp<2'. Then start again.")


def _read_accounts(auth: str) -> list[tuple[str, str]]:
    """Raises CrceError for one without a name, or with a password that is too short to protect anything."""
    accounts = []
    for pair in filter(None, auth.split(",")):
        name, _, password = pair.strip().partition(":")
        if not name or len(password) < SHORTEST:
            raise CrceError(
                f"The account {name!r} has no password of at least {SHORTEST} characters. Write name:password, "
                "with commas between several accounts."
            )
        accounts.append((name, hide(password)))
    return accounts


def _warm_up() -> None:
    """Removes what kills left, and continues runs that were queued when the machine went down. Without any, the first
    picture starts the worker."""
    import crce.proposers.proposers  # noqa: F401  the status line needs it, and its first import takes a second

    runs.tidy()
    if any(run.state == "queued" for run in runs.all_runs()):
        ensure_workers()


def main() -> None:
    parser = argparse.ArgumentParser(description="CRCE Studio in the browser.")
    parser.add_argument(
        "--host", default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), help="address to listen on"
    )
    parser.add_argument("--auth", default=os.environ.get(AUTH, ""), help=f"accounts, name:password,… (or {AUTH})")
    parser.add_argument("--insecure", action="store_true", help="open to anyone who reaches the host")
    parser.add_argument("--mcp", action="store_true", help="let assistants propose, erase and compare, over MCP")
    parser.add_argument("--port", type=int, default=int(os.environ.get("GRADIO_SERVER_PORT", 7860)), help="port")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    launch(options.host, options.port, auth=options.auth, insecure=options.insecure, mcp=options.mcp)
