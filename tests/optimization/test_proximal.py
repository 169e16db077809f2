"""FedProx's gradient term against values computed by hand."""

import torch
from torch import nn

from phoenix_pipeline.optimization.proximal import proximal_term


def test_two_steps_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([1.0, -2.0]))
    term = proximal_term({"w": weight}, mu=0.5)
    if term is None:
        raise TypeError("no term was made")
    for _ in range(2):
        weight.grad = torch.tensor([1.0, 2.0])
        term.correct_gradients()
        with torch.no_grad():
            weight -= 0.1 * weight.grad
    # First step: w - 0.1 g = (0.9, -2.2). Second: the gradient is g + 0.5 (-0.1, -0.2).
    torch.testing.assert_close(weight.detach(), torch.tensor([0.805, -2.39]))


def test_only_what_came_from_the_server_is_pulled() -> None:
    shared, personal = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    frozen = nn.Parameter(torch.zeros(2))
    term = proximal_term({"shared": shared, "frozen": frozen}, mu=2.0)
    if term is None:
        raise TypeError("no term was made")
    with torch.no_grad():
        shared += 3.0
        personal += 3.0
    shared.grad, personal.grad = torch.ones(2), torch.ones(2)
    term.correct_gradients()
    assert shared.grad.tolist() == [7.0, 7.0]
    assert personal.grad.tolist() == [1.0, 1.0]
    assert frozen.grad is None


def test_no_pull_is_no_term() -> None:
    assert proximal_term({"w": nn.Parameter(torch.zeros(2))}, mu=0.0) is None
    assert proximal_term({}, mu=1.0) is None
