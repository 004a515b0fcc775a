"""The error that users see."""


class CrceError(Exception):
    """Says what went wrong, the offending value, and how to fix it. Shown to the user without a traceback."""
