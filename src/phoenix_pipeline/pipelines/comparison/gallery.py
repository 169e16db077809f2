"""Which images the report shows: samples of each arm, and real ones that nobody trained on."""

from collections.abc import Sequence

import numpy as np
from PIL.Image import Image

from phoenix_pipeline.images import ImageSet, image_grid, pick_evenly, read_samples
from phoenix_pipeline.pipelines.comparison.results import ArmResults
from phoenix_pipeline.reporting.comparison import FLOOR_NAME
from phoenix_pipeline.reporting.gallery import Gallery, tile_classes, tile_square


def draw_grid(result: ArmResults) -> Image:
    """Return samples spread evenly over an arm's, none picked, as a picture of its own."""
    return image_grid(pick_evenly(read_samples(result.samples), _count(result)))


def draw_gallery(
    results: Sequence[ArmResults], test: ImageSet, class_names: Sequence[str]
) -> Gallery:
    """Return the samples of each arm that has some, after real ones of the held-out images.

    Real images are left out where they are not those that the arms were scored against.
    """
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
            drawn[result.arm] = tile_square(pick_evenly(samples, _count(result)))
            if len(result.classes):
                images = samples.images.images[result.classes["row"].to_numpy()]
                labels = result.classes["label"].to_numpy()
                by_class[result.arm] = tile_classes(images, labels, len(class_names))
    return Gallery(drawn, by_class, class_names)


def _count(result: ArmResults) -> int:
    return int(result.settings["sampling"]["grid_images"])
