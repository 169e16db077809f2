"""Kedro datasets for images: the user's own, read only, decoded ones, and samples.

The classes below are named in ``conf/base/catalog.yml``.
"""

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from kedro.io import AbstractDataset
from kedro_datasets._typing import ImagePreview

from phoenix_pipeline.checkpoints import load_tensors, save_tensors
from phoenix_pipeline.errors import CheckpointError, StorageError
from phoenix_pipeline.framework.datasets import FileDataset, Metadata, WrittenByNodeDataset
from phoenix_pipeline.images import ImageSet, ImageSource, find_image_source, find_splits


@dataclass(frozen=True)
class ImageSplits:
    """Where the raw images are; ``test`` is None when a part of ``train`` is to be held out."""

    train: ImageSource
    test: ImageSource | None


class ImageSplitsDataset(AbstractDataset[Any, ImageSplits]):
    """The user's images, read only: a Parquet file or a folder for each split.

    ``train: {path: ...}``, ``test: {path: ...}``; without a test path, a folder that holds both
    splits is told apart by their names (see :func:`phoenix_pipeline.images.find_splits`).
    """

    def __init__(
        self,
        *,
        train: dict[str, str],
        test: dict[str, str | None] | None = None,
        metadata: Metadata = None,
    ) -> None:
        """Take one mapping with the key ``path`` per split; Kedro makes those paths absolute."""
        self._train, self._test = train["path"], (test or {}).get("path")
        self.metadata = metadata

    def load(self) -> ImageSplits:
        """List the files of both splits; raises DataError when a path holds no images."""
        if self._test is None:
            return ImageSplits(*find_splits(self._train))
        return ImageSplits(find_image_source(self._train), find_image_source(self._test))

    def save(self, data: Any) -> NoReturn:
        """Refuse: raw images are never written."""
        raise StorageError(f"raw images at {self._train} are only read, never written")

    def _exists(self) -> bool:
        return all(Path(path).exists() for path in (self._train, self._test) if path)

    def _describe(self) -> dict[str, Any]:
        return {"train": self._train, "test": self._test}


class ImageSetDataset(FileDataset[ImageSet, ImageSet]):
    """An :class:`ImageSet` as safetensors."""

    def load(self) -> ImageSet:
        """Return the stored images; raises CheckpointError for a broken or foreign file."""
        tensors, metadata = load_tensors(self._existing())
        if "images" not in tensors or "class_names" not in metadata:
            raise CheckpointError(f"{self._filepath} holds no image set; delete it and run again")
        labels = tensors["labels"].numpy() if "labels" in tensors else None
        return ImageSet(tensors["images"].numpy(), labels, tuple(metadata["class_names"]))

    def save(self, data: ImageSet) -> None:
        """Write images, labels and class names."""
        import torch

        arrays = {"images": data.images}
        if data.labels is not None:
            arrays["labels"] = data.labels
        tensors = {name: torch.tensor(array) for name, array in arrays.items()}
        save_tensors(self._filepath, tensors, {"class_names": list(data.class_names)})


class SampleFileDataset(WrittenByNodeDataset):
    """A file that a node's function writes; those who read it tell what to do where there is none.

    So a comparison can leave out an arm that has no samples.
    """

    def load(self) -> Path:
        """Return the path, whether the file is there or not."""
        return self._filepath

    def preview(self, num_images: int = 36) -> ImagePreview:
        """Return some of the samples, spread evenly, as a PNG in base64."""
        from phoenix_pipeline.images import image_grid, pick_evenly, read_samples

        buffer = io.BytesIO()
        image_grid(pick_evenly(read_samples(self._filepath), num_images)).save(buffer, "PNG")
        return ImagePreview(base64.b64encode(buffer.getvalue()).decode("ascii"))
