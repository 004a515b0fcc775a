"""The error that users see."""

from crce.redact import redact


class CrceError(Exception):
    """Says what went wrong, the offending value, and how to fix it. Shown to the user without a traceback.

    It hides keys and tokens: a message may quote a server that echoes them.
    """

    def __init__(self, message: object = ""):
        super().__init__(redact(str(message)))
