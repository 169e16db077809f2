"""Kedro datasets whose files are complete or absent, most with a preview for kedro-viz.

``metadata: {mlflow: artifact}`` or ``{mlflow: metrics}`` in a catalog entry also logs what was
saved to the arm's MLflow run (see ``tracking.py``). Heavy libraries are imported when needed.
"""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from kedro.io import AbstractDataset
from kedro_datasets._typing import ImagePreview, JSONPreview, TablePreview

from phoenix_pipeline.checkpoints import atomic_path, read_json, write_json
from phoenix_pipeline.errors import DataError, StorageError
from phoenix_pipeline.images import encodable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from PIL.Image import Image

In = TypeVar("In")
Out = TypeVar("Out")
Metadata = dict[str, Any] | None


class FileDataset(AbstractDataset[In, Out]):
    """A dataset that is one local file or folder."""

    def __init__(self, *, filepath: str, metadata: Metadata = None) -> None:
        """Take a path, made absolute under the project by Kedro, and free-form metadata."""
        self._filepath = Path(filepath)
        self.metadata = metadata

    @property
    def path(self) -> Path:
        """The file or folder."""
        return self._filepath

    def _exists(self) -> bool:
        return self._filepath.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}

    def _existing(self) -> Path:
        if not self._filepath.exists():
            raise DataError(
                f"{self._filepath} does not exist; an earlier stage writes it: run `kedro run`, or "
                f"`kedro run --pipelines` with that stage as well"
            )
        return self._filepath


class FolderDataset(FileDataset[Path | Callable[[Path], None], Path]):
    """A folder that a node fills itself, such as checkpoints or a model.

    Load gives the folder, made if need be. Save takes that same path from a node that has filled
    it, or a function that fills an empty folder, which then takes this name in one step.
    """

    def load(self) -> Path:
        """Return the folder, creating it if it is not there."""
        try:
            self._filepath.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{self._filepath} cannot be created: {error.strerror}") from error
        return self._filepath

    def save(self, data: Path | Callable[[Path], None]) -> None:
        """Accept the folder's own path, or fill the folder by ``data(temporary folder)``."""
        if not isinstance(data, Path):
            with atomic_path(self._filepath) as temporary:
                temporary.mkdir()
                data(temporary)
        elif data.resolve() != self._filepath.resolve():
            raise StorageError(f"a node filled {data}; the catalog expects {self._filepath}")

    def _exists(self) -> bool:
        return self._filepath.is_dir() and any(self._filepath.iterdir())


class WrittenByNodeDataset(FileDataset[Callable[[Path], None], Path]):
    """A file or folder that a node's function writes itself, each file complete or absent.

    Samples are streamed in this way, and a folder keeps those of its files that still fit.
    """

    def load(self) -> Path:
        """Return the path."""
        return self._existing()

    def save(self, data: Callable[[Path], None]) -> None:
        """Have it written or brought up to date by ``data(path)``."""
        data(self._filepath)


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


class JsonDataset(FileDataset[Any, Any]):
    """Anything that JSON can hold; NumPy numbers too, NaN not."""

    def load(self) -> Any:
        """Return the parsed file."""
        return read_json(self._existing())

    def save(self, data: Any) -> None:
        """Write indented JSON."""
        write_json(self._filepath, data)

    def preview(self) -> JSONPreview:
        """Return the file's text."""
        return JSONPreview(self._filepath.read_text(encoding="utf-8"))


class OptionalJsonDataset(JsonDataset):
    """JSON of a stage or an arm that may not have run: an empty dictionary where it has not."""

    def load(self) -> Any:
        """Return the parsed file, or ``{}``."""
        return super().load() if self._filepath.exists() else {}


class TableDataset(FileDataset["pd.DataFrame", "pd.DataFrame"]):
    """A table: Parquet or CSV by the file's suffix."""

    def load(self) -> "pd.DataFrame":
        """Return the table; raises DataError when the file is broken."""
        import pandas as pd

        path = self._existing()
        try:
            return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{path} is not a readable table: {reason}; delete it") from error

    def save(self, data: "pd.DataFrame") -> None:
        """Write the table without its index."""
        with atomic_path(self._filepath) as temporary:
            if temporary.suffix == ".csv":
                data.to_csv(temporary, index=False)
            else:
                data.to_parquet(temporary, index=False)

    def preview(self, nrows: int = 10) -> TablePreview:
        """Return the first rows; bytes are left out."""
        rows = self.load().head(nrows)
        simple = rows.map(lambda value: "..." if isinstance(value, dict | bytes) else value)
        return TablePreview(simple.to_dict(orient="split"))


class OptionalTableDataset(TableDataset):
    """A table of an arm that may not have run: one without rows and columns where it has not."""

    def load(self) -> "pd.DataFrame":
        """Return the table, or an empty one."""
        import pandas as pd

        return super().load() if self._filepath.exists() else pd.DataFrame()


class _ImageFileDataset(FileDataset[In, Path]):
    """A PNG for people."""

    def load(self) -> Path:
        """Return the path, for those who copy the file, whether it is there or not."""
        return self._filepath

    def preview(self) -> ImagePreview:
        """Return the PNG in base64."""
        return ImagePreview(base64.b64encode(self._filepath.read_bytes()).decode("ascii"))


class FigureDataset(_ImageFileDataset["Figure"]):
    """A matplotlib figure as PNG."""

    def save(self, data: "Figure") -> None:
        """Draw the figure."""
        buffer = io.BytesIO()
        data.savefig(buffer, format="png", dpi=120, bbox_inches="tight")
        with atomic_path(self._filepath) as temporary:
            temporary.write_bytes(buffer.getvalue())


class PngDataset(_ImageFileDataset["Image"]):
    """A Pillow image as PNG."""

    def save(self, data: "Image") -> None:
        """Encode the image."""
        with atomic_path(self._filepath) as temporary:
            data.save(temporary, format="PNG")


class TextDataset(FileDataset[str, str]):
    """UTF-8 text, such as an HTML report."""

    def load(self) -> str:
        """Return the text."""
        return self._existing().read_text(encoding="utf-8")

    def save(self, data: str) -> None:
        """Write the text; bytes of file names that are no text are escaped."""
        with atomic_path(self._filepath) as temporary:
            temporary.write_text(encodable(data), encoding="utf-8")


class OptionalTextDataset(TextDataset):
    """Text of an arm that may not have run: an empty one where it has not."""

    def load(self) -> str:
        """Return the text, or ``""``."""
        return super().load() if self._filepath.exists() else ""
