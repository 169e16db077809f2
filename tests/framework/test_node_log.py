"""Lines about nodes, on a real runner."""

import logging
from pathlib import Path

import pytest
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline, node
from kedro.runner import SequentialRunner

from phoenix_pipeline.framework.datasets import WrittenByNodeDataset
from phoenix_pipeline.framework.node_log import NodeLogHook


def test_a_nodes_time_includes_the_writing_of_its_outputs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def draw(count: int):
        def write(path: Path) -> None:
            logging.getLogger("drawing").info("drew %d", count)
            path.write_text("images")

        return write, count

    hooks = _create_hook_manager()
    hook = NodeLogHook(slow_seconds=0.0)
    hooks.register(hook)
    pipeline = Pipeline([node(draw, "count", ["samples", "seen"], name="draw")])
    catalog = DataCatalog(
        {
            "count": MemoryDataset(3),
            "samples": WrittenByNodeDataset(filepath=str(tmp_path / "samples")),
            "seen": MemoryDataset(),
        }
    )
    hook.before_pipeline_run(pipeline)
    with caplog.at_level(logging.INFO):
        SequentialRunner().run(pipeline, catalog, hooks)
    lines = [r.getMessage() for r in caplog.records if r.name.endswith(("node_log", "drawing"))]
    assert lines == ["[1/1] draw", "drew 3", "draw took 0 s"]
