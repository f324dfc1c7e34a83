"""Text for terminals."""


def printable(text: str) -> str:
    """The text with control characters spelled out: what devices sent must not steer the terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
