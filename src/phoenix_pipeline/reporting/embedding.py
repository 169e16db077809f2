"""Figures and images as data URIs, so that one HTML file holds everything that it shows."""

import base64
import io

import matplotlib
from matplotlib.figure import Figure
from PIL import Image


def figure_data_uri(figure: Figure) -> str:
    """Return ``figure`` as an SVG with a transparent ground; the same figure gives the same text.

    Letters become outlines, so that the reader needs none of this machine's fonts.
    """
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "phoenix", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _data_uri("image/svg+xml", buffer.getvalue())


def image_data_uri(image: Image.Image) -> str:
    """Return ``image`` as a PNG, without loss."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return _data_uri("image/png", buffer.getvalue())


def _data_uri(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"
