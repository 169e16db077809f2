"""Images and tables of who holds them."""

import numpy as np
import pandas as pd
import pytest

import phoenix_pipeline as phoenix
from phoenix_pipeline.api.data import complete_partition, partition_settings
from phoenix_pipeline.config import PartitionConfig
from phoenix_pipeline.errors import DataError

DIGITS = "data/01_raw/digits"


def test_a_folder_has_both_splits_and_a_file_is_held_out_from() -> None:
    both = phoenix.read_images(DIGITS)
    named = phoenix.read_images(f"{DIGITS}/train.parquet", f"{DIGITS}/test.parquet")
    assert (both.train.num_images, both.test.num_images) == (1437, 360)
    assert np.array_equal(both.test.images, named.test.images)
    held_out = phoenix.read_images(f"{DIGITS}/train.parquet", test_fraction=0.25, image_size=16)
    assert held_out.test.num_images == 360
    assert held_out.train.images.shape[1:] == (1, 16, 16)
    assert held_out.config.image_size == 16


def test_a_partition_says_how_it_was_made(labelled: phoenix.Images) -> None:
    table = phoenix.partition(labelled, scheme="iid", num_clients=4, seed=3)
    assert table.groupby("client_id").size().tolist() == [10] * 4
    assert partition_settings(table) == {"partition": PartitionConfig(scheme="iid", num_clients=4)}
    assert not table.equals(phoenix.partition(labelled, scheme="iid", num_clients=4, seed=4))


def test_a_table_of_ones_own_is_put_in_order(labelled: phoenix.Images) -> None:
    made = phoenix.partition(labelled, scheme="iid", num_clients=4)
    own = pd.DataFrame(
        made[["image_index", "client_id"]].to_numpy(), columns=["image_index", "client_id"]
    )
    own = own.sample(frac=1, random_state=0)
    assert partition_settings(own) == {}
    pd.testing.assert_frame_equal(complete_partition(own, labelled.train), made)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"client_id": [0]}, "no column image_index"),
        ({"client_id": [0], "image_index": [40]}, "has 40 to 40 .* 0 to 39"),
        ({"client_id": [-1], "image_index": [4]}, r"client_id has -1 to -1 .* from 0"),
        ({"client_id": [0], "image_index": [1.5]}, r"image_index has 1\.5 to 1\.5 \(float64\)"),
        ({"client_id": [], "image_index": []}, "has no rows"),
        ({"client_id": [0, 1], "image_index": [5, 5]}, "gives image 5 away twice"),
    ],
)
def test_a_table_that_cannot_be_is_refused(
    images: phoenix.Images, columns: dict[str, list[int]], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        complete_partition(pd.DataFrame(columns), images.train)
