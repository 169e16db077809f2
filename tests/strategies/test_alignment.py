"""FedAdamW's pull against values computed by hand, and what makes its direction."""

import pytest
import torch
from torch import Tensor, nn

from phoenix_pipeline.config import TrainingConfig
from phoenix_pipeline.optimization.corrections import StepPull
from phoenix_pipeline.optimization.schedules import learning_rate_at
from phoenix_pipeline.optimization.work import LocalWork
from phoenix_pipeline.strategies import ClientView, Strategies
from phoenix_pipeline.strategies.alignment import global_step, last_global_step

CONSTANT = TrainingConfig(learning_rate=0.1, lr_schedule="constant", lr_warmup=0.0)
COSINE = TrainingConfig(learning_rate=0.1, lr_warmup=0.1)


def test_two_clients_on_a_quadratic_by_hand() -> None:
    # f_i(w) = (w - c_i)^2 / 2 with c = 1 and 3, plain steps of 0.1, two steps a round from w = 0.
    centres, start, direction = (1.0, 3.0), torch.zeros(1), {}
    averages = []
    for _ in range(2):
        ends = []
        for centre in centres:
            weight = nn.Parameter(start.clone())
            pull = StepPull({"w": weight}, direction, 0.5)
            for _ in range(2):
                with torch.no_grad():
                    weight -= 0.1 * (weight - centre)
                if direction:
                    pull.after_step(0.1)
            ends.append(weight.detach())
        average = torch.stack(ends).mean(0)
        direction = global_step({"w": start}, {"w": average}, (0.0, 0.5), 2, CONSTANT)
        start = average
        averages.append(average.item())
    # Round 1: w = 2 (1 - 0.9^2) = 0.38, 0.38 / (2 x 0.1) = 1.9 per unit of learning rate. Round 2
    # adds 0.5 x 0.1 x 1.9 = 0.095 after each step: 0.9 (0.9 x 0.38 + 0.2 + 0.095) + 0.2 + 0.095.
    assert averages == pytest.approx([0.38, 0.8683], abs=1e-6)


def test_the_step_is_divided_by_the_rates_that_made_it() -> None:
    before, now = {"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([1.5, 1.0])}
    rates = [learning_rate_at(p, 0.1, COSINE) for p in (0.2, 0.25, 0.3, 0.35)]
    step = global_step(before, now, (0.2, 0.4), 4, COSINE)
    torch.testing.assert_close(step["w"], torch.tensor([0.5, -1.0]) / sum(rates))


def test_integers_and_what_is_new_have_no_step() -> None:
    before = {"count": torch.tensor(3)}
    now = {"count": torch.tensor(5), "w": torch.ones(1)}
    assert global_step(before, now, (0.0, 0.5), 2, CONSTANT) == {}


def view(start: float, end: float, earlier: tuple[dict[str, Tensor], float]) -> ClientView:
    work = LocalWork(2, start, end, seed=0)
    return ClientView({"w": torch.ones(1)}, work, CONSTANT, earlier=earlier)


def test_a_client_that_missed_rounds_takes_the_mean_step_over_them() -> None:
    before = {"w": torch.zeros(1)}
    one = last_global_step(view(0.3, 0.4, (before, 0.2)))["w"]
    three = last_global_step(view(0.3, 0.4, (before, 0.0)))["w"]
    assert one.item() == pytest.approx(1.0 / (2 * 0.1))
    assert three.item() == pytest.approx(1.0 / (6 * 0.1))


@pytest.mark.parametrize(
    ("earlier", "bounds"),
    [(({}, 0.0), (0.2, 0.3)), (({"w": torch.zeros(1)}, 0.2), (0.2, 0.2))],
    ids=["first round", "a run of no length"],
)
def test_without_an_earlier_broadcast_there_is_no_pull(earlier: tuple, bounds: tuple) -> None:
    client = view(*bounds, earlier)
    assert last_global_step(client) == {}
    assert Strategies.of({"alignment": {}}).corrections(client) == ()


def test_the_pull_goes_its_share_of_the_last_step_per_learning_rate() -> None:
    client = view(0.3, 0.4, ({"w": torch.zeros(1)}, 0.2))
    weight = nn.Parameter(torch.ones(1))
    (bind,) = Strategies.of({"alignment": {"share": 0.25}}).corrections(client)
    pull = bind({"w": weight}, dict)
    if pull is None:
        raise TypeError("no pull was made")
    pull.after_step(0.2)
    # The last step is 1 / (2 x 0.1) = 5 per unit of learning rate.
    assert weight.item() == pytest.approx(1.0 + 0.25 * 0.2 * 5.0)


def test_no_share_is_no_pull() -> None:
    client = view(0.3, 0.4, ({"w": torch.zeros(1)}, 0.2))
    assert Strategies.of({"alignment": {"share": 0.0}}).corrections(client) == ()
