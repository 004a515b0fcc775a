"""A base or a judge from the Hub, in the Erase tab: its size is told, consent asked, the download shown and ended."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from app import news
from app.components import render
from app.errors import report_errors
from crce import devices, downloads, files, processes
from crce.cost import format_size
from crce.downloads import Download
from crce.errors import CrceError
from crce.judges.choices import AUTO, choose_judge, find_missing, find_weights
from crce.runs import Run


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


Key = tuple[str, str]  # a base and its precision, or a judge's model and JUDGE
JUDGE = "judge"
# All pages share them.
_running: dict[Key, Running] = {}


def is_here(base: str, device: str, dtype: str) -> bool:
    """Whether nothing has to be downloaded for these choices of the form. Raises CrceError for a base that is none."""
    return downloads.is_here(base, devices.resolve_dtype(dtype, device))


def require(base: str, device: str, dtype: str, judge: str) -> None:
    """Raises CrceError if something has to be downloaded for these choices of the form."""
    missing = base if not is_here(base, device, dtype) else find_missing(judge)
    if missing:
        raise CrceError(f"{missing} is not on this machine yet. Press Download above first.")


def _find_wanted(base: str, device: str, dtype: str, judge: str) -> Key | None:
    """What these choices need next of what is not here or was being downloaded: the base, then the judge. Raises
    CrceError for a base or a judge that is none."""
    key = base.strip(), devices.resolve_dtype(dtype, device)
    if not key[0] or key in _running or not downloads.is_here(*key):
        return key if key[0] else None
    model = find_weights(choose_judge(key[0], judge.strip())) if judge.strip() not in ("", AUTO) else ""
    return (model, JUDGE) if model and ((model, JUDGE) in _running or not downloads.has_judge(model)) else None


def _plan(key: Key) -> Download:
    return downloads.plan_judge(key[0]) if key[1] == JUDGE else downloads.plan(*key)


@report_errors
def show(base: str, device: str, dtype: str, judge: str) -> str:
    """The panel for what is chosen: empty if it is here."""
    try:
        key = _find_wanted(base, device, dtype, judge)
        if key is None:
            return ""
        if running := _running.get(key):
            return _show_running(key, running)
        return render("download", base=key[0], text=_plan(key).describe(), do="download")
    except CrceError as error:
        return render("download", base=base, text=str(error), do="show")


def _show_running(key: Key, running: Running) -> str:
    """Forgets one that has ended, so that it can be tried again."""
    found = running.download
    if running.process.poll() is None:
        done, total = downloads.measure(found), sum(size for _, size in found.files)
        text = f"Downloading {found.base}: {format_size(done)} of {format_size(total)}"
        return render("download", base=found.base, text=text, percent=round(100 * done / max(total, 1)), do="cancel")
    del _running[key]
    if running.error:
        return render("download", base=found.base, text=running.error, do="show")
    return ""


@report_errors
def follow(base: str, device: str, dtype: str, judge: str) -> tuple:
    """The panel of a download in progress, and the base once it is here."""
    try:
        key = _find_wanted(base, device, dtype, judge) if _running else None
    except CrceError:  # told by `show`
        key = None
    if key not in _running:
        return gr.skip(), gr.skip()
    panel = show(base, device, dtype, judge)
    return panel, gr.skip() if panel else base


def find_news(_: list[Run]) -> object:
    return bool(_running) and news.beat()


@report_errors
def press(base: str, device: str, dtype: str, judge: str, event: gr.EventData) -> str:
    """Download, Cancel and Try again."""
    do = event._data["do"]
    key = None if do == "show" else _find_wanted(base, device, dtype, judge)
    match do:
        case "download" if key and key not in _running:
            log = files.home() / "downloads" / f"{key[0].replace('/', '--')}.log"
            log.unlink(missing_ok=True)
            # Asked again here: the page may have been open for long.
            found, what = _plan(key), ["--judge"] if key[1] == JUDGE else ["--dtype", key[1]]
            _running[key] = Running(found, processes.start(["download", key[0], *what], log), log)
        case "cancel" if key in _running:
            running = _running.pop(key)
            running.process.kill()
            running.process.wait()
    return show(base, device, dtype, judge)
