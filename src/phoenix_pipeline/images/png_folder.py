"""Stream generated images into a folder: one PNG each, and a table of where each is from."""

import csv
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from phoenix_pipeline.images.encoding import encode_png

# What ``load_dataset("imagefolder")`` looks for, and this project's own reader of labelled images.
LABELLED_TABLE, FILE_NAME = "metadata.csv", "file_name"
TABLE_FILE = "images.csv"


class PngFolderWriter:
    """Write ``000000.png``, ... and a table of where each is from into a folder.

    ``images.csv`` has the columns file, client_id and seed. With ``class_names`` it is
    ``metadata.csv`` with file_name, label (the name of the class), client_id and seed, which
    ``datasets.load_dataset("imagefolder", data_dir=...)`` reads as a labelled set.

    Use as a context manager. The folder must exist; whoever made it also removes it after an
    exception. Takes the same ``write`` as :class:`phoenix_pipeline.images.SampleWriter`.
    """

    def __init__(self, folder: Path, class_names: Sequence[str] = ()) -> None:
        """Remember the folder; nothing is written before the ``with`` block."""
        self._folder = folder
        self._class_names = class_names
        self._count = 0
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        """Open the table."""
        name = LABELLED_TABLE if self._class_names else TABLE_FILE
        file = (self._folder / name).open("w", newline="", encoding="utf-8")
        self._table = csv.writer(self._cleanup.enter_context(file), lineterminator="\n")
        columns = [FILE_NAME, "label"] if self._class_names else ["file"]
        self._table.writerow([*columns, "client_id", "seed"])
        return self

    def write(
        self,
        images: np.ndarray,
        client_id: int,
        seeds: Sequence[int] | np.ndarray,
        labels: Sequence[int] | None = None,
    ) -> None:
        """Add uint8 [n, C, S, S] of one model; ``seeds`` and ``labels``: one per image."""
        for i, (image, seed) in enumerate(zip(images, seeds, strict=True)):
            name = f"{self._count:06d}.png"
            (self._folder / name).write_bytes(encode_png(image))
            label = [] if labels is None else [self._class_names[labels[i]]]
            self._table.writerow([name, *label, client_id, int(seed)])
            self._count += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the table."""
        self._cleanup.close()
