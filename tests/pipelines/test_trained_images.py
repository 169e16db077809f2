"""Who trained on what: the clients of a simulation, or the sites that there were."""

import numpy as np
import pandas as pd
import pytest

from phoenix_pipeline.arms.training import trained_images
from phoenix_pipeline.config import FederationConfig
from phoenix_pipeline.federated.job import FederatedJob, FederatedResult
from phoenix_pipeline.reporting.partition_figure import draw_partition
from tests.federated.tiny import make_images, settings

# What the coordinator's own images would be divided into: nobody holds these.
IMAGINARY = pd.DataFrame(
    {"client_id": np.arange(40) % 4, "image_index": np.arange(40), "label": 0, "shared": False}
)


def held(engine: str) -> pd.DataFrame:
    job = FederatedJob(make_images(40), IMAGINARY, FederationConfig(engine=engine), settings())
    result = FederatedResult(
        {}, {}, pd.DataFrame(), (0, 2), lambda client: pytest.fail(), num_examples={0: 700, 2: 35}
    )
    return trained_images(job, result)


def test_a_simulation_has_a_row_for_each_image_of_each_client() -> None:
    assert held("in_process").equals(IMAGINARY)


def test_of_a_deployment_the_sites_are_drawn_with_the_images_that_they_told() -> None:
    table = held("deployment")
    assert table["client_id"].value_counts().to_dict() == {0: 700, 2: 35}
    assert set(table["label"]) == set(table["image_index"]) == {-1}
    (axes,) = draw_partition(table).axes
    assert axes.get_title(loc="left") == "735 images held by 2 clients"
