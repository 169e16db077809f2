"""Stream generated images into a folder: one PNG each, and a table of where each is from."""

import csv
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from phoenix_pipeline.images.encoding import encode_png

TABLE_FILE = "images.csv"


class PngFolderWriter:
    """Write ``000000.png``, ... and ``images.csv`` (file, client_id, seed) into a folder.

    Use as a context manager. The folder must exist; whoever made it also removes it after an
    exception. Takes the same ``write`` as :class:`phoenix_pipeline.images.SampleWriter`.
    """

    def __init__(self, folder: Path) -> None:
        """Remember the folder; nothing is written before the ``with`` block."""
        self._folder = folder
        self._count = 0
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        """Open the table."""
        file = (self._folder / TABLE_FILE).open("w", newline="", encoding="utf-8")
        self._table = csv.writer(self._cleanup.enter_context(file), lineterminator="\n")
        self._table.writerow(["file", "client_id", "seed"])
        return self

    def write(self, images: np.ndarray, client_id: int, seeds: Sequence[int] | np.ndarray) -> None:
        """Add uint8 [n, C, S, S] of one model; ``seeds``: one per image."""
        for image, seed in zip(images, seeds, strict=True):
            name = f"{self._count:06d}.png"
            (self._folder / name).write_bytes(encode_png(image))
            self._table.writerow([name, client_id, int(seed)])
            self._count += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the table."""
        self._cleanup.close()
