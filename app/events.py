"""How the app's events run, as keyword arguments for Gradio's listeners."""

from typing import Any

# Without a progress overlay, and not offered to other programs.
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
# What a pulse reads anew; news that come meanwhile are read afterwards.
PULSE: dict[str, Any] = {"trigger_mode": "always_last", **QUIET}
# The same past the queue of the work that people wait for. Not for an event that sets a State with listeners: Gradio
# tells a page of a changed State through the queue alone.
PLAIN_PULSE: dict[str, Any] = {"queue": False, **PULSE}
# Every change sends a new request; the worker drops the outdated ones.
EVERY_CHANGE: dict[str, Any] = {"trigger_mode": "multiple", "concurrency_limit": None, **QUIET}
