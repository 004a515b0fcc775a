"""What a page has open, so that an answer which comes late is not shown under another concept."""

from collections import OrderedDict
from dataclasses import dataclass

from gradio.context import LocalContext

from app.session.drafts import OpenConcept
from crce.concepts.spec import ConceptSpec
from crce.errors import CrceError

_REMEMBERED = 10_000  # pages
_open: OrderedDict[str, "Question"] = OrderedDict()


@dataclass(frozen=True)
class Question:
    """What something is asked about. tab: the open page; concept: its slug; digest: of its lists, empty if they do not
    matter."""

    tab: str
    concept: str
    digest: str = ""


def ask_about(tab: str | None, opened: OpenConcept) -> Question:
    """A question about the lists of the concept on a page."""
    return Question(str(tab), opened.slug, opened.mine.digest if opened.mine else "")


def current_tab() -> str:
    """The page whose event is handled; empty outside of one."""
    request = LocalContext.request.get(None)
    return str(request.session_hash) if request else ""


def show(opened: OpenConcept) -> None:
    """Remembers that the page whose event is handled now shows this concept."""
    if tab := current_tab():
        _open[tab] = ask_about(tab, opened)
        _open.move_to_end(tab)
        while len(_open) > _REMEMBERED:
            _open.popitem(last=False)


def require_saved(opened: OpenConcept) -> ConceptSpec:
    """The lists on screen, as saved: with a change of this page that has not come back to it yet, since who changes and
    presses the next button at once means the lists as changed.

    Raises CrceError while the user has to choose between two versions.
    """
    spec, theirs = opened.spec, opened.theirs
    if theirs == opened.seen:
        return spec
    tab = current_tab()
    if theirs is None or _open.get(tab) != Question(tab, theirs.slug, theirs.digest):
        raise CrceError("Another window changed these lists. Choose in Curate which version to keep, then try again.")
    return theirs


def is_open(question: Question) -> bool:
    """Whether the page still shows what was asked about. One that has shown nothing yet counts as showing it."""
    now = _open.get(question.tab, question)
    return now.concept == question.concept and question.digest in ("", now.digest)
