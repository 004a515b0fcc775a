"""A publication tells how it went also after its page is closed, and can be repeated."""

import subprocess
import sys

import pytest

from app.session import publications
from app.tabs import publish
from crce import files
from crce.errors import CrceError
from crce.publishing.hub import Published

DONE = Published("https://hub.example/datasets/me/data", "a" * 40, "")


def test_how_it_went_is_kept():
    assert publications.last() is None and publish.render_push().strip() == ""
    assert publications.record("2 concepts", "me/data", lambda: DONE) == DONE
    assert publications.last().state == "done" and f'href="{DONE.url}"' in publish.render_push()
    with pytest.raises(CrceError, match="rate limit"):
        publications.record("2 concepts", "me/data", lambda: fail(CrceError("The rate limit is reached.")))
    assert "failed: The rate limit is reached." in publish.render_push()
    with pytest.raises(ZeroDivisionError):
        publications.record("2 concepts", "me/data", lambda: 1 / 0)
    assert publications.last().message == "Unexpected error (ZeroDivisionError)."
    assert publications.record("2 concepts", "me/data", lambda: DONE) == DONE


def fail(error: Exception):
    raise error


def test_while_it_is_sent_another_page_sees_it_and_cannot_send_over_it():
    def look() -> Published:
        assert "is being published in me/data" in publish.render_push()
        with pytest.raises(CrceError, match="still being sent"):
            publications.record("other", "me/data", lambda: DONE)
        return DONE

    publications.record("2 concepts", "me/data", look)
    assert publications.last().what == "2 concepts"


def test_one_that_ended_with_its_process_is_told():
    code = (
        "import os; from app.session import publications\n"
        "publications.record('2 concepts', 'me/data', lambda: os._exit(9))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=files.ROOT).returncode == 9
    assert publications.last().interrupted and "was interrupted. Publish again" in publish.render_push()
