"""Server optimizers against Flower's strategies on the same replies, round by round."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord
from flwr.app import RecordDict as Records
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, FedYogi
from flwr.supercore.task_identity import TaskIdentity
from pydantic import ValidationError

from phoenix_pipeline.config import DcganConfig, ModelConfig, ServerOptimizerConfig
from phoenix_pipeline.federated.server_optimizer import ServerOptimizer
from phoenix_pipeline.federated.wire import load_packed
from tests.federated.tiny import federate, interrupt, same, settings

NAMES = ("w", "b")
CASES = [
    ({"name": "fedavgm", "learning_rate": 0.5, "momentum": 0.8}, FedAvgM),
    ({"name": "fedavgm", "learning_rate": 0.7, "momentum": 0.0}, FedAvgM),
    ({"name": "fedadam", "learning_rate": 0.1, "beta_1": 0.9, "beta_2": 0.99}, FedAdam),
    ({"name": "fedadam", "learning_rate": 0.03, "beta_1": 0.0, "tau": 0.1}, FedAdam),
    ({"name": "fedyogi", "learning_rate": 0.01, "beta_1": 0.8, "beta_2": 0.9}, FedYogi),
]


def flowers(config: ServerOptimizerConfig, kind: type[FedAvg]) -> FedAvg:
    if kind is FedAvgM:
        return FedAvgM(
            fraction_train=0.0, server_learning_rate=config.rate, server_momentum=config.momentum
        )
    given = {
        "fraction_train": 0.0,
        "beta_1": config.beta_1,
        "beta_2": config.beta_2,
        "tau": config.tau,
    }
    return kind(eta=config.rate, **given)  # type: ignore[call-arg]


@pytest.fixture(autouse=True)
def _identity() -> None:
    """Let messages be made outside a grid."""
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, SUPERLINK_NODE_ID


def flower_round(
    strategy: FedAvg, number: int, weights: dict[str, np.ndarray], aggregate: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    record = ArrayRecord({name: Array(value) for name, value in weights.items()})
    grid: Any = None  # Nobody is asked: fraction_train is 0.
    strategy.configure_train(number, record, ConfigRecord(), grid)
    told = Message(Records(), 1, MessageType.TRAIN)
    reply = Records(
        {
            "arrays": ArrayRecord({name: Array(value) for name, value in aggregate.items()}),
            "metrics": MetricRecord({"num-examples": 1}),
        }
    )
    arrays, _ = strategy.aggregate_train(number, [Message(reply, reply_to=told)])
    if arrays is None:
        raise ValueError("Flower aggregated nothing")
    return {name: array.numpy() for name, array in arrays.items()}


def test_nesterovs_momentum_is_that_of_pytorch() -> None:
    config = ServerOptimizerConfig(name="nesterov", momentum=0.9)
    ours = ServerOptimizer(config, frozenset({"w"}))
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    theirs = torch.optim.SGD([weight], lr=0.7, momentum=0.9, nesterov=True)
    weights, state = {"w": weight.detach().clone()}, {}
    for number in range(1, 5):
        delta = torch.tensor([0.1 * number, -0.3])
        weights, state = ours.step(weights, {"w": weights["w"] + delta}, state, number)
        weight.grad = -delta
        theirs.step()
        torch.testing.assert_close(weights["w"], weight.detach())


@pytest.mark.parametrize(("given", "kind"), CASES, ids=str)
def test_five_rounds_are_flowers(given: dict[str, Any], kind: type[FedAvg]) -> None:
    config = ServerOptimizerConfig(**given)
    ours = ServerOptimizer(config, frozenset(NAMES))
    theirs = flowers(config, kind)
    generator = np.random.default_rng(2)
    start = {n: generator.normal(size=(4, 3)).astype(np.float32) for n in NAMES}
    weights = {n: torch.from_numpy(v.copy()) for n, v in start.items()}
    state: dict[str, torch.Tensor] = {}
    for number in range(1, 6):
        pull = {n: generator.normal(scale=0.1, size=(4, 3)).astype(np.float32) for n in NAMES}
        aggregate = {n: weights[n].numpy() + pull[n] for n in NAMES}
        start = flower_round(theirs, number, start, aggregate)
        tensors = {n: torch.from_numpy(v) for n, v in aggregate.items()}
        weights, state = ours.step(weights, tensors, state, number)
        for name in NAMES:
            np.testing.assert_allclose(weights[name].numpy(), start[name], rtol=1e-4, atol=1e-5)


def test_the_first_yogi_step_by_hand() -> None:
    config = ServerOptimizerConfig(name="fedyogi", learning_rate=0.1, beta_1=0.5, beta_2=0.75)
    optimizer = ServerOptimizer(config, frozenset({"w"}))
    old, aggregate = {"w": torch.tensor([1.0])}, {"w": torch.tensor([3.0])}
    weights, state = optimizer.step(old, aggregate, {}, 1)
    # m = 0.5 x 2, v = 0.25 x 4: 1 + 0.1 x 1 / (1 + 0.001)
    torch.testing.assert_close(weights["w"], torch.tensor([1.0 + 0.1 / 1.001]))
    assert {name: tensor.item() for name, tensor in state.items()} == {
        "exp_avg.w": 1.0,
        "exp_avg_sq.w": 1.0,
    }
    assert old["w"].item() == 1.0


def test_momentum_0_at_rate_1_is_fedavg_bit_for_bit(tmp_path: Path) -> None:
    plain = federate(tmp_path / "plain")
    with_none = {"name": "fedavgm", "momentum": 0.0, "learning_rate": 1.0}
    still = federate(tmp_path / "still", server_optimizer=with_none)
    moving = federate(tmp_path / "moving", server_optimizer={"name": "fedavgm"})
    assert same(plain.raw, still.raw)
    assert not same(plain.raw, moving.raw)


def test_statistics_take_the_aggregate() -> None:
    model = ModelConfig(family="dcgan", dcgan=DcganConfig(base_channels=4, latent_dim=4))
    told = settings().model_copy(update={"model": model})
    optimizer = ServerOptimizer.of(ServerOptimizerConfig(name="fedadam"), told)
    state = told.build_network().state_dict()
    aggregate = {n: t + 1 for n, t in state.items()}
    weights, moments = optimizer.step(state, aggregate, {}, 1)
    kinds = ("running_mean", "running_var", "num_batches_tracked")
    statistics = {name for name in state if name.endswith(kinds)}
    assert statistics
    for name in state:
        assert weights[name].dtype == state[name].dtype
        assert torch.equal(weights[name], aggregate[name]) == (name in statistics)
    assert {name.partition(".")[2] for name in moments} == state.keys() - statistics


@pytest.mark.parametrize("name", ["fedavgm", "fedyogi"])
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path: Path, name: str) -> None:
    options: dict[str, Any] = {"rounds": 3, "server_optimizer": {"name": name}}
    undisturbed = federate(tmp_path / "whole", **options)

    interrupt(tmp_path / "cut", after=2, **options)
    resumed = federate(tmp_path / "cut", **options)
    assert same(resumed.raw, undisturbed.raw)
    assert same(resumed.ema, undisturbed.ema)
    kept = load_packed(tmp_path / "cut/server/round-000003.safetensors")[0]
    whole = load_packed(tmp_path / "whole/server/round-000003.safetensors")[0]
    moments = kept["server_optimizer"]
    assert len(moments) == len(resumed.raw) * (1 if name == "fedavgm" else 2)
    assert all(torch.equal(moments[n], whole["server_optimizer"][n]) for n in moments)


def test_a_rate_without_an_optimizer_is_refused() -> None:
    with pytest.raises(ValidationError, match="fedavg, which has none"):
        ServerOptimizerConfig(learning_rate=0.5)
