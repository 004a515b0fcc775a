"""Which characters a person's text may hold."""

import unicodedata

from crce.errors import CrceError

JOINERS = "\u200c\u200d"  # Persian, Hindi and many emoji are written with them
LINES = "\n\t"


def has_controls(text: str, lines: bool = False) -> bool:
    """Whether the text holds what nobody sees: NUL and terminal codes, or marks that turn the direction of writing.

    lines: whether line breaks and tabs are fine.
    """
    if text.isprintable():  # nearly every text is: a library has a million characters to be looked at
        return False
    fine = JOINERS + (LINES if lines else "")
    return any(unicodedata.category(c) in ("Cc", "Cf", "Co", "Cs", "Zl", "Zp") and c not in fine for c in text)


def require_plain(text: str, what: str, lines: bool = False) -> str:
    """The text. Raises CrceError if it has control characters; `what` names it."""
    if has_controls(text, lines):
        raise CrceError(f"{what} is {escape(text[:80])!r}; remove the control characters.")
    return text


def escape(text: str) -> str:
    """The text with an escape in the place of what cannot be seen or printed."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
