"""Which images the report shows, and a folder of all figures to take along.

The images are samples of each arm, and real ones that nobody trained on.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL.Image import Image

from phoenix_pipeline.images import ImageSet, image_grid, pick_evenly, read_samples
from phoenix_pipeline.pipelines.comparison.results import ArmResults
from phoenix_pipeline.reporting.comparison import FLOOR_NAME
from phoenix_pipeline.reporting.figure_style import figure_pdf, figure_svg
from phoenix_pipeline.reporting.gallery import Gallery, tile_classes, tile_square


def draw_gallery(
    results: Sequence[ArmResults], test: ImageSet, class_names: Sequence[str]
) -> tuple[Gallery, dict[str, Image]]:
    """Return the samples of each arm that has some, after real ones of the held-out images.

    Real images are left out where they are not those that the arms were scored against. The second
    is the same samples of each arm as a picture of its own, enlarged.
    """
    grids: dict[str, Image] = {}
    drawn: dict[str, Image] = {}
    by_class: dict[str, Image] = {}
    if any(r.metrics["conditions"]["test_images"] == test.fingerprint()[:16] for r in results):
        count = min(max(map(_count, results)), test.num_images)
        places = np.linspace(0, test.num_images, count, endpoint=False).astype(int)
        drawn[FLOOR_NAME] = tile_square(test.images[places])
        if class_names and test.labels is not None:
            by_class[FLOOR_NAME] = tile_classes(test.images, test.labels, len(class_names))
    for result in results:
        if result.samples.is_file():
            samples = read_samples(result.samples)
            picked = pick_evenly(samples, _count(result))
            drawn[result.arm], grids[result.arm] = tile_square(picked), image_grid(picked)
            if len(result.classes):
                images = samples.images.images[result.classes["row"].to_numpy()]
                labels = result.classes["label"].to_numpy()
                by_class[result.arm] = tile_classes(images, labels, len(class_names))
    return Gallery(drawn, by_class, class_names), grids


def _count(result: ArmResults) -> int:
    return int(result.settings["sampling"]["grid_images"])


def write_figures(
    figures: Mapping[str, Figure], results: Sequence[ArmResults]
) -> Callable[[Path], None]:
    """Return a function that fills a folder: figures as SVG, PDF and PNG, pictures as PNG."""

    def write(folder: Path) -> None:
        for name, figure in figures.items():
            (folder / f"{name}.svg").write_text(figure_svg(figure), encoding="utf-8")
            (folder / f"{name}.pdf").write_bytes(figure_pdf(figure))
            figure.savefig(folder / f"{name}.png")
        for result in results:
            for name, picture in (("samples", result.grid), ("clients", result.clients_figure)):
                if picture.is_file():
                    shutil.copyfile(picture, folder / f"{result.arm}_{name}.png")

    return write
