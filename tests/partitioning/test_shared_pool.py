"""Pool sizes and shares against hand-computed cases."""

import numpy as np
import pandas as pd
import pytest

from phoenix_pipeline.config import SharedPoolConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.partitioning import draw_shared_pool

# 4 clients of 50 images; client c holds class c % 2: 100 images of each of 2 classes.
PARTITION = pd.DataFrame(
    {
        "client_id": np.repeat(np.arange(4, dtype=np.int32), 50),
        "image_index": np.arange(200),
        "label": np.repeat([0, 1, 0, 1], 50),
    }
)


def draw(partition=PARTITION, seed=0, num_classes=2, **settings):
    return draw_shared_pool(partition, SharedPoolConfig(**settings), seed, num_classes)


def held(result, client):
    return result.training[result.training["client_id"] == client]


def test_sizes_balance_and_shares():
    result = draw(beta=0.1, alpha=0.3)
    assert len(result.pool) == 20 == len(set(result.pool))  # 0.1 x 200
    assert (result.pool < 50).sum() + ((result.pool >= 100) & (result.pool < 150)).sum() == 10
    assert result.shares.groupby("client_id").size().tolist() == [6, 6, 6, 6]  # 0.3 x 20
    assert result.shares["image_index"].isin(result.pool).all()
    assert not result.shares.duplicated().any()
    drawn = [tuple(share["image_index"]) for _, share in result.shares.groupby("client_id")]
    assert len(set(drawn)) == 4
    assert result.shares.dtypes.astype(str).tolist() == ["int32", "int64"]


def test_training_is_own_images_and_share_without_repeats():
    result = draw(beta=0.2, alpha=0.5)
    for client in range(4):
        own = set(range(50 * client, 50 * client + 50))
        share = set(result.shares.loc[result.shares["client_id"] == client, "image_index"])
        rows = held(result, client)
        assert len(rows) == len(own | share) and set(rows["image_index"]) == own | share
        assert set(rows.loc[rows["shared"], "image_index"]) == share - own
        assert (rows["label"] == PARTITION["label"].loc[rows["image_index"]].to_numpy()).all()


@pytest.mark.parametrize("settings", [{"source": "held_out"}, {"keep_private_copy": False}])
def test_pool_images_leave_their_owners(settings):
    result = draw(beta=0.2, alpha=0.5, **settings)
    for client in range(4):
        rows, pool = held(result, client), set(result.pool)
        own = set(range(50 * client, 50 * client + 50)) - pool
        assert set(rows.loc[~rows["shared"], "image_index"]) == own
        assert rows["shared"].sum() == 16  # 0.5 x 33 to the even number, all of them received
    private = result.training[~result.training["shared"]]
    # Zhao et al. 2018: beta is the pool over what the clients hold beside it, 33 / 167 = 0.198.
    assert len(private) == 167 and not private["image_index"].isin(result.pool).any()


@pytest.mark.parametrize("beta", [0.05, 0.1, 0.25, 0.6])
@pytest.mark.parametrize("settings", [{}, {"source": "held_out"}, {"keep_private_copy": False}])
def test_beta_is_the_pool_over_what_clients_hold(beta, settings):
    result = draw(beta=beta, **settings)
    private = (~result.training["shared"]).sum()
    # One image more or less moves the ratio by at most (1 + beta) / private.
    assert len(result.pool) / private == pytest.approx(beta, abs=0.5 * (1 + beta) / private)


def test_beta_zero_changes_nothing():
    result = draw(beta=0.0, alpha=1.0, source="held_out")
    assert len(result.pool) == len(result.shares) == 0
    assert result.training[["client_id", "image_index", "label"]].equals(
        PARTITION.astype({"label": np.int64})
    )
    assert not result.training["shared"].any()


def test_alpha_ends():
    everything = draw(beta=0.1, alpha=1.0)
    for client in range(4):
        share = everything.shares[everything.shares["client_id"] == client]
        assert share["image_index"].tolist() == everything.pool.tolist()
    nothing = draw(beta=0.1, alpha=0.0)
    assert len(nothing.pool) == 20 and len(nothing.shares) == 0
    assert len(nothing.training) == 200


def test_draws_are_seeded_and_nest():
    first, again, other = draw(beta=0.1), draw(beta=0.1), draw(beta=0.1, seed=1)
    assert first.pool.tolist() == again.pool.tolist() != other.pool.tolist()
    assert first.training.equals(again.training)
    assert set(first.pool) < set(draw(beta=0.2).pool)
    less, more = draw(beta=0.1, alpha=0.2).shares, draw(beta=0.1, alpha=0.6).shares
    assert len(less.merge(more)) == len(less) == 16


def test_a_small_class_gives_all_it_has_and_the_others_fill_up():
    partition = PARTITION.assign(label=np.repeat([0, 1, 2], [5, 95, 100]))
    pool = draw(partition, num_classes=3, beta=0.2).pool
    assert np.bincount(partition["label"][pool]).tolist() == [5, 18, 17]


def test_unbalanced_pool_follows_the_data_and_needs_no_labels():
    partition = PARTITION.assign(label=-1)
    assert len(draw(partition, beta=0.5, class_balanced=False).pool) == 100
    skewed = PARTITION.assign(label=(np.arange(200) >= 180).astype(int))
    pool = draw(skewed, beta=0.9, class_balanced=False).pool
    assert 10 <= (pool >= 180).sum() <= 20
    assert np.bincount(skewed["label"][draw(skewed, beta=0.2).pool]).tolist() == [20, 20]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 0.004, "num_classes": 2}, "a pool of 1, fewer than one .*[.]beta from 0.01"),
        ({"beta": 0.004, "source": "held_out"}, "a pool of 1, .*[.]beta from 0.0102"),
        ({"beta": 0.002, "class_balanced": False}, "a pool of 0; possible is .*beta from 0.005"),
        ({"beta": 0.05, "alpha": 0.01}, "a pool of 10 images gives no client any; .* from 0.1 "),
        ({"beta": 0.99, "alpha": 0.0, "source": "held_out", "partition": "one"},
         "client [0-9]+ would have nothing to train on"),
    ],
)  # fmt: skip
def test_impossible_pools_say_what_would_be_possible(settings, message):
    one = PARTITION.assign(client_id=np.arange(200), label=0)
    partition = one if settings.pop("partition", "") == "one" else PARTITION
    with pytest.raises(SettingsError, match=message):
        draw(partition, **settings)


def test_a_pool_of_images_without_labels_is_drawn_at_random():
    unlabelled = PARTITION.assign(label=-1)
    pool = draw(unlabelled, beta=0.2).pool
    assert pool.tolist() == draw(unlabelled, beta=0.2, class_balanced=False).pool.tolist()


def test_what_the_refusals_name_is_indeed_possible():
    assert len(draw(beta=0.01, alpha=1.0).pool) == 2
    assert len(draw(beta=0.0102, alpha=1.0, source="held_out").pool) == 2
    assert len(draw(beta=0.005, alpha=1.0, class_balanced=False).pool) == 1
    assert len(draw(beta=0.05, alpha=0.1).shares) == 4
