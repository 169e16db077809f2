import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from phoenix_pipeline.config.compression import CodecConfig
from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.compression import channels
from phoenix_pipeline.federated.compression.channels import Channels
from phoenix_pipeline.federated.compression.codecs import (
    Codec,
    Fp16,
    Int4,
    Int8,
    TopK,
    Uniform,
    codec_of,
)
from phoenix_pipeline.federated.compression.updates import (
    codec_for,
    decode,
    encode,
)
from tests.federated.tiny import message_bytes

CODED = ["fp16", "int8", "int4", "uniform", "top_k"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed))


def write(codec: Codec, array: Tensor, source: torch.Generator) -> dict[str, Tensor]:
    """Return the vectors of one array."""
    return dict(codec.encode(array.reshape(-1), Channels((array.shape,)), source))


def read(codec: Codec, parts: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
    """Return the array of ``parts``."""
    return codec.decode(parts, Channels((shape,))).view(shape)


@pytest.mark.parametrize("codec", [Int8(), Int4(), Uniform(1.5)])
def test_a_message_does_not_depend_on_how_many_arrays_are_worked_on_at_a_time(
    codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = tuple(map(torch.Size, [(3,), (4, 5), (7, 3), (1,), (6, 2, 2), (9,)]))
    values = noise(sum(shape.numel() for shape in shapes))
    whole = codec.encode(values, Channels(shapes), generator())
    monkeypatch.setattr(channels, "BLOCK", 20)
    # Layouts are worked out once, and these are not to be found by others.
    monkeypatch.setattr(channels, "channels_of", Channels)
    cut = Channels(shapes)
    assert [(start, end) for start, end, _ in cut.blocks] == [(0, 23), (23, 44), (44, 69), (69, 78)]
    in_blocks = codec.encode(values, cut, generator())
    assert whole.keys() == in_blocks.keys()
    assert all(torch.equal(whole[name], in_blocks[name]) for name in whole)
    assert torch.equal(codec.decode(whole, Channels(shapes)), codec.decode(whole, cut))


def test_fp16_returns_what_half_precision_holds() -> None:
    array = torch.tensor([[0.5, -1.25, 65504.0], [2.0**-24, 0.0, 1.0 + 2.0**-10]])
    written = write(Fp16(), array, generator())
    assert torch.equal(read(Fp16(), written, array.shape), array)


def test_fp16_cuts_what_is_too_large_instead_of_sending_infinity() -> None:
    written = write(Fp16(), torch.tensor([1e6, -1e6]), generator())
    assert read(Fp16(), written, torch.Size([2])).tolist() == [65504.0, -65504.0]


def test_int8_keeps_multiples_of_the_scale_and_each_channels_largest_value() -> None:
    array = torch.tensor([[127.0, 3.0, -5.0], [0.0, 0.0, 0.0], [-1.27, 0.63, 1.0]])
    written = write(Int8(), array, generator())
    assert written["scales"].tolist() == pytest.approx([1.0, 0.0, 0.01])
    assert written["codes"][:7].tolist() == [127, 3, -5, 0, 0, 0, -127]


def test_int4_packs_two_codes_in_a_byte() -> None:
    array = torch.tensor([[7.0, -7.0, 3.0], [0.0, 0.0, 0.0], [0.7, -0.2, 0.1]])
    written = write(Int4(), array, generator())
    assert written["scales"].tolist() == pytest.approx([1.0, 0.0, 0.1])
    # 7 + 8 and 16 x (-7 + 8); 3 + 8 and 16 x 8; the last byte's high half is the padding.
    assert written["codes"][:3].tolist() == [15 + 16, 11 + 128, 8 + 128]
    assert written["codes"].shape == (5,)
    assert int(written["codes"][4]) >> 4 == 8
    assert torch.equal(read(Int4(), written, array.shape)[:2], array[:2])


@pytest.mark.parametrize("byte", [0x80, 0x08, 0x18])
def test_int4_refuses_what_no_encoder_writes(byte: int) -> None:
    parts = {"codes": torch.tensor([byte], dtype=torch.uint8), "scales": torch.ones(1)}
    with pytest.raises(FederationError, match=r"int4 codes must be -7\.\.7, padded by 0"):
        read(Int4(), parts, torch.Size([1]))


def test_int4_rounding_is_unbiased() -> None:
    array, draws, source = noise(4, 61), 2000, generator(1)
    total = torch.zeros_like(array)
    for _ in range(draws):
        total += read(Int4(), write(Int4(), array, source), array.shape)
    scales = array.abs().amax(dim=1, keepdim=True) / 7
    assert (((total / draws - array).abs() / scales).max()) < 5 * 0.5 / math.sqrt(draws)


def test_int8_rounding_is_unbiased() -> None:
    # One code up or down: an error of variance p (1 - p) scale^2, at most scale^2 / 4.
    array, draws, codec = noise(4, 60), 4000, Int8()
    source = generator(1)
    total = torch.zeros_like(array)
    for _ in range(draws):
        total += read(codec, write(codec, array, source), array.shape)
    scales = array.abs().amax(dim=1, keepdim=True) / 127
    # 240 values: the largest of as many normal deviates stays below 5 standard errors.
    assert (((total / draws - array).abs() / scales).max()) < 5 * 0.5 / math.sqrt(draws)


def test_int8_is_off_by_less_than_a_scale() -> None:
    array = noise(6, 50, seed=2)
    scales = array.abs().amax(dim=1, keepdim=True) / 127
    decoded = read(Int8(), write(Int8(), array, generator()), array.shape)
    assert ((decoded - array).abs() <= scales * (1 + 1e-5)).all()


def test_int8_depends_on_the_generator_alone() -> None:
    array = noise(5, 5)
    same = [write(Int8(), array, generator(3))["codes"] for _ in range(2)]
    other = write(Int8(), array, generator(4))["codes"]
    assert torch.equal(*same)
    assert not torch.equal(same[0], other)


def test_top_k_picks_the_largest_magnitudes() -> None:
    array = torch.tensor([[0.5, -8.0, 1.0], [0.0, 4.0, -2.0]])
    written = write(TopK(0.5), array, generator())
    assert written["positions_1"].tolist() == [1, 4, 5]
    assert written["values"].tolist() == [-8.0, 4.0, -2.0]
    decoded = read(TopK(0.5), written, array.shape)
    assert decoded.tolist() == [[0.0, -8.0, 0.0], [0.0, 4.0, -2.0]]


@pytest.mark.parametrize(
    ("count", "dtype"),
    [(256, torch.uint8), (257, torch.int16), (32768, torch.int16), (32769, torch.int32)],
)
def test_positions_take_the_smallest_type_that_reaches_the_last(
    count: int, dtype: torch.dtype
) -> None:
    array = torch.zeros(count)
    array[-1] = 1.0
    written = write(TopK(1 / count), array, generator())
    assert written[f"positions_{dtype.itemsize}"].dtype == dtype
    assert read(TopK(1 / count), written, array.shape)[-1] == 1.0


def test_sizes_are_as_computed_by_hand() -> None:
    template = {"conv.weight": torch.zeros(8, 4, 3, 3), "conv.bias": torch.zeros(8)}
    assert message_bytes(template, None) == 288 * 4 + 8 * 4
    assert message_bytes(template, Fp16()) == 288 * 2 + 8 * 2
    assert message_bytes(template, Int8()) == (288 + 8 * 4) + (8 + 4)
    assert message_bytes(template, Int4()) == (144 + 8 * 4) + (4 + 4)
    # 29 and 1 values of 2 bytes; positions up to 287 take 2 bytes, up to 7 one.
    assert message_bytes(template, TopK(0.1)) == 29 * 4 + 3
    # Of an odd number of codes the last half byte of all is left over, not one of each array.
    odd = {"a": torch.zeros(9), "b": torch.zeros(9), "c": torch.zeros(9)}
    assert message_bytes(odd, Int4()) == 14 + 3 * 4


def test_messages_have_the_predicted_size() -> None:
    update = {"a": noise(8, 4, 3, 3), "b": noise(8), "c": torch.tensor(3)}
    for codec in (None, Fp16(), Int8(), Int4(), TopK(0.1)):
        arrays = encode(update, codec, generator()).vectors
        size = sum(a.numel() * a.element_size() for a in arrays.values())
        if codec in (None, Fp16()):
            assert size == message_bytes(update, codec)
        # Codes of one byte are deflated: of few that are all different no less, and 5 bytes more.
        assert size <= message_bytes(update, codec) + 5
        assert len(arrays) <= 5


def test_arrays_that_a_codec_would_not_shrink_are_sent_as_they_are() -> None:
    assert codec_for("bias", torch.zeros(1), Int8()) is None
    assert codec_for("bias", torch.zeros(2), Int8()) is not None
    assert codec_for("weight", torch.zeros(9, 1), Int8()) is None
    assert codec_for("weight", torch.zeros(9, dtype=torch.float16), Fp16()) is None
    assert codec_for("weight", torch.zeros(0), Fp16()) is None


def test_state_of_batch_norm_and_integers_pass_through() -> None:
    update = {
        "norm.running_mean": noise(64),
        "norm.running_var": noise(64).abs(),
        "norm.num_batches_tracked": torch.tensor(2**40 + 1),
        "table": torch.arange(300),
        "flags": torch.tensor([True, False]),
    }
    for codec in (Fp16(), Int8(), TopK(0.01)):
        arrays = encode(update, codec, generator()).vectors
        back = decode(arrays, codec, update)
        assert all(torch.equal(back[name], update[name]) for name in update)


@pytest.mark.parametrize("kind", ["none", *CODED])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int8])
def test_names_shapes_and_dtypes_come_back(kind: str, dtype: torch.dtype) -> None:
    update = {"z": (noise(6, 7) * 9).to(dtype), "a": torch.zeros(3, dtype=dtype)}
    update["scalar"] = torch.tensor(2.0).to(dtype)
    codec = codec_of(CodecConfig(codec=kind, density=0.2))
    back = decode(encode(update, codec, generator()).vectors, codec, update)
    assert back.keys() == update.keys()
    for name, array in update.items():
        assert (back[name].shape, back[name].dtype) == (array.shape, array.dtype)
    if kind == "none":
        assert all(torch.equal(back[name], update[name]) for name in update)
    assert back["a"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("kind", CODED)
def test_many_arrays_at_once_are_written_as_each_by_itself(kind: str) -> None:
    codec = codec_of(CodecConfig(codec=kind, density=0.2))
    assert codec is not None
    shapes = [(4, 3, 3, 3), (7,), (1, 5), (6, 2), (2, 2, 1)]
    arrays = [noise(*shape, seed=i) for i, shape in enumerate(shapes)]
    channels = Channels(tuple(array.shape for array in arrays))
    values = torch.cat([array.reshape(-1) for array in arrays])
    together = codec.encode(values, channels, generator(9))
    announced = codec.parts(channels)
    assert {name: (len(v), v.dtype) for name, v in together.items()} == announced
    source, back = generator(9), codec.decode(together, channels).split(channels.sizes)
    for array, own in zip(arrays, back, strict=True):
        alone = read(codec, write(codec, array, source), array.shape)
        assert torch.equal(own.view(array.shape), alone)


def test_scales_are_of_output_channels_and_a_vector_has_one() -> None:
    channels = Channels((torch.Size([2, 3]), torch.Size([4]), torch.Size([])))
    values = torch.tensor([1.0, 2, 3, 4, 5, 6, 1, 1, 1, 2, 7])
    assert channels.sums(values).tolist() == [6.0, 15.0, 5.0, 7.0]
    assert channels.maxima(values).tolist() == [3.0, 6.0, 2.0, 7.0]
    assert channels.spread(torch.arange(4.0)).tolist() == [0.0] * 3 + [1.0] * 3 + [2.0] * 4 + [3.0]
