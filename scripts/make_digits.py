"""Write scikit-learn's handwritten digits as Parquet: the embedded default data set.

Usage: ``python scripts/make_digits.py [folder]``; the same versions give the same bytes.
"""

import logging
import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from phoenix_pipeline.images import ImageSet, split_held_out, write_images

DEFAULT_FOLDER = Path(__file__).parents[1] / "data" / "01_raw" / "digits"
LARGEST_VALUE = 16.0
TEST_FRACTION = 0.2
SPLIT_SEED = 0

logger = logging.getLogger("make_digits")


def main(folder: Path = DEFAULT_FOLDER) -> None:
    """Write ``train.parquet`` and ``test.parquet`` with 8x8 grey images, stratified by digit."""
    digits = load_digits()
    pixels = np.round(digits.images * (255.0 / LARGEST_VALUE)).astype(np.uint8)
    names = tuple(str(name) for name in digits.target_names)
    images = ImageSet(pixels[:, None], digits.target.astype(np.int64), names)
    for name, part in zip(
        ("train", "test"), split_held_out(images, TEST_FRACTION, SPLIT_SEED), strict=True
    ):
        path = folder / f"{name}.parquet"
        write_images(part, path)
        logger.info("%s: %d images, %d bytes", path, part.num_images, path.stat().st_size)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main(*(Path(argument) for argument in sys.argv[1:2]))
