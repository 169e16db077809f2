"""Three and seven codes: packing by hand, the best scale, and never losing more than is kept."""

import pytest
import torch

from phoenix_pipeline.config import CompressionConfig
from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.compression.channels import Channels
from phoenix_pipeline.federated.compression.codecs import codec_of
from phoenix_pipeline.federated.compression.few_codes import INT3, TERNARY, FewCodes


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def write(codec: FewCodes, array: torch.Tensor) -> dict[str, torch.Tensor]:
    written = codec.encode(array.reshape(-1), Channels((array.shape,)), torch.Generator())
    return {name: only for name, (only,) in written.items()}


def read(codec: FewCodes, parts: dict[str, torch.Tensor], shape: torch.Size) -> torch.Tensor:
    told = {name: [part] for name, part in parts.items()}
    return codec.decode(told, Channels((shape,))).view(shape)


def round_trip(codec: FewCodes, array: torch.Tensor) -> torch.Tensor:
    return read(codec, write(codec, array), array.shape)


def test_three_bits_pack_eight_codes_in_three_bytes() -> None:
    array = torch.tensor([[3.0, -1.0, 0.0, 1.0, 0.0, -1.0, -1.0, 1.0]])
    written = write(INT3, array)
    assert written["scales"].tolist() == pytest.approx([1.0])
    word = sum((code + 3) << (3 * i) for i, code in enumerate([3, -1, 0, 1, 0, -1, -1, 1]))
    assert written["codes"].tolist() == [word & 255, word >> 8 & 255, word >> 16]
    assert torch.allclose(read(INT3, written, array.shape), array)


def test_five_ternary_codes_make_a_byte() -> None:
    array = torch.tensor([[0.5, -0.5, 0.0], [0.0, 0.0, 0.0]])
    written = write(TERNARY, array)
    assert written["scales"].tolist() == pytest.approx([0.5, 0.0])
    # Digits, codes plus 1: 2, 0, 1, 1, 1 and 1, with four of padding: 1, 1, 1, 1.
    assert written["codes"].tolist() == [2 + 0 * 3 + 1 * 9 + 1 * 27 + 1 * 81, 1 + 3 + 9 + 27 + 81]
    assert torch.allclose(read(TERNARY, written, array.shape), array)


@pytest.mark.parametrize(("codec", "lost"), [(TERNARY, 0.190), (INT3, 0.0469)])
def test_of_normal_values_as_much_is_lost_as_the_best_quantizer_loses(
    codec: FewCodes, lost: float
) -> None:
    # Uniform quantizers of 3 and 7 levels for a normal distribution (Max, 1960).
    array = noise(4, 20_000)
    error = (round_trip(codec, array) - array).square().mean()
    assert error.item() == pytest.approx(lost, rel=0.05)


@pytest.mark.parametrize("codec", [TERNARY, INT3])
def test_no_array_loses_more_than_it_keeps(codec: FewCodes) -> None:
    arrays = [noise(3, 50, seed=i) ** 3 for i in range(20)]
    arrays += [torch.eye(5), torch.zeros(4, 4), torch.ones(7), 1e-20 * noise(4, 9), noise(1)]
    for array in arrays:
        rest = array - round_trip(codec, array)
        assert rest.square().sum() <= 0.999 * array.square().sum() + 1e-30


@pytest.mark.parametrize("codec", [TERNARY, INT3])
def test_with_error_feedback_the_sum_of_what_is_sent_is_the_sum_of_the_updates(
    codec: FewCodes,
) -> None:
    update, residual, sent = noise(4, 60), torch.zeros(4, 60), torch.zeros(4, 60)
    for _ in range(400):
        due = update + residual
        read = round_trip(codec, due)
        residual = due - read
        sent += read
    assert (sent / 400 - update).abs().max() < 0.05


@pytest.mark.parametrize("shape", [(1,), (7,), (8,), (3, 3), (5, 2, 3, 3), (4, 1)])
@pytest.mark.parametrize("codec", [TERNARY, INT3])
def test_what_is_written_has_the_announced_size(codec: FewCodes, shape: tuple[int, ...]) -> None:
    array = noise(*shape)
    written, parts = write(codec, array), codec.parts(array.shape)
    assert {name: (t.shape, t.dtype) for name, t in written.items()} == parts
    assert round_trip(codec, array).shape == array.shape


@pytest.mark.parametrize(
    ("codec", "codes", "scale"),
    [(TERNARY, [243], 1.0), (TERNARY, [40], 1.0), (INT3, [7, 0, 0], 1.0), (TERNARY, [121], -1.0)],
    ids=["no such number", "padding", "no such code", "scale"],
)
def test_what_no_encoder_writes_is_refused(codec: FewCodes, codes: list[int], scale: float) -> None:
    parts = {
        "codes": torch.tensor(codes, dtype=torch.uint8),
        "scales": torch.tensor([scale]),
    }
    with pytest.raises(FederationError, match=f"{codec.name} codes must be"):
        read(codec, parts, torch.Size([2]))


@pytest.mark.parametrize("kind", ["ternary", "int3"])
def test_they_need_what_sends_the_rest_later(kind: str) -> None:
    assert isinstance(codec_of(CompressionConfig(up={"codec": kind}).up), FewCodes)
    with pytest.raises(ValueError, match="set error_feedback: true"):
        CompressionConfig(up={"codec": kind, "error_feedback": False})
    with pytest.raises(ValueError, match="set relative_to: last_broadcast"):
        CompressionConfig(down={"codec": kind})
