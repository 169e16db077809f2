"""What the server sees of one step is what such a client sends, and what an attacker can use."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from phoenix_pipeline.config import DpSgdConfig, FederationConfig
from phoenix_pipeline.federated.one_step import (
    SeenUpdate,
    settings_of_clients,
    step_noise,
    update_at_server,
)
from phoenix_pipeline.federated.privacy.accountant import noise_multiplier_for
from tests.federated.tiny import settings

CLIENTS = {0: 12, 4: 36}
RATE = 1e-3


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return settings().build_network()


@pytest.fixture(scope="module")
def gradient(network: nn.Module) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {n: torch.randn(w.shape, generator=generator) for n, w in network.named_parameters()}


def see(
    network: nn.Module,
    gradient: dict[str, Tensor],
    personal: tuple[str, ...] = (),
    client: int = 4,
    attempt: int = 0,
    **options: Any,
) -> SeenUpdate:
    federation = FederationConfig(local_work={"unit": "steps", "amount": 2}, **options)
    told = settings(personal, learning_rate=RATE)
    told = told.model_copy(update={"compression": federation.compression})
    told = settings_of_clients(told, federation, CLIENTS)
    return update_at_server(network, gradient, told, client, CLIENTS, attempt)


def cosine(update: dict[str, Tensor], gradient: dict[str, Tensor]) -> float:
    a, b = (torch.cat([x[name].flatten() for name in update]) for x in (update, gradient))
    return float(nn.functional.cosine_similarity(-a, b, dim=0))


def norm(update: dict[str, Tensor]) -> float:
    return float(torch.cat([a.flatten() for a in update.values()]).norm())


def test_without_protection_the_gradient_is_seen_as_long_as_adams_step(
    network: nn.Module, gradient: dict[str, Tensor]
) -> None:
    seen = see(network, gradient)
    assert seen.words == "weights"
    assert seen.arrays.keys() == network.state_dict().keys()
    assert cosine(seen.arrays, gradient) == pytest.approx(1.0, abs=1e-5)
    count = sum(g.numel() for g in gradient.values())
    assert norm(seen.arrays) == pytest.approx(RATE * math.sqrt(count), rel=1e-3)


@pytest.mark.parametrize(
    ("up", "words", "least", "most"),
    [
        ({"codec": "fp16"}, "fp16, difference", 0.9999, 1.0),
        ({"codec": "int8"}, "int8, difference", 0.999, 0.99999),
        ({"codec": "int4"}, "int4, difference", 0.9, 0.999),
        ({"codec": "top_k", "density": 0.05}, "top 5%, difference", 0.3, 0.7),
    ],
)
def test_a_codec_leaves_its_mark(
    network: nn.Module,
    gradient: dict[str, Tensor],
    up: dict[str, Any],
    words: str,
    least: float,
    most: float,
) -> None:
    seen = see(network, gradient, compression={"up": up})
    assert seen.words == words
    assert least < cosine(seen.arrays, gradient) < most


def test_the_difference_to_a_broadcast_is_read_as_any_other(
    network: nn.Module, gradient: dict[str, Tensor]
) -> None:
    down = {"codec": "int4", "relative_to": "last_broadcast"}
    seen = see(network, gradient, compression={"up": {"codec": "int8"}, "down": down})
    assert cosine(seen.arrays, gradient) > 0.999


def test_only_what_is_sent_is_seen(network: nn.Module, gradient: dict[str, Tensor]) -> None:
    shared = see(network, gradient, ("conv_out", "up_blocks"))
    assert shared.words == "weights, shared layers only"
    assert not any(name.startswith(("conv_out", "up_blocks")) for name in shared.arrays)
    halves = [
        see(network, gradient, client=c, compression={"partial_update": "usplit"}) for c in CLIENTS
    ]
    assert {h.words for h in halves} == {"difference, encoder half", "difference, decoder half"}
    assert sorted([*halves[0].arrays, *halves[1].arrays]) == sorted(network.state_dict())


def test_local_noise_is_seen_as_it_leaves_the_client(
    network: nn.Module, gradient: dict[str, Tensor]
) -> None:
    local = {"enabled": True, "placement": "local", "clip_norm": 0.01, "delta": 1e-3}
    clipped = see(network, gradient, differential_privacy={**local, "noise_multiplier": 0.0})
    assert clipped.words == "weights, clipped and noisy"
    assert norm(clipped.arrays) == pytest.approx(0.01, rel=1e-2)
    noisy, again, other = (
        see(network, gradient, attempt=a, differential_privacy={**local, "noise_multiplier": 2.0})
        for a in (0, 0, 1)
    )
    assert abs(cosine(noisy.arrays, gradient)) < 0.1
    count = sum(g.numel() for g in gradient.values())
    assert norm(noisy.arrays) == pytest.approx(2.0 * 0.01 * math.sqrt(count), rel=0.1)
    assert all(torch.equal(noisy.arrays[n], again.arrays[n]) for n in gradient)
    assert abs(cosine(noisy.arrays, {n: -a for n, a in other.arrays.items()})) < 0.1


def test_central_noise_is_none_against_the_server(
    network: nn.Module, gradient: dict[str, Tensor]
) -> None:
    central = {"enabled": True, "clip_norm": 0.01, "noise_multiplier": 5.0, "delta": 1e-3}
    seen = see(network, gradient, differential_privacy=central)
    assert (seen.words, cosine(seen.arrays, gradient)) == ("weights", pytest.approx(1.0, abs=1e-5))


def test_the_noise_of_dp_sgd_is_that_of_the_clients_own_steps() -> None:
    federation = FederationConfig(num_rounds=3, local_work={"unit": "steps", "amount": 2})
    assert step_noise(settings(), federation, CLIENTS, 4) is None
    told = settings(dp_sgd=DpSgdConfig(enabled=True, target_epsilon=2.0, delta=1e-3))
    expected = noise_multiplier_for(2.0, 1e-3, 6 / 36, 6)
    assert step_noise(told, federation, CLIENTS, 4) == expected
