"""Datasets over all arms at once."""

from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset

from phoenix_pipeline.checkpoints import read_json

Metadata = dict[str, Any] | None


class JsonByArmDataset(AbstractDataset[dict[str, Any], dict[str, Any]]):
    """The JSON files of all arms as one dictionary; a dataset of its own writes each of them.

    ``filepath`` has ``*`` in place of the arm's folder.
    """

    def __init__(self, *, filepath: str, metadata: Metadata = None) -> None:
        """Take a path, made absolute under the project by Kedro, and free-form metadata."""
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> dict[str, Any]:
        """Return arm -> content, of the arms whose file is there."""
        name, root = self._filepath.name, self._filepath.parents[1]
        return {path.parent.name: read_json(path) for path in sorted(root.glob(f"*/{name}"))}

    def save(self, data: dict[str, Any]) -> None:
        """Keep the files as they are: their own datasets have written them."""

    def _exists(self) -> bool:
        return bool(self.load())

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
