"""Whom ``partition.png`` shows: simulated clients, or nobody where the clients are sites."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.pipelines.partition.nodes import plot_partition
from phoenix_pipeline.reporting.partition_figure import THE_SITES_ARE_THE_CLIENTS

IMAGES = ImageSet(np.zeros((4, 1, 8, 8), np.uint8), np.array([0, 0, 1, 1]), ("a", "b"))
PARTITION = pd.DataFrame(
    {"client_id": [0, 0, 1, 1], "image_index": range(4), "label": [0, 0, 1, 1]}
)


def parameters(**engines: str) -> dict[str, Any]:
    blocks = {arm: {"federation": {"engine": engine}} for arm, engine in engines.items()}
    pooled = {"federation": {"pooled": True}}
    return {"arms": dict.fromkeys([*engines, "centralized"]), "centralized": pooled, **blocks}


@pytest.mark.parametrize(
    ("engines", "is_sentence"),
    [
        ({"fedavg": "deployment", "phoenix": "deployment"}, True),
        ({"fedavg": "deployment", "phoenix": "in_process"}, False),
        ({"fedavg": "in_process"}, False),
    ],
)
def test_sites_are_not_drawn_as_clients_of_ours(engines: dict[str, str], is_sentence: bool) -> None:
    figure = plot_partition(PARTITION, IMAGES, parameters(**engines))
    sentences = [text.get_text() for text in figure.texts]
    assert (sentences == [THE_SITES_ARE_THE_CLIENTS]) == is_sentence
    assert bool(figure.axes) != is_sentence
