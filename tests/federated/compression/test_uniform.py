"""Steps of even width by hand, what normal values lose and cost, and what is refused."""

import math

import pytest
import torch

from phoenix_pipeline.config import CompressionConfig
from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.compression.channels import Channels
from phoenix_pipeline.federated.compression.codecs import Uniform, codec_of
from phoenix_pipeline.federated.compression.updates import decode, encode


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def write(codec: Uniform, array: torch.Tensor) -> dict[str, torch.Tensor]:
    return dict(codec.encode(array.reshape(-1), Channels((array.shape,)), torch.Generator()))


def read(codec: Uniform, parts: dict[str, torch.Tensor], shape: torch.Size) -> torch.Tensor:
    return codec.decode(parts, Channels((shape,))).view(shape)


def test_codes_and_scale_are_as_computed_by_hand() -> None:
    # The root mean square is sqrt(36 / 4) = 3, and so is the step.
    array = torch.tensor([[5.0, 3.0], [-1.0, 1.0]])
    written = write(Uniform(1.0), array)
    # Codes 2, 1, 0, 0; least squares: (2 * 5 + 1 * 3) / (4 + 1).
    assert written["codes"].tolist() == [(2 + 8) | (1 + 8) << 4, 8 | 8 << 4]
    assert written["scales"].tolist() == pytest.approx([13 / 5])
    assert read(Uniform(1.0), written, array.shape).tolist() == [
        [pytest.approx(5.2), pytest.approx(2.6)],
        [0.0, 0.0],
    ]


def test_what_lies_beyond_seven_steps_is_cut() -> None:
    array = torch.zeros(400)
    array[0] = 1.0
    # The root mean square is 1 / 20, so that the value lies 20 steps out.
    assert write(Uniform(1.0), array)["codes"][0] == (7 + 8) | 8 << 4


def test_arrays_of_zeros_stay_zeros() -> None:
    array = torch.zeros(3, 3)
    assert torch.equal(read(Uniform(1.0), write(Uniform(1.0), array), array.shape), array)


@pytest.mark.parametrize("step", [0.5, 1.0, 1.5])
def test_of_normal_values_it_loses_and_costs_what_theory_says(step: float) -> None:
    update = {"w": noise(400, 500)}
    message = encode(update, Uniform(step), torch.Generator()).vectors
    error = decode(message, Uniform(step), update)["w"] - update["w"]
    lost, entropy = _loss_and_entropy(step)
    assert error.square().mean().item() == pytest.approx(lost, rel=0.03)
    assert 8 * message["codes"].numel() / update["w"].numel() == pytest.approx(entropy, rel=0.02)


def _loss_and_entropy(step: float) -> tuple[float, float]:
    """Return error and bits of a standard normal value rounded to ``step``, rescaled for the best.

    For a code q of a value x the best scale is E[x q] / E[q q], and 1 - E[x q]^2 / E[q q] is lost.
    """

    def below(x: float) -> float:
        return 0.5 * (1.0 + math.erf(x / math.sqrt(2.0)))

    def density(x: float) -> float:
        return math.exp(-x * x / 2.0) / math.sqrt(2.0 * math.pi)

    edges = {k: ((k - 0.5) * step, (k + 0.5) * step) for k in range(-7, 8)}
    edges |= {-7: (-math.inf, edges[-7][1]), 7: (edges[7][0], math.inf)}
    shares = {k: below(high) - below(low) for k, (low, high) in edges.items()}
    products = sum(k * (density(low) - density(high)) for k, (low, high) in edges.items())
    squares = sum(k * k * share for k, share in shares.items())
    entropy = -sum(share * math.log2(share) for share in shares.values() if share > 0.0)
    return 1.0 - products**2 / squares, entropy


def test_with_error_feedback_the_sum_of_what_is_sent_is_the_sum_of_the_updates() -> None:
    # One value lies 30 times beyond the others: it is cut, and comes in later messages.
    update, residual, sent = noise(4, 60), torch.zeros(4, 60), torch.zeros(4, 60)
    update[0, 0] = 30.0
    for _ in range(400):
        due = update + residual
        got = read(Uniform(1.5), write(Uniform(1.5), due), due.shape)
        residual = due - got
        sent += got
    assert (sent / 400 - update).abs().max() < 0.15


@pytest.mark.parametrize("shape", [(1,), (7,), (8,), (3, 3), (5, 2, 3, 3)])
def test_what_is_written_has_the_announced_size(shape: tuple[int, ...]) -> None:
    array = noise(*shape)
    written = write(Uniform(1.0), array)
    announced = Uniform(1.0).parts(Channels((array.shape,)))
    assert {name: (len(v), v.dtype) for name, v in written.items()} == announced


@pytest.mark.parametrize(
    ("codes", "scale", "said"),
    [
        ([8 | 0 << 4, 8 | 8 << 4], 1.0, "uniform codes must be -7..7"),
        ([8 | 8 << 4, 8 | 9 << 4], 1.0, "padded by 0"),
        ([8 | 8 << 4, 8 | 8 << 4], -1.0, "uniform scales must be 0 or more"),
    ],
    ids=["no such code", "padding", "scale"],
)
def test_what_no_encoder_writes_is_refused(codes: list[int], scale: float, said: str) -> None:
    parts = {"codes": torch.tensor(codes, dtype=torch.uint8), "scales": torch.tensor([scale])}
    with pytest.raises(FederationError, match=said):
        read(Uniform(1.0), parts, torch.Size([3]))


def test_it_needs_what_sends_the_rest_later() -> None:
    told = CompressionConfig(up={"codec": "uniform", "step": 1.5})
    assert codec_of(told.up) == Uniform(1.5)
    with pytest.raises(ValueError, match="set error_feedback: true"):
        CompressionConfig(up={"codec": "uniform", "error_feedback": False})
    with pytest.raises(ValueError, match="set relative_to: last_broadcast"):
        CompressionConfig(down={"codec": "uniform"})
