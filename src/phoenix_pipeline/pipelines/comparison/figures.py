"""A folder of all figures to take along: for a paper, for slides."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from phoenix_pipeline.pipelines.comparison.results import ArmResults
from phoenix_pipeline.reporting.embedding import figure_pdf, figure_svg


def write_figures(
    figures: Mapping[str, Figure], results: Sequence[ArmResults]
) -> Callable[[Path], None]:
    """Return a function that fills a folder: figures as SVG and PDF, pictures of arms as PNG."""

    def write(folder: Path) -> None:
        for name, figure in figures.items():
            (folder / f"{name}.svg").write_text(figure_svg(figure), encoding="utf-8")
            (folder / f"{name}.pdf").write_bytes(figure_pdf(figure))
        for result in results:
            for name, picture in (("samples", result.grid), ("clients", result.clients_figure)):
                if picture.is_file():
                    shutil.copyfile(picture, folder / f"{result.arm}_{name}.png")

    return write
