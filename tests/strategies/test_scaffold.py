"""SCAFFOLD by hand, and the sums that its variates keep."""

import pytest
import torch

from phoenix_pipeline.config import ArmSettings
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.strategies import Strategies
from tests.strategies.quadratics import RATE, Quadratics

SCAFFOLD: dict = {"scaffold": {}}


def test_two_rounds_of_two_clients_by_hand() -> None:
    federation = Quadratics(SCAFFOLD, centres=(1.0, 3.0))
    # Two steps of 0.1 from 0 towards 1 and 3: 0.19 and 0.57; per unit of learning rate 0.95, 2.85.
    assert federation.round(2) == pytest.approx(0.38)
    variates = [client["scaffold/w"].item() for client in federation.clients]
    assert variates == pytest.approx([0.95, 2.85])
    assert federation.server["scaffold/w"].item() == pytest.approx(1.9)
    # c - c_i is 0.95 and -0.95. Client 1: 0.38 + 0.1 (0.62 + 0.95) = 0.537, then 0.6783; client 2:
    # 0.38 + 0.1 (2.62 - 0.95) = 0.547, then 0.6973.
    assert federation.round(2) == pytest.approx((0.6783 + 0.6973) / 2)


def test_the_servers_variate_is_the_mean_of_the_clients() -> None:
    federation = Quadratics(SCAFFOLD, centres=(1.0, 3.0, -2.0, 0.5))
    for taking_part in ((0, 1, 2, 3), (1, 2), (0,), (3, 1, 0)):
        federation.round(3, taking_part)
        own = [client["scaffold/w"] for client in federation.clients]
        torch.testing.assert_close(federation.server["scaffold/w"], torch.stack(own).mean(0))


def test_clients_of_unlike_curvature_meet_at_the_optimum_of_all() -> None:
    # Means of many local steps are biased: FedAvg ends elsewhere.
    unlike = {"centres": (0.0, 10.0), "curvatures": (4.0, 1.0)}
    plain, ours = Quadratics({}, **unlike), Quadratics(SCAFFOLD, **unlike)
    for _ in range(60):
        ends = plain.round(10), ours.round(10)
    assert ends[1] == pytest.approx(2.0, abs=1e-3)
    assert abs(ends[0] - 2.0) > 1.0


def test_one_client_trains_as_without() -> None:
    plain, ours = Quadratics({}, centres=(1.0,)), Quadratics(SCAFFOLD, centres=(1.0,))
    for _ in range(4):
        assert ours.round(3) == pytest.approx(plain.round(3), abs=1e-6)


def test_a_part_of_the_correction_is_taken_out_of_the_variate() -> None:
    federation = Quadratics({"scaffold": {"share": 0.5}}, centres=(1.0, 3.0))
    for _ in range(2):
        federation.round(1)
    # One step: the variate is the gradient's way alone, from 0.2 towards 1 and 3.
    variates = [client["scaffold/w"].item() for client in federation.clients]
    assert variates == pytest.approx([0.8, 2.8])
    assert RATE == 0.1


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"federation": {"compression": {"partial_update": "usplit"}}}, "set partial_update: full"),
        ({"model": {"conditioning": "labels"}}, "set model.conditioning: none"),
    ],
)
def test_what_leaves_variates_incomplete_is_refused(settings: dict, remedy: str) -> None:
    with pytest.raises(SettingsError, match=rf"^federation\.strategies\.scaffold: .*{remedy}"):
        Strategies.of(SCAFFOLD).check(ArmSettings.model_validate(settings))
