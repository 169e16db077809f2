"""Which images the report shows: samples of each arm, and real ones that nobody trained on."""

from collections.abc import Sequence

import numpy as np
from PIL.Image import Image

from phoenix_pipeline.images import ImageSet, image_grid, pick_evenly, read_samples
from phoenix_pipeline.pipelines.comparison.results import ArmResults
from phoenix_pipeline.reporting.comparison import FLOOR_NAME
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
