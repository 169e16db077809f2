"""Measure reading an image source: seconds and the peak memory of this process.

Usage: ``python -m benchmarks.read_images data/01_raw/cifar10/train.parquet``
"""

import sys
import time
from pathlib import Path

from benchmarks.peak_memory import peak_mb
from phoenix_pipeline.config import ImagesConfig
from phoenix_pipeline.images import read_images


def main(path: Path, image_column: str = "img") -> None:
    """Read ``path`` once and write one line: images, seconds, MB of peak resident memory."""
    start = time.perf_counter()
    images = read_images(path, ImagesConfig(image_column=image_column))
    seconds = time.perf_counter() - start
    sys.stdout.write(
        f"{images.num_images} images {images.images.shape[1:]} in {seconds:.1f} s, "
        f"peak {peak_mb():.0f} MB with all imports, array {images.images.nbytes / 1e6:.0f} MB\n"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:3])
