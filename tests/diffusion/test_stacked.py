"""Clients trained as one program end where they end one after another."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from phoenix_pipeline.config import DpSgdConfig, NoiseConfig, TrainingConfig, UNetConfig
from phoenix_pipeline.diffusion import stack
from phoenix_pipeline.diffusion.dropout import replace_dropout
from phoenix_pipeline.diffusion.noise import NoiseSchedule
from phoenix_pipeline.diffusion.stacked import train_stacked, why_not_stacked
from phoenix_pipeline.diffusion.training import train_locally
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.diffusion.unet_layers import is_known
from phoenix_pipeline.errors import TrainingError
from phoenix_pipeline.optimization.corrections import GradientPull, ProximalPull, StepPull
from phoenix_pipeline.optimization.work import ClientTask, LocalResult, LocalWork
from tests.diffusion.other_unet import build_other_unet

SCHEDULE = NoiseSchedule.from_config(NoiseConfig(), "cpu")
STEPS = (3, 5, 2)
HELD = (7, 30, 12)
# The same sums in another order; AdamW's second moments of nearly equal gradients amplify them.
TOLERANCE = {"rtol": 1e-3, "atol": 2e-5}

Weights = dict[str, Tensor]


def network(dropout: float = 0.0) -> nn.Module:
    config = UNetConfig(
        block_out_channels=(8, 16), attention_resolutions=(4,), norm_num_groups=4, dropout=dropout
    )
    return build_unet(config, 1, 8, seed=0)


def settings(**options: Any) -> TrainingConfig:
    plain = {"batch_size": 4, "learning_rate": 1e-3, "lr_schedule": "cosine"}
    return TrainingConfig.model_validate({**plain, **options})


def images_of(client: int) -> Tensor:
    generator = torch.Generator().manual_seed(100 + client)
    shape = (HELD[client], 1, 8, 8)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def assert_same(weights: Weights, expected: Weights) -> None:
    """Compare all arrays but one whose gradient is zero: AdamW makes steps of its rounding."""
    for name, value in expected.items():
        if not name.endswith("to_k.bias"):
            torch.testing.assert_close(weights[name], value, **TOLERANCE)


def work_of(client: int, server_round: int, unet: nn.Module, pulled: bool = False) -> LocalWork:
    """Return a client's share of one of three rounds; the output layer never leaves it."""
    shared = frozenset(n for n, _ in unet.named_parameters() if not n.startswith("conv_out"))
    generator = torch.Generator().manual_seed(server_round)
    step = {
        name: 0.01 * torch.randn(p.shape, generator=generator)
        for name, p in unet.named_parameters()
        if name in shared
    }
    bounds = (server_round / 3, (server_round + 1) / 3)
    seed = 10 * client + server_round
    pulls = (
        lambda own, arrange: StepPull(own, arrange(step), 0.5),
        lambda own, arrange: ProximalPull(own.values(), 0.5),
        lambda own, arrange: GradientPull(own, arrange(step)),
    )
    return LocalWork(STEPS[client], *bounds, seed, shared, corrections=pulls if pulled else ())


def train_alone(
    unet: nn.Module, config: TrainingConfig, client: int, rounds: int, pulled: bool = False
) -> tuple[Weights, Weights, list[float]]:
    """Return weights, moments and losses of the rounds of one client."""
    start, moments, losses = {n: p.clone() for n, p in unet.state_dict().items()}, {}, []
    for number in range(rounds):
        kept = moments if config.optimizer_state == "keep" else None
        done = train_locally(
            unet, images_of(client), work_of(client, number, unet, pulled), SCHEDULE, config, kept
        )
        losses.append(done.loss)
    trained = {name: value.clone() for name, value in unet.state_dict().items()}
    unet.load_state_dict(start)
    return trained, moments, losses


def train_together(
    unet: nn.Module,
    config: TrainingConfig,
    clients: Sequence[int],
    rounds: int,
    pulled: bool = False,
) -> list[tuple[Weights, Weights, list[float]]]:
    weights = [{n: p.clone() for n, p in unet.state_dict().items()} for _ in clients]
    moments: list[Weights] = [{} for _ in clients]
    losses: list[list[float]] = [[] for _ in clients]
    for number in range(rounds):
        tasks = [
            ClientTask(
                images_of(client),
                work_of(client, number, unet, pulled),
                kept if config.optimizer_state == "keep" else None,
                weights=own,
            )
            for client, own, kept in zip(clients, weights, moments, strict=True)
        ]
        for found, done in zip(losses, train_stacked(unet, tasks, SCHEDULE, config), strict=True):
            assert isinstance(done, LocalResult)
            found.append(done.loss)
    return list(zip(weights, moments, losses, strict=True))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer_state": "reset", "horizontal_flip": True},
        {"pulled": True, "max_grad_norm": None},
        {"pulled": True, "weight_decay": 0.1},
        {"precision": "bf16", "max_grad_norm": 0.1},
    ],
    ids=lambda options: "-".join(options) or "default",
)
def test_stacked_clients_end_where_they_end_one_after_another(options: dict[str, Any]) -> None:
    pulled = options.get("pulled", False)
    config = settings(**{name: value for name, value in options.items() if name != "pulled"})
    unet = network()
    together = train_together(unet, config, (0, 1, 2), 3, pulled)
    for client, (weights, moments, losses) in enumerate(together):
        alone, kept, expected = train_alone(unet, config, client, 3, pulled)
        assert losses == pytest.approx(expected, rel=1e-3 if "precision" not in options else 2e-2)
        assert moments.keys() == kept.keys()
        if "precision" in options:
            continue
        assert_same(weights, alone)
        for name, value in kept.items():
            torch.testing.assert_close(moments[name], value, rtol=1e-2, atol=1e-4)


def test_the_number_of_clients_at_a_time_does_not_matter() -> None:
    unet, config = network(), settings()
    whole = train_together(unet, config, (0, 1, 2), rounds=3)
    pair, single = train_together(unet, config, (2, 0), 3), train_together(unet, config, (1,), 3)
    for client, part in ((0, pair[1]), (1, single[0]), (2, pair[0])):
        assert_same(part[0], whole[client][0])


def other_network(dropout: float = 0.0) -> nn.Module:
    """Return one that ``unet_layers`` has not all layers of, so that ``vmap`` is taken."""
    unet = build_other_unet(dropout=dropout)
    replace_dropout(unet)
    assert not is_known(unet)
    return unet


# One client of many may be left over for a program of its own.
@pytest.mark.parametrize("clients", [(0, 1, 2), (1,)])
@pytest.mark.parametrize("new_network", [network, other_network])
def test_each_client_draws_dropout_from_its_own_stream(
    new_network: Callable[[float], nn.Module], clients: tuple[int, ...]
) -> None:
    unet, config = new_network(0.5), settings()
    together = train_together(unet, config, clients, rounds=3)
    for client, (weights, _, losses) in zip(clients, together, strict=True):
        alone, _, expected = train_alone(unet, config, client, rounds=3)
        assert losses == pytest.approx(expected, rel=1e-3)
        assert_same(weights, alone)


def test_a_client_that_diverges_leaves_the_others_alone() -> None:
    unet, config = network(), settings()
    expected = train_together(unet, config, (0, 2), rounds=1)
    weights = [{n: p.clone() for n, p in unet.state_dict().items()} for _ in range(3)]
    weights[1]["conv_in.weight"].fill_(float("nan"))
    tasks = [
        ClientTask(images_of(client), work_of(client, 0, unet), weights=own)
        for client, own in enumerate(weights)
    ]
    results = train_stacked(unet, tasks, SCHEDULE, config)
    assert isinstance(results[1], TrainingError)
    assert "became nan at step 1 of 5" in str(results[1])
    for client, (own, _, losses) in zip((0, 2), expected, strict=True):
        result = results[client]
        assert isinstance(result, LocalResult)
        assert [result.loss] == pytest.approx(losses, rel=1e-3)
        assert result.images_trained == STEPS[client] * 4
        assert_same(weights[client], own)


def test_the_template_and_the_global_generator_are_left_alone() -> None:
    unet = network()
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    random = torch.random.get_rng_state()
    train_together(unet, settings(), (0, 1), rounds=1)
    assert torch.equal(random, torch.random.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in unet.state_dict().items())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"dp_sgd": DpSgdConfig(enabled=True, noise_multiplier=1.0)}, "dp_sgd"),
        ({"precision": "fp16"}, "fp16"),
    ],
)
def test_what_cannot_be_stacked_says_why(options: dict[str, Any], reason: str) -> None:
    assert reason in str(why_not_stacked(settings(**options)))
    assert why_not_stacked(settings()) is None


def test_other_threads_keep_their_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    # What is switched for the whole process changes the last bits of whoever trains beside this.
    unet, config, losses = other_network(), settings(), stack._losses
    blocks = {name: m for name, m in unet.named_modules() if hasattr(m, "processor")}
    before = {name: type(block.processor) for name, block in blocks.items()}
    switched_on: list[bool] = []

    def watch(*arguments: Any) -> Tensor:
        switched_on.append(torch.backends.cuda.flash_sdp_enabled())
        return losses(*arguments)

    monkeypatch.setattr(stack, "_losses", watch)
    train_together(unet, config, (0, 1), rounds=1)
    assert switched_on == [True] * max(STEPS[:2])
    assert before == {name: type(block.processor) for name, block in blocks.items()} != {}


def test_stacks_in_threads_side_by_side_end_with_the_bits_of_one_alone() -> None:
    config = settings()
    alone = train_together(network(), config, (0, 1, 2), rounds=2)
    with ThreadPoolExecutor(2) as pool:
        runs = [
            pool.submit(train_together, network(), config, (0, 1, 2)[: 2 + i % 2], 2)
            for i in range(6)
        ]
    for run in runs[1::2]:
        for (weights, _, _), (expected, _, _) in zip(run.result(), alone, strict=True):
            assert all(torch.equal(weights[name], value) for name, value in expected.items())
