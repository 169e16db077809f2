"""Colours, marks and axes that all figures share, so that an arm looks the same everywhere.

Colours are Okabe and Ito's (distinct under every common colour blindness); each arm also has its
own dash, so that curves that coincide stay visible and print in grey. Written as data URIs, figures
and images lie in the one HTML file that shows them.
"""

import base64
import io
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, fontManager, get_font
from PIL import Image

INK, MUTED, RULE = "#222222", "#6b6b6b", "#d9d9d9"
ALARM = "#D55E00"
# What the colours of figures become on a dark ground.
ON_DARK = {
    INK: "#e9e8e3",
    MUTED: "#a8a69e",
    RULE: "#3a3935",
    ALARM: "#ff7f33",
    "#3b3b3b": "#c9c7bf",
    "#0072B2": "#3d9be0",
    "#009E73": "#2bbf95",
    "#CC79A7": "#e08fbe",
    "#7A5195": "#b48ad6",
    "#8A8A2B": "#b9b94a",
}


@dataclass(frozen=True)
class ArmStyle:
    """How an arm is drawn: ``color`` as hex, ``dash`` as a matplotlib line style."""

    color: str
    dash: Any

    @property
    def dark(self) -> str:
        """Return the colour for a dark ground."""
        return ON_DARK.get(self.color, self.color)


_KNOWN = {
    "centralized": ArmStyle("#3b3b3b", "-"),
    "fedavg": ArmStyle("#0072B2", "-"),
    "data_sharing": ArmStyle("#E69F00", (0, (5, 2))),
    "personalization": ArmStyle("#009E73", (0, (7, 2, 1.5, 2))),
    "dcgan": ArmStyle("#CC79A7", (0, (1.5, 1.5))),
}
_FURTHER = (
    ArmStyle("#D55E00", (0, (3, 2))),
    ArmStyle("#56B4E9", "-"),
    ArmStyle("#7A5195", (0, (8, 3))),
    ArmStyle("#8A8A2B", (0, (4, 1, 1, 1))),
)


def arm_styles(arms: Iterable[str]) -> dict[str, ArmStyle]:
    """Return each arm's style: fixed for the arms of the paper, by order for any others."""
    names = list(dict.fromkeys(arms))
    others = [name for name in names if name not in _KNOWN]
    further = {name: _FURTHER[i % len(_FURTHER)] for i, name in enumerate(others)}
    return {name: _KNOWN.get(name) or further[name] for name in names}


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches that lays itself out."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)  # type: ignore[union-attr, call-arg]
    return figure


def draw_sentence(text: str) -> Figure:
    """Return a figure that says why there is nothing to draw."""
    figure = new_figure(8.0, 1.2)
    figure.text(0.5, 0.5, text, ha="center", va="center", fontsize=11, color=MUTED)
    return figure


def style_axes(axes: Axes, title: str = "", grid: str = "y") -> None:
    """Draw ``axes`` with two thin spines, quiet ticks and a left-aligned title."""
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold", color=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(RULE)
    axes.tick_params(length=0, labelsize=8.5, labelcolor=MUTED)
    axes.xaxis.label.set(fontsize=9, color=MUTED)
    axes.yaxis.label.set(fontsize=9, color=MUTED)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(axis=grid, color=RULE, linewidth=0.6)  # type: ignore[arg-type]


def shared_legend(figure: Figure, handles: list[Any], labels: list[str]) -> None:
    """Put one legend above all panels."""
    figure.legend(
        handles,
        labels,
        loc="outside upper left",
        ncols=min(len(labels), 6),
        frameon=False,
        fontsize=9.5,
        labelcolor=INK,
        handlelength=3.2,
        columnspacing=2.2,
    )


def _settle(figure: Figure) -> None:
    """Lay ``figure`` out, once for all files of it."""
    if (layout := figure.get_layout_engine()) is not None:
        if figure.axes:
            layout.execute(figure)
        figure.set_layout_engine("none")


# Other readers of the SVG know nothing of pages and keep the light colours.
_DARK_RULES = " ".join(
    f'[style*="{what}: {light.lower()}"] {{ {what}: {dark} !important }}'
    for light, dark in ON_DARK.items()
    for what in ("fill", "stroke")
)


# A figure is shown in the report and lies in a file; nobody changes it once it was drawn.
@lru_cache(maxsize=32)
def figure_svg(figure: Figure) -> str:
    """Return a transparent SVG, letters as outlines; the same figure gives the same text."""
    _settle(figure)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "phoenix", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue().decode()


def figure_pdf(figure: Figure) -> bytes:
    """Return ``figure`` as a PDF with its letters as text; the same figure gives the same bytes."""
    _settle(figure)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"pdf.fonttype": 42}):
        figure.savefig(buffer, format="pdf", metadata={"CreationDate": None})
    return buffer.getvalue()


def figure_data_uri(figure: Figure) -> str:
    """Return :func:`figure_svg`; on a dark page its colours change."""
    style = f"<style>@media (prefers-color-scheme: dark) {{ {_DARK_RULES} }}</style>"
    svg = figure_svg(figure).replace("</defs>", f"{style}</defs>", 1)
    return _data_uri("image/svg+xml", svg.encode())


def image_data_uri(image: Image.Image) -> str:
    """Return ``image`` as a PNG, without loss."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return png_data_uri(buffer.getvalue())


def png_data_uri(png: bytes) -> str:
    """Return a picture that is PNG already."""
    return _data_uri("image/png", png)


def text_data_uri(media_type: str, text: str) -> str:
    """Return ``text`` as a file to save."""
    return _data_uri(media_type, text.encode())


def _data_uri(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


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
