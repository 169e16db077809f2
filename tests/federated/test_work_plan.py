"""Who trains and for how many steps, against cases computed by hand."""

import pytest

from phoenix_pipeline.config import FederationConfig, LocalWorkConfig
from phoenix_pipeline.federated.work_plan import (
    cap_counts,
    plan_steps,
    round_size,
    select_clients,
)


def test_images_per_round_are_shared_in_proportion_and_add_up() -> None:
    work = LocalWorkConfig(unit="images_per_round", amount=1000)
    assert plan_steps({0: 100, 1: 300, 2: 600}, work, batch_size=10) == {0: 10, 1: 30, 2: 60}


def test_every_client_gets_at_least_one_step() -> None:
    work = LocalWorkConfig(unit="images_per_round", amount=64)
    assert plan_steps({0: 1, 1: 1000}, work, batch_size=64) == {0: 1, 1: 1}


def test_epochs_and_steps() -> None:
    sizes = {0: 64, 1: 160}
    assert plan_steps(sizes, LocalWorkConfig(unit="epochs", amount=2), 32) == {0: 4, 1: 10}
    assert plan_steps(sizes, LocalWorkConfig(unit="steps", amount=7), 32) == {0: 7, 1: 7}
    # To the nearest number of batches: 1.25 and 1.75 of them, and never none.
    assert plan_steps({0: 40, 1: 56, 2: 3}, LocalWorkConfig(unit="epochs", amount=1), 32) == {
        0: 1, 1: 2, 2: 1
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fraction", "least", "connected", "size"),
    [(0.25, 1, 10, 3), (0.5, 5, 10, 5), (0.5, 5, 20, 10), (0.5, 5, 4, 4), (0.01, 1, 3, 1)],
)
def test_a_round_has_the_ceiling_of_the_fraction_and_no_fewer_than_asked_for(
    fraction: float, least: int, connected: int, size: int
) -> None:
    config = FederationConfig(client_fraction=fraction, min_clients_per_round=least)
    assert round_size(connected, config) == size


def test_clients_are_chosen_in_turns_in_an_order_drawn_for_each_turn() -> None:
    # Four rounds make a turn, the last of which has two places left.
    drawn = [select_clients(range(10), 3, seed=1, server_round=r) for r in range(1, 41)]
    assert all(len(set(chosen)) == 3 and chosen == sorted(chosen) for chosen in drawn)
    for first in range(0, 40, 4):
        turn = drawn[first : first + 4]
        assert sorted(c for chosen in turn[:3] for c in chosen) == sorted(set().union(*turn[:3]))
        assert set().union(*turn) == set(range(10))
        assert set(turn[3]) - set(turn[0]) == set(range(10)) - set().union(*turn[:3])
    assert len(set(map(tuple, drawn))) > 20
    assert drawn[0] == select_clients(range(10), 3, seed=1, server_round=1)
    assert drawn != [select_clients(range(10), 3, seed=2, server_round=r) for r in range(1, 41)]
    assert select_clients(range(10), 10, seed=1, server_round=1) == list(range(10))


@pytest.mark.parametrize(
    ("claimed", "counted"),
    [
        ({0: 100, 1: 90, 2: 10**9}, {0: 100, 1: 90, 2: 1000}),
        # Of two, neither can raise the median.
        ({5: 10**9, 4: 30}, {4: 30, 5: 300}),
        ({0: 7, 1: 60, 2: 50}, {0: 7, 1: 60, 2: 50}),
        ({}, {}),
    ],
)
def test_a_claimed_count_is_capped_by_the_median(
    claimed: dict[int, int], counted: dict[int, int]
) -> None:
    assert cap_counts(claimed, 10.0) == counted
    assert list(cap_counts(claimed, 10.0)) == sorted(claimed)


def test_a_claimed_count_leaves_the_others_their_work() -> None:
    claimed = {client: 100 for client in range(9)} | {9: 10**9}
    work = LocalWorkConfig(unit="images_per_round", amount=1900)
    steps = plan_steps(cap_counts(claimed, 10.0), work, batch_size=10)
    assert steps == {**dict.fromkeys(range(9), 10), 9: 100}
