"""Every image in exactly one client, each scheme's promise, and refusals that say what would do."""

import numpy as np
import pytest

from phoenix_pipeline.config import PartitionConfig
from phoenix_pipeline.errors import DataError, SettingsError
from phoenix_pipeline.partitioning import partition_clients
from phoenix_pipeline.seeding import derive_seed

# 10 classes of unequal size, sorted by class: an iid draw that does not shuffle would show.
LABELS = np.repeat(np.arange(10), [142, 145, 142, 146, 145, 146, 145, 143, 139, 144])


def divide(labels=LABELS, seed=0, **settings):
    num_images = 200 if labels is None else len(labels)
    return partition_clients(labels, num_images, PartitionConfig(**settings), seed)


def sizes(partition):
    return partition.groupby("client_id").size().to_numpy()


@pytest.mark.parametrize("scheme", ["iid", "pathological", "dirichlet", "quantity"])
def test_a_table_of_every_image_once_the_same_for_the_same_seed(scheme):
    partition = divide(scheme=scheme)
    assert partition.dtypes.astype(str).to_dict() == {
        "client_id": "int32", "image_index": "int64", "label": "int64"
    }  # fmt: skip
    assert sorted(partition["image_index"]) == list(range(len(LABELS)))
    assert np.array_equal(partition["label"], LABELS[partition["image_index"]])
    ordered = partition.sort_values(["client_id", "image_index"], ignore_index=True)
    assert partition.equals(ordered)
    assert set(partition["client_id"]) == set(range(10))
    assert partition.equals(divide(scheme=scheme))
    assert not partition.equals(divide(scheme=scheme, seed=1))


def test_iid_is_shuffled_and_even():
    partition = divide(scheme="iid")
    assert set(sizes(partition)) == {143, 144}
    counts = partition.groupby(["client_id", "label"]).size().unstack(fill_value=0)
    assert counts.to_numpy().min() >= 3 and counts.to_numpy().max() <= 30


@pytest.mark.parametrize(("num_clients", "k"), [(10, 2), (10, 1), (3, 4), (15, 2), (7, 3), (4, 10)])
def test_pathological_gives_k_classes_evenly(num_clients, k):
    partition = divide(num_clients=num_clients, classes_per_client=k)
    counts = partition.groupby(["client_id", "label"]).size().unstack(fill_value=0).to_numpy()
    assert ((counts > 0).sum(axis=1) == k).all()
    owners = (counts > 0).sum(axis=0)
    assert owners.min() >= 1 and owners.max() - owners.min() <= 1
    # Each owner gets at least half of an equal share of its class.
    assert (counts[counts > 0] >= np.broadcast_to(LABELS_PER_CLASS // (2 * owners),
                                                  counts.shape)[counts > 0]).all()  # fmt: skip


LABELS_PER_CLASS = np.bincount(LABELS)


def test_pathological_balances_client_sizes():
    # Two clients of two of three classes of 100: one class is shared, and halving it balances.
    labels = np.repeat(np.arange(3), 100)
    assert sizes(divide(labels, num_clients=2, classes_per_client=2)).tolist() == [150, 150]
    assert np.ptp(sizes(divide(num_clients=15, classes_per_client=2))) <= 5
    assert np.ptp(sizes(divide(num_clients=7, classes_per_client=3))) <= 2


def test_pathological_leaves_each_owner_half_of_an_equal_share_of_a_small_class():
    # Equal clients would take all of the small classes from those who share the large one.
    labels = np.repeat(np.arange(3), [1000, 30, 30])
    partition = divide(labels, num_clients=3, classes_per_client=2)
    counts = partition.groupby(["client_id", "label"]).size().unstack(fill_value=0).to_numpy()
    assert counts.sum(axis=0).tolist() == [1000, 30, 30]
    for label, size in enumerate([1000, 30, 30]):
        owned = counts[counts[:, label] > 0, label]
        assert len(owned) == 2 and owned.min() >= size // 4


def test_pathological_where_flwr_datasets_would_leave_classes_out():
    from datasets import Dataset
    from flwr_datasets.partitioner import PathologicalPartitioner

    theirs = PathologicalPartitioner(3, "label", 4, class_assignment_mode="deterministic")
    theirs.dataset = Dataset.from_dict({"label": LABELS})
    with pytest.warns(UserWarning, match="will NOT be used"):
        reached = {label for client in range(3) for label in theirs.load_partition(client)["label"]}
    assert len(reached) == 6
    assert divide(num_clients=3, classes_per_client=4)["label"].nunique() == 10


def test_dirichlet_skew_grows_as_alpha_falls():
    def entropy(alpha):
        counts = divide(scheme="dirichlet", dirichlet_alpha=alpha, num_clients=5,
                        min_images_per_client=1).groupby(["client_id", "label"]).size()  # fmt: skip
        shares = (counts / counts.groupby("client_id").sum()).unstack(fill_value=0).to_numpy()
        return -(shares * np.log(np.maximum(shares, 1e-12))).sum(axis=1).mean() / np.log(10)

    assert entropy(0.1) < 0.6 < entropy(1.0) < 0.95 < entropy(1000.0)


@pytest.mark.parametrize("scheme", ["iid", "pathological", "dirichlet", "quantity"])
def test_images_of_a_class_are_spread_over_its_owners_whatever_their_order(scheme):
    # Rank of each image within its class, in file order, as a share of the class. Among a client's
    # n images of a class its mean is 1/2 with variance 1/(12 n) by chance; blocks are far from it.
    squares = []
    for seed in range(5):
        partition = divide(scheme=scheme, seed=seed, num_clients=5, classes_per_client=6)
        for _, of_class in partition.groupby("label"):
            rank = (of_class["image_index"].rank() - 0.5) / len(of_class)
            for _, own in rank.groupby(of_class["client_id"]):
                rest = 1 - len(own) / len(of_class)
                if rest > 0:
                    squares.append((own.mean() - 0.5) ** 2 * 12 * len(own) / rest)
    assert 0.7 < np.mean(squares) < 1.4


def test_dirichlet_shares_are_those_that_were_drawn():
    # Balancing client sizes, flwr-datasets' default, would give another distribution.
    partition = divide(
        scheme="dirichlet", dirichlet_alpha=0.3, num_clients=5, min_images_per_client=1, seed=4
    )
    counts = partition.groupby(["label", "client_id"]).size().unstack(fill_value=0).to_numpy()
    generator = np.random.default_rng(derive_seed(4, "partition_dirichlet"))
    for size, of_class in zip(np.bincount(LABELS), counts, strict=True):
        ends = (np.cumsum(generator.dirichlet(np.full(5, 0.3))) * size).astype(int)
        ends[-1] = size
        assert of_class.tolist() == np.diff(ends, prepend=0).tolist()


def test_quantity_skew_keeps_classes_and_the_minimum():
    partition = divide(scheme="quantity", quantity_alpha=0.1, min_images_per_client=20)
    assert sizes(partition).min() >= 20 and sizes(partition).max() > 300
    largest = partition[partition["client_id"] == sizes(partition).argmax()]
    assert largest["label"].value_counts(normalize=True).max() < 0.2
    assert np.ptp(sizes(divide(scheme="quantity", quantity_alpha=1e6))) <= 2


@pytest.mark.parametrize("scheme", ["iid", "quantity"])
def test_unlabelled_images(scheme):
    partition = divide(None, scheme=scheme)
    assert sorted(partition["image_index"]) == list(range(200))
    assert set(partition["label"]) == {-1}


SMALL = np.repeat(np.arange(5), [10, 10, 10, 10, 3])
REFUSED = {
    "k over classes": (
        SMALL, {"num_clients": 3, "classes_per_client": 6}, "have 5 classes; 1 to 5 are possible"
    ),
    "classes left out": (
        SMALL, {"num_clients": 2, "classes_per_client": 2},
        r"cover 4 of 5 classes .*classes_per_client from 3 or partition\.num_clients from 3",
    ),
    "small class": (
        SMALL, {"num_clients": 20, "classes_per_client": 1, "min_images_per_client": 1},
        "need 4 images of every class, but the smallest class has 3; .* up to 15",
    ),
    "clients": (SMALL, {"num_clients": 44}, "there are 43 images; at most 43 clients"),
    "minimum": (
        SMALL, {"num_clients": 10, "min_images_per_client": 5},
        r"need 50, but there are 43; .*num_clients up to 8 or .*min_images_per_client up to 4",
    ),
    "minimum of a draw": (
        SMALL, {"num_clients": 5, "classes_per_client": 1, "min_images_per_client": 8},
        r"client \d would get 3 images, fewer than .* = 8; possible is up to 3",
    ),
    "no labels pathological": (None, {"num_clients": 2}, "needs labels .*scheme iid and quantity"),
    "no labels dirichlet": (None, {"scheme": "dirichlet"}, "'dirichlet' needs labels"),
    "dirichlet": (
        LABELS, {"scheme": "dirichlet", "dirichlet_alpha": 0.01, "num_clients": 50},
        r"no draw from Dirichlet\(0\.01\) over 50 clients .* = 8 images; possible are "
        r"partition\.dirichlet_alpha of about \d",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", REFUSED)
def test_impossible_requests_say_what_would_be_possible(name):
    labels, settings, message = REFUSED[name]
    with pytest.raises(SettingsError, match=message) as caught:
        divide(labels, **settings)
    assert "\n" not in str(caught.value)


def test_what_the_refusals_name_is_indeed_possible():
    assert divide(SMALL, num_clients=3, classes_per_client=2, min_images_per_client=1) is not None
    assert len(divide(SMALL, num_clients=15, classes_per_client=1, min_images_per_client=1)) == 43
    assert sizes(divide(SMALL, scheme="iid", num_clients=8, min_images_per_client=5)).min() == 5


def test_labels_must_be_as_many_as_images():
    with pytest.raises(DataError, match="5 labels were given for 6 images"):
        partition_clients(np.arange(5), 6, PartitionConfig(), 0)


def test_a_thousand_clients():
    labels = np.arange(50_000) % 10
    partition = divide(labels, num_clients=1000, classes_per_client=2)
    assert sizes(partition).min() >= 45 and sizes(partition).max() <= 55
