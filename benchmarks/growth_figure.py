"""Draw the curves of ``growth`` from ``latest.json`` into docs/images/growth.png.

Usage: ``python -m benchmarks.growth_figure``.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from benchmarks.harness import LATEST

_TARGET = Path(__file__).parents[1] / "docs" / "images" / "growth.png"
_AXES = {
    "growth_images": ("images", "images (a tenth of a pass)"),
    "growth_image_size": ("image_size", "side of an image, pixels (6 steps)"),
    "growth_channels": ("parameters", "weights of the network (6 steps)"),
    "growth_clients": ("clients", "clients (a round, a step each)"),
}


def main() -> None:
    """Draw seconds above, memory below, one column for each axis that was measured."""
    rows = {row["name"]: row for row in json.loads(LATEST.read_text(encoding="utf-8"))}
    found = [name for name in _AXES if name in rows]
    figure, panels = plt.subplots(
        2, len(found), figsize=(3.2 * len(found), 5), squeeze=False, layout="constrained"
    )
    for column, name in enumerate(found):
        _draw(panels[:, column], name, rows[name]["details"])
    panels[0, 0].set_ylabel("seconds")
    panels[1, 0].set_ylabel("MB beyond the imports")
    figure.savefig(_TARGET, dpi=110)


def _draw(panels: Sequence[Axes], name: str, details: Mapping[str, Any]) -> None:
    key, label = _AXES[name]
    points = details["points"]
    sizes = [point[key] for point in points]
    curves = {
        "seconds": [point["seconds"] for point in points],
        "memory": [point["peak_mb"] - point["imports_mb"] for point in points],
    }
    for panel, (what, values) in zip(panels, curves.items(), strict=True):
        panel.plot(sizes, values, marker="o")
        panel.set_title(f"~ n^{details[f'exponent_of_{what}']:.2f}", fontsize=10)
        panel.set_xscale("log")
        panel.set_xticks(sizes, [_short(size) for size in sizes])
        panel.xaxis.set_minor_locator(NullLocator())
        panel.grid(which="major", alpha=0.3)
    panels[0].set_yscale("log")
    panels[1].set_ylim(0, 1.2 * max(curves["memory"]))
    panels[1].set_xlabel(label)


def _short(size: float) -> str:
    units = ((1e6, " M"), (1e3, " k"), (1, ""))
    scale, unit = next((scale, unit) for scale, unit in units if size >= scale)
    return f"{size / scale:.3g}{unit}"


if __name__ == "__main__":
    main()
