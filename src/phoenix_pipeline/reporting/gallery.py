"""Samples for the report: grids as drawn and by class, and by round for the slider of the page.

Beside those of the arms stand real images that nobody trained on. Pictures keep the size of their
pixels; the page enlarges them without smoothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from PIL import Image

from phoenix_pipeline.images import ImageSet, image_grid, pick_evenly, read_samples
from phoenix_pipeline.reporting.arm_results import ArmResults
from phoenix_pipeline.reporting.columns import FLOOR_NAME
from phoenix_pipeline.reporting.figure_style import png_data_uri

CLASS_COLUMNS = 10
MOST_CLASSES = 20
_GAP = 1


@dataclass(frozen=True)
class Gallery:
    """``drawn``: name -> a square of images; ``by_class``: name -> a row of images per class.

    Names are arms, and what real images are called. ``class_names``: of the rows, from above.
    """

    drawn: Mapping[str, Image.Image]
    by_class: Mapping[str, Image.Image] = field(default_factory=dict)
    class_names: Sequence[str] = ()


def draw_gallery(
    results: Sequence[ArmResults], test: ImageSet, class_names: Sequence[str]
) -> tuple[Gallery, dict[str, Image.Image]]:
    """Return the samples of each arm that has some, after real ones of the held-out images.

    Real images are left out where they are not those that the arms were scored against. The second
    is the same samples of each arm as a picture of its own, enlarged.
    """
    grids: dict[str, Image.Image] = {}
    drawn: dict[str, Image.Image] = {}
    by_class: dict[str, Image.Image] = {}
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
                # A model that learnt the classes is shown by what it was asked for.
                labels = result.classes.get("asked", result.classes["label"]).to_numpy()
                by_class[result.arm] = tile_classes(images, labels, len(class_names))
    return Gallery(drawn, by_class, class_names), grids


def _count(result: ArmResults) -> int:
    return int(result.settings["sampling"]["grid_images"])


def tile_square(images: np.ndarray) -> Image.Image:
    """Tile uint8 [N, C, S, S] row by row into a square."""
    columns = int(np.ceil(np.sqrt(len(images))))
    places = np.arange(len(images))
    return _tile(images, places // columns, places % columns, (-(-len(images) // columns), columns))


def tile_classes(images: np.ndarray, classes: np.ndarray, num_classes: int) -> Image.Image:
    """Tile uint8 [N, C, S, S] in one row per class; ``classes``: int [N].

    Of each class the images are spread evenly over those that there are, none picked. A class
    without images is an empty row.
    """
    num_classes = min(num_classes, MOST_CLASSES)
    chosen: list[int] = []
    rows: list[int] = []
    columns: list[int] = []
    for label in range(num_classes):
        own = np.flatnonzero(classes == label)
        count = min(CLASS_COLUMNS, len(own))
        chosen += own[np.linspace(0, len(own), count, endpoint=False).astype(int)].tolist()
        rows += [label] * count
        columns += range(count)
    shape = num_classes, CLASS_COLUMNS
    return _tile(images[chosen], np.array(rows, int), np.array(columns, int), shape)


def _tile(
    images: np.ndarray, rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]
) -> Image.Image:
    """Put each image into its cell; what has none, and the gaps, are transparent."""
    side = images.shape[2] + _GAP
    canvas = np.zeros((shape[0] * side - _GAP, shape[1] * side - _GAP, 4), dtype=np.uint8)
    for image, row, column in zip(images, rows, columns, strict=True):
        top, left = int(row) * side, int(column) * side
        cell = canvas[top : top + side - _GAP, left : left + side - _GAP]
        cell[..., :3] = image.transpose(1, 2, 0)
        cell[..., 3] = 255
    return Image.fromarray(canvas)


@dataclass(frozen=True)
class Frame:
    """The samples after ``round``: ``image`` is a data URI."""

    round: int
    image: str


@dataclass(frozen=True)
class Growth:
    """``frames``: arm -> its samples, the earliest first; ``rounds``: all of them, each once.

    ``without``: arms that have none. ``num_samples``: scored for each.
    """

    frames: Mapping[str, Sequence[Frame]]
    rounds: Sequence[int]
    without: Sequence[str]
    num_samples: int


def show_growth(tables: Mapping[str, pd.DataFrame]) -> Growth | None:
    """Return the samples by round, of ``arms.score_rounds`` by arm; None where no arm has any."""
    found = {arm: table for arm, table in tables.items() if len(table)}
    if not found:
        return None
    frames = {
        arm: [
            Frame(int(number), png_data_uri(png))
            for number, png in zip(table["round"], table["grid"], strict=True)
        ]
        for arm, table in found.items()
    }
    every = pd.concat(found.values())
    return Growth(
        frames=frames,
        rounds=sorted(set(map(int, every["round"]))),
        without=[arm for arm in tables if arm not in found],
        num_samples=int(every["num_samples"].min()),
    )
