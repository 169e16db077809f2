"""Kedro datasets whose files are complete or absent, most with a preview for kedro-viz.

``metadata: {mlflow: artifact}`` or ``{mlflow: metrics}`` in a catalog entry also logs what was
saved to the arm's MLflow run (see ``tracking.py``). Heavy libraries are imported when needed.
"""

import base64
import html
import json
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar

from kedro.io import AbstractDataset, AbstractVersionedDataset, DatasetError, Version
from kedro_datasets._typing import ImagePreview, JSONPreview

from phoenix_pipeline.checkpoints import atomic_path
from phoenix_pipeline.errors import DataError, StorageError
from phoenix_pipeline.images import encodable
from phoenix_pipeline.json_files import read_json

In = TypeVar("In")
Out = TypeVar("Out")
Metadata = dict[str, Any] | None

# By the kind of dataset: what is saved with unless the catalog says otherwise.
_SAVE_ARGS: dict[str, dict[str, Any]] = {
    "pandas.ParquetDataset": {"index": False},
    "json.JSONDataset": {"indent": 2, "allow_nan": False},
    "matplotlib.MatplotlibDataset": {"format": "png", "dpi": 120, "bbox_inches": "tight"},
}
_BY_SUFFIX = {
    ".csv": "pandas.CSVDataset",
    ".parquet": "pandas.ParquetDataset",
    ".png": "matplotlib.MatplotlibDataset",
    ".md": "text.TextDataset",
    ".tex": "text.TextDataset",
}
_SENTENCES = re.compile(r'<p class="result">(.*?)</p>', re.DOTALL)


class WholeFileDataset(AbstractVersionedDataset[Any, Any]):
    """A file of a dataset of Kedro's own: complete or absent, and a broken one is told in a line.

    Names in files that are no Unicode are escaped in text.
    """

    def __init__(
        self,
        *,
        filepath: str,
        dataset: str,
        if_missing: Literal["error", "empty", "path"] = "error",
        version: Version | None = None,
        metadata: Metadata = None,
        **arguments: Any,
    ) -> None:
        """Take a path, made absolute under the project by Kedro, and free-form metadata.

        ``dataset``: its kind, such as ``pandas.ParquetDataset``. ``if_missing``: what to load where
        there is no file: ``error``, something ``empty`` of its kind, or the ``path``, which is then
        loaded in any case, for those who copy it. ``version``: which version to load and save;
        None: the one file. ``arguments``: of the kind of dataset: ``save_args``, ``load_args``,
        ``credentials``, ...
        """
        super().__init__(PurePosixPath(filepath), version)
        self.metadata = metadata
        self._kind, self._if_missing, self._arguments = dataset, if_missing, arguments

    @property
    def preview(self) -> Callable[..., object]:
        """The kind's own preview; AttributeError where it has none, or there is no version yet."""
        try:
            standard: Any = self._at(self._get_load_path())
        except DatasetError as error:
            raise AttributeError(str(error)) from error
        preview: Callable[..., object] = standard.preview
        return preview

    def load(self) -> Any:
        """Return the content; raises DataError for a file that is broken or not there."""
        path = Path(self._get_load_path() if self._version else self._filepath)
        if self._if_missing == "path":
            return path
        if not path.exists():
            return self._missing(path)
        try:
            return self._at(path).load()
        except DatasetError as error:
            lines = str(error.__cause__ or error).splitlines() or [""]
            raise DataError(
                f"{path} cannot be read: {lines[0]}; delete it and run again"
            ) from error

    def save(self, data: Any) -> None:
        """Write the file; raises StorageError where that is not possible in full."""
        with atomic_path(Path(self._get_save_path())) as temporary:
            try:
                self._at(temporary).save(encodable(data) if isinstance(data, str) else data)
            except DatasetError as error:
                raise error.__cause__ or error from error

    def _at(self, path: Path | PurePosixPath) -> AbstractDataset[Any, Any]:
        """Return the standard dataset of ``path``."""
        own = {**_SAVE_ARGS.get(self._kind, {}), **self._arguments.get("save_args", {})}
        saving = {"save_args": own} if own else {}
        config = {**self._arguments, **saving, "type": self._kind, "filepath": str(path)}
        return AbstractDataset.from_config(path.name, config)

    def _missing(self, path: Path) -> Any:
        if self._if_missing == "error":
            raise _missing_input(path)
        if self._kind.startswith("pandas."):
            import pandas as pd

            return pd.DataFrame()
        return {} if self._kind.startswith("json.") else ""

    def _exists(self) -> bool:
        try:
            return Path(self._get_load_path()).exists()
        except DatasetError:
            return False

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "dataset": self._kind, "version": self._version}


def file_of(path: Path) -> WholeFileDataset:
    """Return the dataset of a table, a figure or a text by its suffix."""
    return WholeFileDataset(filepath=str(path), dataset=_BY_SUFFIX[path.suffix])


class PictureDataset(WholeFileDataset):
    """A ``pillow.ImageDataset`` that kedro-viz shows; to be loaded as a path."""

    @property
    def preview(self) -> Callable[[], ImagePreview]:
        """Return the PNG in base64."""
        return self._show

    def _show(self) -> ImagePreview:
        return ImagePreview(base64.b64encode(self.load().read_bytes()).decode("ascii"))


class ReportDataset(WholeFileDataset):
    """The report; kedro-viz cannot show a page, so it shows the sentences at the page's top."""

    @property
    def preview(self) -> Callable[[], JSONPreview]:
        """Return what came out, and where the page lies."""
        return self._show

    def _show(self) -> JSONPreview:
        found = _SENTENCES.search(self.load())
        sentence = html.unescape(found[1]) if found else ""
        return JSONPreview(json.dumps({"what came out": sentence, "page": str(self._filepath)}))


class FileDataset(AbstractDataset[In, Out]):
    """A dataset that is one local file or folder."""

    def __init__(self, *, filepath: str, metadata: Metadata = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def _exists(self) -> bool:
        return self._filepath.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}

    def _existing(self) -> Path:
        if not self._filepath.exists():
            raise _missing_input(self._filepath)
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


class JsonByArmDataset(FileDataset[dict[str, Any], dict[str, Any]]):
    """The JSON files of all arms as one dictionary; a dataset of its own writes each of them.

    ``filepath`` has ``*`` in place of the arm's folder.
    """

    def load(self) -> dict[str, Any]:
        """Return arm -> content, of the arms whose file is there."""
        name, root = self._filepath.name, self._filepath.parents[1]
        return {path.parent.name: read_json(path) for path in sorted(root.glob(f"*/{name}"))}

    def save(self, data: dict[str, Any]) -> None:
        """Keep the files as they are: their own datasets have written them."""

    def _exists(self) -> bool:
        return bool(self.load())


def _missing_input(path: Path) -> DataError:
    return DataError(
        f"{path} does not exist; an earlier stage writes it: run `kedro run`, or `kedro run "
        "--pipelines` with that stage as well"
    )
