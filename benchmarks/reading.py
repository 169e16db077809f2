"""Reading encoded images from Parquet into one uint8 array."""

import io
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.harness import Options, Row, compare
from phoenix_pipeline.config import ImagesConfig
from phoenix_pipeline.images import read_images

_QUICK_ROWS = 500
_COLUMN = "img"


def run(options: Options) -> list[Row]:
    """Compare with PIL over the whole table, the way data-set libraries decode a column."""
    source = options.cifar10 / "train.parquet"
    if not source.is_file():
        return [Row("reading_parquet", f"not run: {source} is not there (docs/cifar10.md)")]
    if options.quick:
        with TemporaryDirectory() as folder:
            return [_reading(_first_rows(source, Path(folder)), options)]
    return [_reading(source, options)]


def _reading(source: Path, options: Options) -> Row:
    config = ImagesConfig()

    def ours() -> np.ndarray:
        return read_images(source, config, keep_empty_classes=True).images

    def one_by_one() -> np.ndarray:
        cells = pq.read_table(source, columns=[_COLUMN])[_COLUMN].to_pylist()
        pictures = [np.asarray(Image.open(io.BytesIO(cell["bytes"]))) for cell in cells]
        return np.stack(pictures).transpose(0, 3, 1, 2)

    if not np.array_equal(ours(), one_by_one()):
        raise RuntimeError(f"{source} is read differently by this project and by PIL")
    return compare(
        "reading_parquet",
        "Parquet to one uint8 array, every image checked, against PIL over a list",
        ours,
        one_by_one,
        options,
        images=pq.ParquetFile(source).metadata.num_rows,
    )


def _first_rows(source: Path, folder: Path) -> Path:
    """Write the first rows of ``source`` into ``folder``."""
    target = folder / source.name
    batch = next(pq.ParquetFile(source).iter_batches(_QUICK_ROWS))
    pq.write_table(pa.Table.from_batches([batch]), target)
    return target
