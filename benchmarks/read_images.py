"""Measure reading an image source: seconds and the peak memory of this process.

Usage: ``python benchmarks/read_images.py data/01_raw/cifar10/train.parquet``
"""

import resource
import sys
import time
from pathlib import Path

from phoenix_pipeline.config import ImagesConfig
from phoenix_pipeline.images import read_images

KIBIBYTES_PER_MEGABYTE = 1e6 / 1024


def main(path: Path, image_column: str = "img") -> None:
    """Read ``path`` once and write one line: images, seconds, MB of peak resident memory."""
    start = time.perf_counter()
    images = read_images(path, ImagesConfig(image_column=image_column))
    seconds = time.perf_counter() - start
    # Linux counts in kibibytes; the peak covers the interpreter and every import.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIBIBYTES_PER_MEGABYTE
    sys.stdout.write(
        f"{images.num_images} images {images.images.shape[1:]} in {seconds:.1f} s, "
        f"peak {peak:.0f} MB, array {images.images.nbytes / 1e6:.0f} MB\n"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:3])
