"""Which samples the page shows, and by which class."""

from pathlib import Path

import numpy as np
import pandas as pd

from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.images.writing import SampleWriter
from phoenix_pipeline.reporting.gallery import draw_gallery
from tests.written import arm_metrics, arm_results


def test_samples_stand_by_the_class_asked_for_else_by_the_judges(tmp_path: Path) -> None:
    """A dark sample is to be an a, a bright one a b; the judge swaps them."""
    pixels = np.stack([np.full((1, 8, 8), value, dtype=np.uint8) for value in (10, 200)])
    path = tmp_path / "samples.parquet"
    with SampleWriter(path) as writer:
        writer.write(pixels, -1, [0, 1])
    judged = pd.DataFrame({"row": [0, 1], "label": [1, 0]})
    conditions = {"test_images": "others", "sampling": {"grid_images": 2}, "evaluation": {}}
    metrics = arm_metrics({"fid_pixels": 1.0}, conditions)
    arms = [
        arm_results(arm, metrics, samples=path, classes=classes, trained_with={})
        for arm, classes in (("plain", judged), ("told", judged.assign(asked=[0, 1])))
    ]
    gallery, _ = draw_gallery(arms, ImageSet(pixels), ("a", "b"))
    first_of_row = {
        arm: [picture.getpixel((0, row * 9))[0] for row in (0, 1)]
        for arm, picture in gallery.by_class.items()
    }
    assert first_of_row == {"plain": [200, 10], "told": [10, 200]}
