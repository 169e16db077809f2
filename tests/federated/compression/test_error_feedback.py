import pytest
import torch
from torch import Tensor

from phoenix_pipeline.errors import TrainingError
from phoenix_pipeline.federated.compression.codecs import Codec, Fp16, Int4, Int8, TopK
from phoenix_pipeline.federated.compression.updates import apply_update, decode, difference, encode

SHAPES = {"conv.weight": (8, 4, 3, 3), "conv.bias": (8,)}


def draw(generator: torch.Generator) -> dict[str, Tensor]:
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


@pytest.mark.parametrize("codec", [Fp16(), Int8(), Int4(), TopK(0.05)])
def test_what_was_decoded_and_what_is_left_are_all_updates(codec: Codec) -> None:
    generator = torch.Generator().manual_seed(0)
    residual: dict[str, Tensor] = {}
    given = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    received = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    for _ in range(30):
        update = draw(generator)
        encoded = encode(update, codec, generator, residual)
        residual = encoded.residual
        for name, array in decode(encoded.vectors, codec, update).items():
            given[name] += update[name]
            received[name] += array
    for name in SHAPES:
        torch.testing.assert_close(received[name] + residual[name], given[name], atol=1e-4, rtol=0)
    assert any(array.abs().max() > 0 for array in residual.values())


def test_without_a_residual_nothing_is_kept() -> None:
    generator = torch.Generator().manual_seed(0)
    assert encode(draw(generator), TopK(0.1), generator).residual == {}


def test_arrays_that_are_not_sent_keep_their_residual() -> None:
    generator = torch.Generator().manual_seed(0)
    update = draw(generator)
    first = encode(update, TopK(0.1), generator, {}).residual
    second = encode({"conv.bias": update["conv.bias"]}, TopK(0.1), generator, first).residual
    assert torch.equal(second["conv.weight"], first["conv.weight"])
    assert not torch.equal(second["conv.bias"], first["conv.bias"])


def test_an_array_that_is_written_for_the_first_time_has_left_out_nothing() -> None:
    """With usplit it may be in a later round than others."""
    earlier, new = {"a": torch.ones(8)}, {"b": torch.linspace(-1.0, 1.0, 8)}
    codec = TopK(0.25)
    with_others = encode(new, codec, torch.Generator(), earlier)
    alone = encode(new, codec, torch.Generator(), {})
    assert torch.equal(decode(with_others.vectors, codec, new)["b"], torch.tensor(
        [-1.0, 0, 0, 0, 0, 0, 0, 1.0]
    ))  # fmt: skip
    assert torch.equal(with_others.residual["b"], alone.residual["b"])
    assert with_others.residual["a"].tolist() == [1.0] * 8


def descend(density: float, residuals: list[dict[str, Tensor]] | None) -> Tensor:
    """Average compressed gradient steps of two clients, whose optimum is their mean (0, 1, 0, 0).

    Each client's own optimum is far out on the first axis, on opposite sides.
    """
    optima = (torch.tensor([10.0, 1.0, 0.0, 0.0]), torch.tensor([-10.0, 1.0, 0.0, 0.0]))
    weights = {"x": torch.zeros(4)}
    codec, generator = TopK(density), torch.Generator().manual_seed(0)
    for _ in range(400):
        mean = torch.zeros(4)
        for client, optimum in enumerate(optima):
            trained = {"x": weights["x"] - 0.05 * (weights["x"] - optimum)}
            own = None if residuals is None else residuals[client]
            encoded = encode(difference(trained, weights), codec, generator, own)
            if residuals is not None:
                residuals[client] = encoded.residual
            mean += apply_update(weights, decode(encoded.vectors, codec, weights))["x"] / 2
        weights = {"x": mean}
    return weights["x"]


def test_error_feedback_converges_where_plain_top_k_stalls() -> None:
    optimum = torch.tensor([0.0, 1.0, 0.0, 0.0])
    assert (descend(0.25, None) - optimum).norm() == pytest.approx(1.0)
    assert (descend(0.25, [{}, {}]) - optimum).norm() < 0.1
    assert (descend(1.0, None) - optimum).norm() < 1e-3


def test_a_diverged_update_is_not_sent() -> None:
    update = {"a": torch.tensor([1.0, float("nan")])}
    with pytest.raises(TrainingError, match="a holds a value that is not finite"):
        encode(update, Int8(), torch.Generator())


def test_state_is_sent_as_a_value_and_not_as_a_difference() -> None:
    reference = {"w": torch.tensor([1.0, 2.0]), "n.running_mean": torch.tensor([5.0])}
    trained = {"w": torch.tensor([1.5, 1.0]), "n.running_mean": torch.tensor([7.0])}
    update = difference(trained, reference)
    assert update["w"].tolist() == [0.5, -1.0]
    assert update["n.running_mean"].tolist() == [7.0]
    assert all(torch.equal(a, trained[n]) for n, a in apply_update(reference, update).items())
