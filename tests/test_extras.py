"""The command that installs an extra works where the package came from: a clone, or a wheel."""

from pathlib import Path

import pytest

from phoenix_pipeline import extras


def test_in_a_clone_the_folder_is_installed() -> None:
    assert extras.how_to_install("ray") == (
        "`.venv/bin/uv pip install -e '.[ray]'` in the project's folder"
    )


def test_elsewhere_it_is_the_file_that_the_package_came_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(extras, "_CLONE", tmp_path)
    monkeypatch.setattr(extras, "version", lambda name: "1.2.3")
    assert extras.how_to_install("lora") == (
        "`pip install 'phoenix_pipeline-1.2.3-py3-none-any.whl[lora]'` with the wheel's file"
    )
