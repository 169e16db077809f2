"""Figures and images as data URIs, so that one HTML file holds everything that it shows."""

import base64
import io

import matplotlib
from matplotlib.figure import Figure
from PIL import Image

from phoenix_pipeline.reporting.figure_style import ON_DARK

# Other readers of the SVG know nothing of pages and keep the light colours.
_DARK_RULES = " ".join(
    f'[style*="{what}: {light.lower()}"] {{ {what}: {dark} !important }}'
    for light, dark in ON_DARK.items()
    for what in ("fill", "stroke")
)


def figure_svg(figure: Figure) -> str:
    """Return ``figure`` as an SVG with a transparent ground; the same figure gives the same text.

    Letters become outlines, so that the reader needs none of this machine's fonts.
    """
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "phoenix", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue().decode()


def figure_pdf(figure: Figure) -> bytes:
    """Return ``figure`` as a PDF with its letters as text; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"pdf.fonttype": 42}):
        figure.savefig(buffer, format="pdf", metadata={"CreationDate": None})
    return buffer.getvalue()


def figure_data_uri(figure: Figure) -> str:
    """Return :func:`figure_svg`; on a dark page the colours of ``figure_style`` change with it."""
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
