import math

import pytest
import torch
from torch import Tensor

from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.aggregation.private_mean import PrivateMean, PrivateRound
from phoenix_pipeline.seeding import torch_generator

TEMPLATE = {"w": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "b": torch.tensor([5.0])}
BOUND = 0.5


def mean(clients: float = 4.0, noise: float = 0.0, **options: float) -> PrivateMean:
    return PrivateMean(TEMPLATE, PrivateRound(BOUND, noise, clients, seed=3, **options))


def moved(by: float) -> dict[str, Tensor]:
    """A reply whose update has norm ``by``, all of it in one weight."""
    update = torch.zeros(2, 2)
    update[0, 1] = by
    return {"w": TEMPLATE["w"] + update, "b": TEMPLATE["b"].clone()}


def distance(arrays: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return math.sqrt(sum((arrays[n] - other[n]).double().square().sum().item() for n in arrays))


def test_updates_within_the_norm_are_averaged_over_the_expected_clients() -> None:
    rule = mean()
    rule.add(moved(0.4), weight=1)
    rule.add(moved(0.2), weight=1000)
    assert rule.result()["w"][0, 1].item() == pytest.approx(2.0 + (0.4 + 0.2) / 4)


@pytest.mark.parametrize("by", [0.51, -100.0, 1e14])
@pytest.mark.parametrize("weight", [1e-9, 1e14])
def test_whatever_one_client_sends_moves_the_model_by_the_bound_at_most(
    by: float, weight: float
) -> None:
    with_it, without = mean(noise=2.0), mean(noise=2.0)
    for rule in (with_it, without):
        rule.add(moved(0.3), weight=5)
    hostile = {"w": torch.full((2, 2), by), "b": torch.tensor([-by])}
    with_it.add(hostile, weight=weight)
    assert distance(with_it.result(), without.result()) == pytest.approx(BOUND / 4, rel=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e16])
def test_what_is_no_number_is_refused_and_adds_nothing(bad: float) -> None:
    rule = mean()
    with pytest.raises(FederationError):
        rule.add(moved(bad), weight=1)
    assert distance(rule.result(), TEMPLATE) == 0.0


def test_noise_has_the_stated_deviation_also_without_replies() -> None:
    template = {"w": torch.zeros(40_000)}
    rule = PrivateMean(template, PrivateRound(0.5, 3.0, 4.0, seed=1))
    noise = rule.result()["w"]
    assert noise.std().item() == pytest.approx(3.0 * 0.5 / 4, rel=0.02)
    assert noise.mean().item() == pytest.approx(0.0, abs=0.01)
    other = PrivateMean(template, PrivateRound(0.5, 3.0, 4.0, seed=2)).result()["w"]
    assert not torch.equal(noise, other)


def test_integers_are_refused() -> None:
    with pytest.raises(FederationError, match=r"array n is torch.int64"):
        PrivateMean({"n": torch.tensor(3)}, PrivateRound(1.0, 1.0, 1.0, seed=0))


def test_the_norm_steps_towards_the_quantile() -> None:
    rule = mean(quantile=0.5, learning_rate=0.2)
    for by in (0.1, 0.2, 0.3, 9.0):
        rule.add(moved(by), weight=1)
    assert rule.next_clip_norm() == pytest.approx(BOUND * math.exp(-0.2 * (0.75 - 0.5)))
    assert mean().next_clip_norm() == BOUND


def test_the_norm_settles_at_the_quantile_of_the_norms() -> None:
    """Norms are uniform on [0, 2]; the quantile 0.75 is 1.5."""
    norms, clip = [2 * (i + 0.5) / 12 for i in range(12)], 0.4
    for seed in range(60):
        private = PrivateRound(clip, 0.0, 12.0, seed, 0.75, 0.2, count_noise=0.5)
        rule = PrivateMean(TEMPLATE, private)
        for by in norms:
            rule.add(moved(by), weight=1)
        clip = rule.next_clip_norm()
    assert clip == pytest.approx(1.5, rel=0.15)


def test_noise_on_the_count_cannot_throw_the_norm_far() -> None:
    norms = [mean(quantile=0.5, learning_rate=0.2, count_noise=1e6).next_clip_norm()]
    assert all(BOUND * math.exp(-0.11) < n < BOUND * math.exp(0.11) for n in norms)


def test_secret_noise_has_the_stated_deviation_and_the_bound_holds() -> None:
    template = {"w": torch.zeros(40_000)}
    private = PrivateRound(0.5, 3.0, 4.0, seed=None)
    noise = PrivateMean(template, private).result()["w"]
    assert noise.std().item() == pytest.approx(3.0 * 0.5 / 4, rel=0.02)
    assert not torch.equal(noise, PrivateMean(template, private).result()["w"])
    quiet = PrivateMean(template, PrivateRound(0.5, 1e-6, 4.0, seed=None))
    quiet.add({"w": torch.full((40_000,), 7.0)}, weight=1)
    assert quiet.result()["w"].norm().item() == pytest.approx(0.5 / 4, rel=1e-3)


def test_the_secret_count_steps_towards_the_quantile() -> None:
    private = PrivateRound(BOUND, 1e-9, 4.0, None, 0.5, 0.2, count_noise=1e-9)
    rule = PrivateMean(TEMPLATE, private)
    for by in (0.1, 0.2, 0.3, 9.0):
        rule.add(moved(by), weight=1)
    expected = BOUND * math.exp(-0.2 * (0.75 - 0.5))
    assert rule.next_clip_norm() == pytest.approx(expected, rel=1e-3)


def test_noise_of_a_seed_keeps_its_values() -> None:
    """Those of torch's generator, in the precision of the sums; the count's in single precision."""
    rule = mean(noise=2.0, quantile=0.5, learning_rate=0.2, count_noise=1.7)
    rule.add(moved(0.4), weight=1)
    drawn = torch.randn(1, generator=torch_generator(3, "update_noise"))
    assert rule.result()["b"].item() == (5.0 + (2.0 * BOUND * drawn) / 4.0).item()
    counted = torch.randn((), generator=torch_generator(3, "count_noise")).item()
    share = min(1.0, max(0.0, 0.5 + (0.5 + 1.7 * counted) / 4.0))
    assert rule.next_clip_norm() == BOUND * math.exp(-0.2 * (share - 0.5))
