"""Two and three bits: packing by hand, the best scale, and never losing more than is kept."""

import pytest
import torch

from phoenix_pipeline.config import CompressionConfig
from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.compression.codecs import codec_of
from phoenix_pipeline.federated.compression.few_bits import FewBits


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def round_trip(codec: FewBits, array: torch.Tensor) -> torch.Tensor:
    return codec.decode(codec.encode(array, torch.Generator()), array.shape)


def test_three_bits_pack_eight_codes_in_three_bytes() -> None:
    array = torch.tensor([[3.0, -1.0, 0.0, 1.0, 0.0, -1.0, -1.0, 1.0]])
    written = FewBits(3).encode(array, torch.Generator())
    assert written["scales"].tolist() == pytest.approx([1.0])
    word = sum((code + 3) << (3 * i) for i, code in enumerate([3, -1, 0, 1, 0, -1, -1, 1]))
    assert written["codes"].tolist() == [word & 255, word >> 8 & 255, word >> 16]
    assert torch.allclose(FewBits(3).decode(written, array.shape), array)


def test_two_bits_pack_four_codes_in_a_byte() -> None:
    array = torch.tensor([[0.5, -0.5, 0.0], [0.0, 0.0, 0.0]])
    written = FewBits(2).encode(array, torch.Generator())
    assert written["scales"].tolist() == pytest.approx([0.5, 0.0])
    # Codes plus 1: 2, 0, 1, 1 and 1, 1, with two of padding: 1, 1.
    assert written["codes"].tolist() == [0b01_01_00_10, 0b01_01_01_01]
    assert torch.allclose(FewBits(2).decode(written, array.shape), array)


@pytest.mark.parametrize(("bits", "lost"), [(2, 0.190), (3, 0.0469)])
def test_of_normal_values_as_much_is_lost_as_the_best_quantizer_loses(
    bits: int, lost: float
) -> None:
    # Uniform quantizers of 3 and 7 levels for a normal distribution (Max, 1960).
    array = noise(4, 20_000)
    error = (round_trip(FewBits(bits), array) - array).square().mean()
    assert error.item() == pytest.approx(lost, rel=0.05)


@pytest.mark.parametrize("bits", [2, 3])
def test_no_array_loses_more_than_it_keeps(bits: int) -> None:
    arrays = [noise(3, 50, seed=i) ** 3 for i in range(20)]
    arrays += [torch.eye(5), torch.zeros(4, 4), torch.ones(7), 1e-20 * noise(4, 9), noise(1)]
    for array in arrays:
        rest = array - round_trip(FewBits(bits), array)
        assert rest.square().sum() <= 0.999 * array.square().sum() + 1e-30


@pytest.mark.parametrize("bits", [2, 3])
def test_with_error_feedback_the_sum_of_what_is_sent_is_the_sum_of_the_updates(bits: int) -> None:
    update, residual, sent = noise(4, 60), torch.zeros(4, 60), torch.zeros(4, 60)
    for _ in range(400):
        due = update + residual
        read = round_trip(FewBits(bits), due)
        residual = due - read
        sent += read
    assert (sent / 400 - update).abs().max() < 0.05


@pytest.mark.parametrize("shape", [(1,), (7,), (8,), (3, 3), (5, 2, 3, 3), (4, 1)])
@pytest.mark.parametrize("bits", [2, 3])
def test_what_is_written_has_the_announced_size(bits: int, shape: tuple[int, ...]) -> None:
    codec, array = FewBits(bits), noise(*shape)
    written, parts = codec.encode(array, torch.Generator()), codec.parts(array.shape)
    assert {name: (t.shape, t.dtype) for name, t in written.items()} == parts
    assert round_trip(codec, array).shape == array.shape


@pytest.mark.parametrize(
    ("bits", "codes", "scale"),
    [(2, [0b01_01_01_11], 1.0), (2, [0b00_01_01_01], 1.0), (3, [7, 0, 0], 1.0), (2, [85], -1.0)],
    ids=["code", "padding", "three bits", "scale"],
)
def test_what_no_encoder_writes_is_refused(bits: int, codes: list[int], scale: float) -> None:
    parts = {
        "codes": torch.tensor(codes, dtype=torch.uint8),
        "scales": torch.tensor([scale]),
    }
    with pytest.raises(FederationError, match=f"int{bits} codes must be"):
        FewBits(bits).decode(parts, torch.Size([2]))


@pytest.mark.parametrize("kind", ["int2", "int3"])
def test_they_need_what_sends_the_rest_later(kind: str) -> None:
    assert isinstance(codec_of(CompressionConfig(up={"codec": kind}).up), FewBits)
    with pytest.raises(ValueError, match="set error_feedback: true"):
        CompressionConfig(up={"codec": kind, "error_feedback": False})
    with pytest.raises(ValueError, match="set relative_to: last_broadcast"):
        CompressionConfig(down={"codec": kind})
