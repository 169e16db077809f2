"""Robust rules against values computed by hand, against Flower's, and against poisoned replies."""

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, RecordDict
from flwr.serverapp.strategy.fedtrimmedavg import trim_mean
from flwr.serverapp.strategy.multikrum import compute_distances, select_multikrum
from torch import Tensor

from phoenix_pipeline.config import AggregationConfig, FederationConfig
from phoenix_pipeline.errors import FederationError, SettingsError
from phoenix_pipeline.federated.aggregation import build_aggregation, check_num_replies
from phoenix_pipeline.federated.aggregation.robust import squared_distances

TEMPLATE = {"w": torch.zeros(3, 2), "b": torch.zeros(5), "count": torch.tensor(0)}

ROBUST = [
    {"rule": "mean"},
    {"rule": "median"},
    {"rule": "trimmed_mean", "trim_fraction": 0.2},
    {"rule": "krum", "num_byzantine": 2},
    {"rule": "multi_krum", "num_byzantine": 2},
    {"rule": "multi_krum", "num_byzantine": 2, "num_selected": 3},
    {"rule": "mean", "clip_norm": {"bound": 1.0}},
    {"rule": "mean", "clip_norm": {"bound": 1.0, "unit": "median"}},
    {"rule": "mean", "clip_norm": {"bound": 1.0, "unit": "last_median"}},
    {"rule": "median", "clip_norm": {"bound": 1.5, "unit": "median"}},
]


def replies(count: int, seed: int = 0) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "w": torch.randn(3, 2, generator=generator),
            "b": torch.randn(5, generator=generator),
            "count": torch.tensor(10 + i),
        }
        for i in range(count)
    ]


def aggregate(
    given: list[dict[str, Tensor]],
    template: dict[str, Tensor] = TEMPLATE,
    **settings: object,
) -> dict[str, Tensor]:
    config = FederationConfig(aggregation=AggregationConfig(**settings))
    rule = build_aggregation(config, template, seed=0, server_round=1)
    for reply in given:
        rule.add(reply, 20)
    return rule.result()


def as_record(reply: dict[str, Tensor]) -> RecordDict:
    arrays = {name: Array(t.numpy()) for name, t in reply.items() if t.is_floating_point()}
    return RecordDict({"arrays": ArrayRecord(arrays)})


@pytest.mark.parametrize("count", [5, 6])
def test_the_median_is_numpys(count: int) -> None:
    given = replies(count)
    result = aggregate(given, rule="median")
    for name in ("w", "b"):
        expected = np.median(np.stack([r[name].numpy() for r in given]), axis=0)
        np.testing.assert_allclose(result[name].numpy(), expected, rtol=1e-6)
    assert result["count"].dtype == torch.int64
    assert result["count"].item() == 12


def test_blocks_do_not_change_a_median() -> None:
    generator = torch.Generator().manual_seed(1)
    template = {"w": torch.zeros(2, 20_000)}
    given = [{"w": torch.randn(2, 20_000, generator=generator)} for _ in range(3)]
    expected = torch.stack([r["w"] for r in given]).median(dim=0).values
    assert torch.equal(aggregate(given, template, rule="median")["w"], expected)


@pytest.mark.parametrize(("count", "fraction"), [(5, 0.2), (9, 0.2), (10, 0.3), (7, 0.45)])
def test_the_trimmed_mean_is_flowers(count: int, fraction: float) -> None:
    given = replies(count)
    result = aggregate(given, rule="trimmed_mean", trim_fraction=fraction)
    for name in ("w", "b"):
        expected = trim_mean(np.stack([r[name].numpy() for r in given]), fraction)
        np.testing.assert_allclose(result[name].numpy(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("kept", "rule"), [(1, "krum"), (1, "multi_krum"), (4, "multi_krum")])
def test_krum_chooses_as_flower_does(kept: int, rule: str, seed: int) -> None:
    given = replies(9, seed)
    contents = [as_record(reply) for reply in given]
    chosen = select_multikrum(contents, num_malicious_nodes=2, num_nodes_to_select=kept)
    picked = [given[contents.index(content)] for content in chosen]
    selected = {} if rule == "krum" else {"num_selected": kept}
    result = aggregate(given, rule=rule, num_byzantine=2, **selected)
    for name in ("w", "b"):
        torch.testing.assert_close(result[name], torch.stack([r[name] for r in picked]).mean(0))


def test_distances_are_flowers_where_those_are_exact() -> None:
    given = replies(4)
    expected = compute_distances([as_record(reply)["arrays"] for reply in given])
    np.testing.assert_allclose(squared_distances(given, TEMPLATE), expected, atol=1e-5)


def test_distances_of_long_weights_with_small_differences_are_right() -> None:
    origin = {"w": torch.full((1000,), 100.0)}
    step = 2.0**-10
    given = [{"w": origin["w"] + i * step} for i in range(3)]
    expected = 1000 * step**2 * torch.tensor([[0.0, 1, 4], [1, 0, 1], [4, 1, 0]])
    torch.testing.assert_close(squared_distances(given, origin), expected.double())


def test_multi_krum_averages_n_minus_f_minus_2_by_default() -> None:
    values = [0.0, 0.1, 0.2, 0.3, 50.0]
    template = {"w": torch.zeros(1)}
    given = [{"w": torch.tensor([value])} for value in values]
    # Scores with f = 1, of the two nearest: 0.05, 0.02, 0.02, 0.05, more; 5 - 1 - 2 are kept.
    result = aggregate(given, template, rule="multi_krum", num_byzantine=1)
    torch.testing.assert_close(result["w"], torch.tensor([0.15]))


def test_half_precision_stays_half() -> None:
    template = {"w": torch.zeros(2, dtype=torch.float16)}
    given = [{"w": torch.tensor([i, 2.0 * i], dtype=torch.float16)} for i in range(5)]
    for settings in ROBUST[:2]:
        result = aggregate(given, template, **settings)["w"]
        assert result.dtype == torch.float16
        assert result.tolist() == [2.0, 4.0]


def poisoned_round() -> tuple[list[dict[str, Tensor]], Tensor]:
    """Return ten replies near a true update of norm 0.8, two of them poisoned, and that update."""
    truth = torch.full((64,), 0.1)
    generator = torch.Generator().manual_seed(4)
    honest = [{"w": truth + 0.01 * torch.randn(64, generator=generator)} for _ in range(8)]
    bad = [{"w": torch.full((64,), -1000.0)}, {"w": 500.0 * torch.randn(64, generator=generator)}]
    return [*honest[:3], bad[0], *honest[3:], bad[1]], truth


def test_two_of_ten_poisoned_replies_ruin_fedavg() -> None:
    given, truth = poisoned_round()
    unbounded = {"clip_norm": {"bound": None}}
    result = aggregate(given, {"w": torch.zeros(64)}, rule="mean", **unbounded)["w"]
    assert (result - truth).norm() > 500 * truth.norm()


@pytest.mark.parametrize("settings", ROBUST, ids=str)
def test_two_of_ten_poisoned_replies_do_not_ruin_a_robust_rule(settings: dict[str, object]) -> None:
    given, truth = poisoned_round()
    result = aggregate(given, {"w": torch.zeros(64)}, **settings)["w"]
    # Clipping bounds what two of ten can do: twice a fifth of the bound at most, and the noise.
    allowed = {"mean": 0.5 if "clip_norm" in settings else 0.7}.get(str(settings["rule"]), 0.15)
    assert (result - truth).norm() < allowed * truth.norm()


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ({"rule": "median"}, 3),
        ({"rule": "trimmed_mean", "trim_fraction": 0.1}, 10),
        ({"rule": "trimmed_mean", "trim_fraction": 0.3}, 4),
        ({"rule": "krum", "num_byzantine": 2}, 7),
        ({"rule": "multi_krum", "num_byzantine": 2}, 7),
        ({"rule": "multi_krum", "num_byzantine": 1, "num_selected": 6}, 7),
    ],
    ids=str,
)
def test_too_few_replies_are_refused_before_and_after_training(
    settings: dict[str, object], needed: int
) -> None:
    config = FederationConfig(aggregation=AggregationConfig(**settings))
    check_num_replies(config, needed)
    with pytest.raises(SettingsError, match=rf"needs {needed} replies.*{needed - 1} clients"):
        check_num_replies(config, needed - 1)
    with pytest.raises(FederationError, match=rf"needs {needed} usable .* got {needed - 1}"):
        aggregate(replies(needed - 1), **settings)
    assert aggregate(replies(needed), **settings).keys() == TEMPLATE.keys()


@pytest.mark.parametrize("settings", ROBUST, ids=str)
def test_a_bad_reply_is_refused_and_changes_nothing(settings: dict[str, object]) -> None:
    rule = build_aggregation(
        FederationConfig(aggregation=AggregationConfig(**settings)), TEMPLATE, 0, 1
    )
    given = replies(10)
    for reply in given:
        rule.add(reply, 20)
    with pytest.raises(FederationError, match="not finite"):
        rule.add({**given[0], "b": torch.full((5,), torch.nan)}, 20)
    with pytest.raises(FederationError, match="0 examples"):
        rule.add(given[0], 0)
    result, expected = rule.result(), aggregate(given, **settings)
    assert all(torch.equal(result[name], expected[name]) for name in TEMPLATE)
