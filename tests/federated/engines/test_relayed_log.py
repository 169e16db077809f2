"""What the ServerApp logs is seen where somebody waits: at the coordinator's command."""

import logging
from pathlib import Path

import pytest

from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.engines.deployment import _follow
from phoenix_pipeline.federated.engines.exchange import ProgressFile, relayed_log, write_failure
from phoenix_pipeline.federated.program import Watch

SOURCE = logging.getLogger("phoenix_pipeline.federated.engines.node_roster")


class NoSuperLink:
    """It is not asked within the first half minute."""


def test_lines_of_the_server_app_reach_the_coordinator(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    progress = ProgressFile(tmp_path)
    with relayed_log(progress):
        SOURCE.info("round %s/%s: loss %.4f", 1, 6, 0.5)
        SOURCE.warning("client 1 is left out: 100 %")
        logging.getLogger("elsewhere").warning("not ours")
        SOURCE.debug("not asked for")
    SOURCE.info("after the run")
    caplog.clear()
    heard: list[int] = []
    progress.append("round", 1, {"loss": 0.5})
    write_failure(tmp_path, FederationError("over"))
    watch = Watch(on_round=lambda number, means: heard.append(number))
    assert _follow(NoSuperLink(), 7, tmp_path, watch, 1.0) is None  # type: ignore[arg-type]
    assert [(r.name, r.levelno, r.getMessage()) for r in caplog.records] == [
        (SOURCE.name, logging.INFO, "round 1/6: loss 0.5000"),
        (SOURCE.name, logging.WARNING, "client 1 is left out: 100 %"),
    ]
    assert heard == [1]
