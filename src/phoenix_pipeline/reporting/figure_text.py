"""Names in figures: never mathematics, and no boxes where a font has no glyph."""

import logging
from collections.abc import Iterable, Sequence
from functools import cache

from matplotlib.axes import Axes
from matplotlib.font_manager import findfont, fontManager, get_font

logger = logging.getLogger(__name__)

_FAMILY = "DejaVu Sans"  # matplotlib brings it along
_LONGEST = 40
# A font of boxes for whatever other fonts lack.
_BOXES = "lastresort"


def set_name_ticks(
    axes: Axes, axis: str, places: Sequence[float], names: Iterable[str], rotation: float = 0
) -> None:
    """Write ``names`` at the ticks of ``axis``, "x" or "y", as they are spelt.

    Glyphs that DejaVu Sans lacks come from a font of this machine that has them; where none has, a
    character is written as its code, which a line in the log says.
    """
    texts = [drawable_name(name) for name in names]
    families = [_FAMILY, *dict.fromkeys(filter(None, map(_other_family, "".join(texts))))]
    setter = axes.set_xticks if axis == "x" else axes.set_yticks
    setter(places, texts, fontfamily=families, rotation=rotation)


def drawable_name(name: str) -> str:
    r"""Return ``name`` for matplotlib: at most 40 characters, ``$`` escaped, no glyph missing."""
    missing = sorted({c for c in name if not _family_with(c)})
    if missing:
        _say_missing("".join(missing))
    shown = "".join(c if c not in missing else c.encode("unicode_escape").decode() for c in name)
    if len(shown) > _LONGEST:
        shown = shown[: _LONGEST - 1] + "…"
    return shown.replace("$", r"\$")


@cache
def _say_missing(characters: str) -> None:
    logger.warning(
        "no font on this machine has %s; figures show their codes instead: install a font that has "
        "them, such as Noto Sans",
        " ".join(characters),
    )


def _other_family(character: str) -> str | None:
    family = _family_with(character)
    return None if family == _FAMILY else family


@cache
def _family_with(character: str) -> str:
    """Return a font family that has ``character``, or ``""``."""
    if _has(findfont(_FAMILY), character):
        return _FAMILY
    return next((f for f, file in _other_fonts().items() if _has(file, character)), "")


def _other_fonts() -> dict[str, str]:
    """Return the file of each font family of this machine."""
    files = {entry.name: entry.fname for entry in fontManager.ttflist}
    return {f: files[f] for f in sorted(files) if _BOXES not in f.lower().replace(" ", "")}


def _has(file: str, character: str) -> bool:
    try:
        return bool(get_font(file).get_char_index(ord(character)))
    except (OSError, RuntimeError):  # fonts of bitmaps alone
        return False
