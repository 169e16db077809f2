"""FedProx's gradient term against values computed by hand."""

import torch
from torch import nn

from phoenix_pipeline.optimization.corrections import ProximalPull, corrections_of
from phoenix_pipeline.optimization.work import LocalWork
from phoenix_pipeline.strategies import ClientView, Strategies
from tests.strategies.quadratics import TRAINING


def test_two_steps_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([1.0, -2.0]))
    term = ProximalPull([weight], mu=0.5)
    for _ in range(2):
        weight.grad = torch.tensor([1.0, 2.0])
        term.correct_gradients()
        with torch.no_grad():
            weight -= 0.1 * weight.grad
    # First step: w - 0.1 g = (0.9, -2.2). Second: the gradient is g + 0.5 (-0.1, -0.2).
    torch.testing.assert_close(weight.detach(), torch.tensor([0.805, -2.39]))


def test_what_has_no_gradient_is_left_alone() -> None:
    shared, frozen = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    term = ProximalPull([frozen, shared], mu=2.0)
    with torch.no_grad():
        shared += 3.0
    shared.grad = torch.ones(2)
    term.correct_gradients()
    assert shared.grad.tolist() == [7.0, 7.0]
    assert frozen.grad is None


def test_no_pull_is_no_term() -> None:
    client = ClientView({"w": torch.zeros(2)}, LocalWork(1, 0.0, 1.0, seed=0), TRAINING)
    assert Strategies.of({"fedprox": {"mu": 0.0}}).corrections(client) == ()
    work = LocalWork(
        1, 0.0, 1.0, seed=0, corrections=Strategies.of({"fedprox": {}}).corrections(client)
    )
    assert len(corrections_of({"w": nn.Parameter(torch.zeros(2))}, work)) == 1
    assert corrections_of({}, work) == []
