"""The names of the package, what an import costs, and the tutorial as it is written."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import phoenix_pipeline as phoenix
from phoenix_pipeline import api

PROJECT = Path(__file__).parents[2]
TUTORIAL = PROJECT / "docs/python.md"


def test_the_package_has_the_names_of_the_interface() -> None:
    assert phoenix.__all__ == api.__all__
    assert set(phoenix.__all__) <= set(dir(phoenix))
    for name in phoenix.__all__:
        assert getattr(phoenix, name) is getattr(api, name)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        getattr(phoenix, "trian")  # noqa: B009 - the checker of types refuses it, too


def test_type_checkers_know_the_names_and_no_others() -> None:
    body = ast.parse(Path(phoenix.__file__).read_text(encoding="utf-8")).body
    ifs = {ast.unparse(node.test): node.body for node in body if isinstance(node, ast.If)}
    (imported,) = ifs["TYPE_CHECKING"]
    assert ast.unparse(imported) == "from phoenix_pipeline.api import *"
    # Where checkers see it, every misspelt name passes for an attribute of any type.
    assert "def __getattr__" in ast.unparse(ifs["not TYPE_CHECKING"][0])
    assert "__getattr__" not in [getattr(node, "name", "") for node in body]


def loaded_by(code: str) -> set[str]:
    """Return which of the large libraries a fresh interpreter has after ``code``."""
    large = ("torch", "kedro", "mlflow", "flwr", "pandas", "numpy", "diffusers")
    code += f"; import sys; print(*(n for n in {large} if n in sys.modules))"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT
    )
    return set(ended.stdout.split())


def test_the_import_is_light_and_the_interface_knows_no_kedro() -> None:
    assert loaded_by("import phoenix_pipeline") == set()
    assert not loaded_by("import phoenix_pipeline as p; p.train, p.score") & {"kedro", "mlflow"}


@pytest.mark.usefixtures("smoke_defaults")
def test_the_tutorial_runs_as_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(PROJECT / "data/01_raw/digits", tmp_path / "data/01_raw/digits")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", TUTORIAL.read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) == 7
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(TUTORIAL), "exec"), names)
    said = capsys.readouterr().out
    assert "round 2: loss" in said
    assert "fid_pixels" in said
    assert names["samples"].shape == (200, 1, 8, 8)
    assert names["own"].shape == names["first"].shape == (16, 1, 8, 8)
    assert len(names["averaged"].rounds) == 2 * 2
