"""Garbage is looked for rarely while a command starts, and as ever while its nodes run."""

import gc
from pathlib import Path

import pytest
from click.testing import CliRunner

from phoenix_pipeline.cli import run
from phoenix_pipeline.framework import garbage


@pytest.mark.usefixtures("project")
def test_nodes_have_the_usual_threshold_and_what_was_imported_is_left_out() -> None:
    for split in ("train", "test"):
        Path(f"data/01_raw/{split}.parquet").write_text("never opened")
    garbage.look_rarely()
    assert gc.get_threshold() == (50_000, *garbage._USUAL[1:])
    gc.unfreeze()
    assert CliRunner().invoke(run, ["--pipelines", "shared"]).exit_code == 0
    assert gc.get_threshold() == garbage._USUAL
    frozen = gc.get_freeze_count()
    assert frozen > 100_000
    # A process that goes on to run others keeps no more of them.
    assert CliRunner().invoke(run, ["--pipelines", "shared"]).exit_code == 0
    assert gc.get_freeze_count() <= frozen
