"""Reasons as they are kept and shown: one short line, whoever wrote them."""

import re
import unicodedata

_LONGEST = 300
# Sequences that move a terminal's cursor, colour it, or set its title (ECMA-48).
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
# Control, format (text direction among them), surrogate, private and unassigned characters.
_HIDDEN = "C"


def plain_text(text: str) -> str:
    """Return ``text`` in one line of at most 300 characters, without what no reader would see."""
    # What is cut is not even looked at: a client may send megabytes.
    start = _ESCAPES.sub("", text[: 4 * _LONGEST])
    spaced = "".join(" " if char.isspace() else char for char in start)
    seen = "".join(char for char in spaced if unicodedata.category(char)[0] != _HIDDEN)
    line = " ".join(seen.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."
