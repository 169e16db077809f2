"""The notebooks run on a smoke run's results, train nothing, and are kept without outputs."""

import ast
import json
import os
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.pipelines.project_copy import PROJECT
from tests.pipelines.test_smoke_run import project

__all__ = ["project"]

NAMES = ("01_partition", "02_samples", "03_results")


def read(name: str) -> dict[str, Any]:
    path = PROJECT / "notebooks" / f"{name}.ipynb"
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return notebook


def test_every_notebook_is_listed() -> None:
    assert sorted(path.stem for path in (PROJECT / "notebooks").glob("*.ipynb")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_stripped_and_nothing_is_trained(name: str) -> None:
    cells = [cell for cell in read(name)["cells"] if cell["cell_type"] == "code"]
    assert cells
    for cell in cells:
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        source = "".join(cell["source"])
        assert not any(
            word in source for word in ("train_locally", ".fit(", "session.run", ".save(")
        )


@pytest.mark.parametrize("name", NAMES)
def test_all_that_is_imported_exists(name: str) -> None:
    """The notebooks themselves run in slow tests alone."""
    cells = ["".join(c["source"]) for c in read(name)["cells"] if c["cell_type"] == "code"]
    plain = "\n".join(line for line in "\n".join(cells).splitlines() if not line.startswith("%"))
    imports = [node for node in ast.walk(ast.parse(plain)) if isinstance(node, ast.ImportFrom)]
    assert imports
    for node in imports:
        module = import_module(str(node.module))
        for alias in node.names:
            assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_runs_after_a_smoke_run(project: Path, name: str, monkeypatch: Any) -> None:
    import nbclient
    import nbformat

    monkeypatch.setenv("KEDRO_ENV", "smoke")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(project / "src"), *_inherited()]))
    notebook = nbformat.read(project / "notebooks" / f"{name}.ipynb", as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(project / "notebooks")}}
    )
    client.execute()
    shown = [
        kind
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        for kind in output.get("data", {})
    ]
    assert "image/png" in shown


def _inherited() -> list[str]:
    return [path for path in (os.environ.get("PYTHONPATH"),) if path]
