"""Several strategies at once, and what settings may say."""

from typing import ClassVar

import pytest
import torch

from phoenix_pipeline.config import FederationConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.optimization.work import LocalWork
from phoenix_pipeline.registry import register
from phoenix_pipeline.strategies import ClientView, ServerView, Strategies, Strategy
from phoenix_pipeline.strategies.strategy import Arrays, known_strategies
from tests.strategies.quadratics import TRAINING, Quadratics


class Twice(Strategy):
    """Goes twice as far as the clients did."""

    name: ClassVar[str] = "twice"

    def after_round(self, server: ServerView) -> tuple[Arrays, Arrays]:
        """Double the step."""
        return {n: 2 * a - server.before[n] for n, a in server.aggregate.items()}, {}


def test_ours_are_found_by_their_files() -> None:
    assert {"alignment", "feddyn", "fedprox", "scaffold"} <= set(known_strategies())


def test_each_goes_on_from_the_one_before() -> None:
    register("strategies", "twice", Twice)
    both = Quadratics({"twice": {}, "feddyn": {"alpha": 0.5}}, centres=(1.0, 3.0))
    # Mean 0.2, doubled 0.4; FedDyn then takes 0.4 for the drift: h = -0.2, w = 0.4 + 0.4.
    assert both.round(1) == pytest.approx(0.8)


def test_arrays_of_several_lie_side_by_side() -> None:
    weights = {"w": torch.ones(2), "bn.running_mean": torch.ones(2), "n": torch.tensor(1)}
    strategies = Strategies.of({"scaffold": {}, "feddyn": {}})
    assert list(strategies.told_like(weights)) == ["scaffold/w"]
    assert list(strategies.sent_like(weights)) == ["scaffold/w"]
    client = ClientView(
        weights, LocalWork(2, 0.0, 1.0, seed=0), TRAINING, strategies.tell(weights, {})
    )
    kept, sent = strategies.after_training(client, {**weights, "w": 1.5 * weights["w"]})
    assert list(kept) == ["scaffold/w", "feddyn/w"]
    assert list(sent) == ["scaffold/w"]
    # 0.5 over two steps of 0.1.
    torch.testing.assert_close(sent["scaffold/w"], torch.full((2,), 2.5))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tarot": {}}, "federation.strategies is 'tarot'; allowed are alignment, feddyn"),
        ({"fedprox": {"mu": -1}}, r"federation\.strategies\.fedprox\.mu: .*got -1; fedprox has mu"),
        ({"fedprox": {"my": 1}}, r"federation\.strategies\.fedprox\.my: .*fedprox has mu"),
    ],
)
def test_what_is_unknown_is_refused(settings: dict, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Strategies.of(settings)


def test_null_is_none_and_one_place_has_nothing_to_federate() -> None:
    assert FederationConfig(strategies=None).strategies == {}
    assert FederationConfig(strategies={"scaffold": None}).strategies == {"scaffold": {}}
    with pytest.raises(ValueError, match=r"strategies are fedprox, .*set federation\.strategies"):
        FederationConfig(pooled=True, strategies={"fedprox": {}})
