"""Markdown text."""


def plain(text: str) -> str:
    """Escapes Markdown's special characters: a concept's name may come from a language model."""
    return "".join(f"\\{letter}" if letter in r"\`*_[]<>|~&" else letter for letter in text)
