"""A base from the Hub, in the Erase tab: its size is told, consent asked, and the download shown and cancelled."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from app.components import render
from app.errors import report_errors
from crce import devices, downloads, files, processes
from crce.cost import format_size
from crce.downloads import Download
from crce.errors import CrceError


@dataclass(frozen=True)
class Running:
    """A download in a process of its own, which goes on when the page is closed. log: what it says."""

    download: Download
    process: subprocess.Popen
    log: Path

    @property
    def error(self) -> str:
        """Why it ended without the base; empty while it runs and where all went well."""
        if not self.process.poll():
            return ""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1].removeprefix("error: ") if lines else "The download ended."


# By base and precision. All pages share them.
_running: dict[tuple[str, str], Running] = {}


def is_here(base: str, device: str, dtype: str) -> bool:
    """Whether nothing has to be downloaded for these choices of the form. Raises CrceError for a base that is none."""
    return downloads.is_here(base, devices.resolve_dtype(dtype, device))


@report_errors
def show(base: str, device: str, dtype: str) -> str:
    """The panel for what is chosen: empty if the base is here."""
    base, name = base.strip(), devices.resolve_dtype(dtype, device)
    try:
        if base and (running := _running.get((base, name))):
            return _show_running(running)
        if not base or downloads.is_here(base, name):
            return ""
        return render("download", base=base, text=downloads.plan(base, name).describe(), do="download")
    except CrceError as error:
        return render("download", base=base, text=str(error), do="show")


def _show_running(running: Running) -> str:
    """Forgets one that has ended, so that it can be tried again."""
    found = running.download
    if running.process.poll() is None:
        done, total = downloads.measure(found), sum(size for _, size in found.files)
        text = f"Downloading {found.base}: {format_size(done)} of {format_size(total)}"
        return render("download", base=found.base, text=text, percent=round(100 * done / max(total, 1)), do="cancel")
    del _running[found.base, found.dtype]
    if running.error:
        return render("download", base=found.base, text=running.error, do="show")
    return ""


@report_errors
def follow(base: str, device: str, dtype: str) -> tuple:
    """The panel of a download in progress, and the base once it is here."""
    key = base.strip(), devices.resolve_dtype(dtype, device)
    if key not in _running:
        return gr.skip(), gr.skip()
    panel = show(base, device, dtype)
    return panel, gr.skip() if panel else base


@report_errors
def press(base: str, device: str, dtype: str, event: gr.EventData) -> str:
    """Download, Cancel and Try again."""
    key = base.strip(), devices.resolve_dtype(dtype, device)
    match event._data["do"]:
        case "download" if key not in _running:
            log = files.home() / "downloads" / f"{key[0].replace('/', '--')}.log"
            log.unlink(missing_ok=True)
            # Asked again here: the page may have been open for long.
            found = downloads.plan(*key)
            _running[key] = Running(found, processes.start(["download", key[0], "--dtype", key[1]], log), log)
        case "cancel" if key in _running:
            running = _running.pop(key)
            running.process.kill()
            running.process.wait()
    return show(base, device, dtype)
