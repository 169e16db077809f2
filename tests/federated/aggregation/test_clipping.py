"""Norm clipping against updates scaled by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from phoenix_pipeline.config import (
    AggregationConfig,
    ClipNormConfig,
    FederationConfig,
    TrainingConfig,
)
from phoenix_pipeline.federated.aggregation import build_aggregation, clipping
from phoenix_pipeline.federated.aggregation.clipping import (
    ClippedUpdates,
    norm_of_this_round,
)
from tests.federated.tiny import client_table, federate, interrupt, same, settings

START = {"w": torch.tensor([1.0, 1.0]), "var": torch.tensor([2.0]), "count": torch.tensor(10)}


def moved(w: tuple[float, float], var: float = 0.0, count: int = 0) -> dict[str, Tensor]:
    return {
        "w": START["w"] + torch.tensor(w),
        "var": START["var"] + var,
        "count": START["count"] + count,
    }


def aggregate(given: list[tuple[dict[str, Tensor], float]], **clip: object) -> dict[str, Tensor]:
    config = AggregationConfig(clip_norm=ClipNormConfig(**clip))
    rule = build_aggregation(FederationConfig(aggregation=config), START, 0, 1)
    for arrays, weight in given:
        rule.add(arrays, weight)
    return rule.result()


def test_a_long_update_is_scaled_to_the_bound_and_a_short_one_is_not() -> None:
    # Norms 10 and 0.5; the first is halved, buffers and counts included.
    result = aggregate([(moved((6.0, 8.0), count=6), 1), (moved((0.3, 0.4)), 3)], bound=5.0)
    torch.testing.assert_close(result["w"], torch.tensor([1.975, 2.3]))
    assert result["count"].item() == 11  # (13 + 3 x 10) / 4 = 10.75, rounded


def test_statistics_count_in_the_norm_and_are_scaled() -> None:
    result = aggregate([(moved((3.0, 0.0), var=4.0, count=5), 1)], bound=1.0)
    torch.testing.assert_close(result["w"], torch.tensor([1.6, 1.0]))
    torch.testing.assert_close(result["var"], torch.tensor([2.8]))
    assert result["count"].item() == 11
    assert result["count"].dtype == torch.int64


def test_an_update_within_the_bound_keeps_its_bits() -> None:
    given = [({**START, "w": torch.tensor([1.1, 1.2])}, 1.0)]
    assert torch.equal(aggregate(given, bound=0.5)["w"], torch.tensor([1.1, 1.2]))


@pytest.mark.parametrize(("multiple", "bound"), [(1.0, 2.0), (1.5, 3.0)])
def test_a_bound_in_medians_follows_the_round(multiple: float, bound: float) -> None:
    norms = (1.0, 2.0, 100.0)
    given = [(moved((norm, 0.0)), 1.0) for norm in norms]
    result = aggregate(given, bound=multiple, unit="median")
    expected = 1.0 + sum(min(norm, bound) for norm in norms) / 3
    torch.testing.assert_close(result["w"], torch.tensor([expected, 1.0]))


def test_the_bound_of_the_last_round_is_streamed_and_the_first_takes_its_own() -> None:
    config = FederationConfig(
        aggregation=AggregationConfig(clip_norm=ClipNormConfig(bound=2.0, unit="last_median"))
    )
    first = build_aggregation(config, START, 0, 1)
    assert isinstance(first, ClippedUpdates)
    for norm in (1.0, 2.0, 100.0):
        first.add(moved((norm, 0.0)), 1.0)
    torch.testing.assert_close(first.result()["w"][0].item(), 1 + (1 + 2 + 4) / 3)
    assert first.next_clip_norm() == pytest.approx(2.0)

    second = build_aggregation(config, START, 0, 2, last_norm=first.next_clip_norm())
    assert isinstance(second, ClippedUpdates)
    for norm in (1000.0, 0.5, 3.0):
        second.add(moved((norm, 0.0)), 1.0)
    torch.testing.assert_close(second.result()["w"][0].item(), 1 + (4 + 0.5 + 3) / 3)
    # Norms count as they came, so that a bound that was too small grows again.
    assert second.next_clip_norm() == pytest.approx(3.0)


def test_the_norm_is_that_of_all_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clipping, "BLOCK", 2)
    template = {"a": torch.ones(3, 2), "b": torch.zeros(1)}
    moved = {"a": torch.tensor([[2.0, 3.0], [1.0, 5.0], [1.0, 1.0]]), "b": torch.tensor([10.0])}
    # 1 + 4 + 16 + 100
    assert clipping.update_norm(moved, template) == 11.0


def test_a_round_in_which_nothing_moved_leaves_no_bound_of_zero() -> None:
    config = FederationConfig(
        aggregation=AggregationConfig(clip_norm=ClipNormConfig(bound=2.0, unit="last_median"))
    )
    for last_norm in (None, 1.0):
        rule = build_aggregation(config, START, 0, 2, last_norm=last_norm)
        rule.add(START, 1.0)
        assert isinstance(rule, ClippedUpdates)
        assert rule.next_clip_norm() is None


def test_the_bound_of_the_last_round_survives_a_restart(tmp_path: Path) -> None:
    clip = ClipNormConfig(bound=0.5, unit="last_median")
    options = {
        "aggregation": AggregationConfig(clip_norm=clip),
        "client_images": client_table((12, 12, 24)),
        "settings": settings(optimizer_state="keep"),
        "rounds": 3,
    }
    whole = federate(tmp_path / "whole", **options)
    interrupt(tmp_path / "cut", after=1, **options)
    assert same(federate(tmp_path / "cut", **options).raw, whole.raw)
    own = AggregationConfig(clip_norm=clip.model_copy(update={"unit": "median"}))
    assert not same(federate(tmp_path / "own", **options | {"aggregation": own}).raw, whole.raw)


def federation(**options: object) -> FederationConfig:
    return FederationConfig.model_validate(options)


@pytest.mark.parametrize(
    ("options", "bound"),
    [
        ({}, 2.0),
        ({"aggregation": {"clip_norm": {"bound": None}}}, None),
        ({"aggregation": {"rule": "median"}}, None),
        ({"pooled": True}, None),
        ({"compression": {"partial_update": "usplit"}}, None),
        (
            {
                "differential_privacy": {"enabled": True, "noise_multiplier": 1.0, "delta": 0.01},
                "local_work": {"unit": "steps", "amount": 1},
            },
            None,
        ),
    ],
)
def test_a_mean_of_a_federations_replies_has_a_bound_by_default(
    options: dict[str, object], bound: float | None
) -> None:
    assert federation(**options).clip_norm.bound == bound


def test_by_default_a_scaled_update_counts_for_two_others() -> None:
    rule = build_aggregation(FederationConfig(), START, 0, 1)
    for norm in (1.0, 1.0, 1.9, 1000.0):
        rule.add(moved((norm, 0.0)), 1.0)
    # The median is 1.45.
    torch.testing.assert_close(rule.result()["w"][0].item(), 1 + (1 + 1 + 1.9 + 2.9) / 4)


@pytest.mark.parametrize("last_norm", [None, 1.0])
def test_who_has_more_images_may_go_as_much_further(last_norm: float | None) -> None:
    """Of 30 images where 10 are usual: up to 2 x 3 times the median norm, which is 1."""
    rule = build_aggregation(
        FederationConfig(), START, 0, 1, last_norm=last_norm, usual_weight=10.0
    )
    for norm, weight in ((1.0, 10.0), (1.0, 10.0), (1.0, 2.0), (6.0, 30.0)):
        rule.add(moved((norm, 0.0)), weight)
    torch.testing.assert_close(rule.result()["w"][0].item(), 1 + (10 + 10 + 2 + 180) / 52)
    again = build_aggregation(FederationConfig(), START, 0, 2, last_norm=1.0, usual_weight=10.0)
    for norm, weight in ((60.0, 30.0), (60.0, 1.0)):
        again.add(moved((norm, 0.0)), weight)
    torch.testing.assert_close(again.result()["w"][0].item(), 1 + (6 * 30 + 2 * 1) / 31)


def test_what_strategies_send_is_clipped_on_request_alone() -> None:
    """Their arrays, such as SCAFFOLD's mean steps, are not as long as weights are."""
    for options, expected in (({}, 1 + 1003 / 4), ({"bound": 2.0}, 1 + 5 / 4)):
        config = federation(aggregation={"clip_norm": options})
        rule = build_aggregation(config, START, 0, 1, sends_more=True)
        for norm in (1.0, 1.0, 1.0, 1000.0):
            rule.add(moved((norm, 0.0)), 1.0)
        torch.testing.assert_close(rule.result()["w"][0].item(), expected)


def test_of_fewer_than_three_no_norm_is_handed_on() -> None:
    """One of two may be the bad one."""
    for last_norm in (None, 1.0):
        rule = build_aggregation(FederationConfig(), START, 0, 2, last_norm=last_norm)
        for norm in (1.0, 1000.0):
            rule.add(moved((norm, 0.0)), 1.0)
        assert isinstance(rule, ClippedUpdates)
        assert rule.next_clip_norm() is None


def test_a_first_round_of_many_holds_sixteen_replies_at_most() -> None:
    rule = build_aggregation(FederationConfig(), START, 0, 1)
    assert isinstance(rule, ClippedUpdates)
    held = []
    for number in range(40):
        rule.add(moved((1.0 if number < 39 else 50.0, 0.0)), 1.0)
        held.append(len(rule._held))
    assert max(held) < 16 and held[-1] == 0
    torch.testing.assert_close(rule.result()["w"][0].item(), 1 + (39 + 2) / 40)
    assert rule.next_clip_norm() == pytest.approx(1.0)


def test_honest_clients_of_any_size_keep_their_bits(tmp_path: Path) -> None:
    """Sizes of 6 to 48 images, as many steps: nothing is clipped by default."""
    told = {
        "client_images": client_table((6, 12, 12, 48)),
        "settings": settings(optimizer_state="keep"),
        "rounds": 4,
    }
    plain = federate(tmp_path / "plain", aggregation={"clip_norm": {"bound": None}}, **told)
    assert same(federate(tmp_path / "default", **told).raw, plain.raw)


def test_a_norm_grows_with_the_learning_rates_and_does_not_shrink_with_them() -> None:
    warm = TrainingConfig(learning_rate=1e-3, lr_schedule="constant", lr_warmup=0.5)
    # Of 4 rounds two are the warm-up: 16 points of each, in shares of the run, and 1e-3.
    first, second = (sum(round_ / 4 + i / 64 + 1e-3 for i in range(16)) for round_ in (0, 1))
    grown = norm_of_this_round(2.0, warm, 2, 4)
    assert grown == pytest.approx(2.0 * second / first)
    assert norm_of_this_round(2.0, warm, 4, 4) == pytest.approx(2.0)
    falling = TrainingConfig(learning_rate=1e-3, lr_schedule="cosine", lr_warmup=0.0)
    assert norm_of_this_round(2.0, falling, 3, 4) == 2.0
    assert norm_of_this_round(None, warm, 1, 4) is None


def test_a_warm_up_of_honest_clients_keeps_its_bits(tmp_path: Path) -> None:
    """Their updates are four times as long in the second round as in the first."""
    told: dict[str, Any] = {
        "client_images": client_table((12, 12, 12)),
        "settings": settings(lr_warmup=0.5),
        "rounds": 8,
        "local_work": {"unit": "steps", "amount": 4},
    }
    plain = federate(tmp_path / "plain", aggregation={"clip_norm": {"bound": None}}, **told)
    assert same(federate(tmp_path / "default", **told).raw, plain.raw)
