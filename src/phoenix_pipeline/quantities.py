"""Numbers with their nouns, for lines that people read."""


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return ``1 client`` or ``1,200 clients``; ``plural``: where it is not the noun and an s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
