"""FedDyn by hand, and where it ends."""

import pytest
import torch

from phoenix_pipeline.strategies import Strategies
from phoenix_pipeline.strategies.strategy import ServerView
from tests.strategies.quadratics import Quadratics


def test_two_rounds_of_two_clients_by_hand() -> None:
    federation = Quadratics({"feddyn": {"alpha": 0.5}}, centres=(1.0, 3.0))
    # Round 1, one step of 0.1: 0.1 and 0.3, mean 0.2. g_i = -0.5 x 0.1 and -0.5 x 0.3; h = -0.1;
    # w = 0.2 + 0.1 / 0.5.
    assert federation.round(1) == pytest.approx(0.4)
    own = [client["feddyn/w"].item() for client in federation.clients]
    assert own == pytest.approx([-0.05, -0.15])
    assert federation.server["feddyn/w"].item() == pytest.approx(-0.1)
    # Round 2: gradients -0.6 + 0.05 and -2.6 + 0.15, so 0.455 and 0.645, mean 0.55; h = -0.1 - 0.5
    # x 0.15 = -0.175; w = 0.55 + 0.35.
    assert federation.round(1) == pytest.approx(0.9)


def test_who_stays_away_has_no_drift() -> None:
    federation = Quadratics({"feddyn": {"alpha": 0.5}}, centres=(1.0, 3.0))
    # The one of two goes to 0.1: h = -0.5 x 0.1 / 2, w = 0.1 + 0.05.
    assert federation.round(1, taking_part=(0,)) == pytest.approx(0.15)
    assert federation.clients[1] == {}


def test_clients_of_unlike_curvature_meet_at_the_optimum_of_all() -> None:
    unlike = {"centres": (0.0, 10.0), "curvatures": (4.0, 1.0)}
    plain, ours = Quadratics({}, **unlike), Quadratics({"feddyn": {"alpha": 2.0}}, **unlike)
    for _ in range(80):
        ends = plain.round(20), ours.round(20)
    assert ends[1] == pytest.approx(2.0, abs=1e-2)
    assert abs(ends[0] - 2.0) > 1.0


def test_clients_that_sat_out_move_nothing() -> None:
    feddyn = Strategies.of({"feddyn": {"alpha": 0.5}})
    view = ServerView({"w": torch.ones(1)}, {"w": torch.full((1,), 2.0)}, {}, {}, 0.25, 1)
    weights, kept = feddyn.after_round(view)
    # A quarter of the images moved by 1: h = -0.5 x 0.25, and w = 2 + 0.125 / 0.5.
    assert kept["feddyn/w"].item() == pytest.approx(-0.125)
    assert weights["w"].item() == pytest.approx(2.25)
