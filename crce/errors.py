"""The one error that is meant for people."""


class CrceError(Exception):
    """Says what was wrong, with the value, and what to do about it. Shown as it is, never as a trace."""
