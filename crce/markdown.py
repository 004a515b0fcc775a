def plain(text: str) -> str:
    """Text that Markdown shows as it is: a concept's name may come from a model."""
    return "".join(f"\\{letter}" if letter in r"\`*_[]<>|~&" else letter for letter in text)
