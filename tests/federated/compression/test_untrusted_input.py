from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.compression.codecs import Codec, Fp16, Int8, TopK
from phoenix_pipeline.federated.compression.updates import decode, encode

TEMPLATE = {"w": torch.zeros(20, 30), "steps": torch.tensor(1)}
Arrays = dict[str, Tensor]


def message(codec: Codec | None) -> Arrays:
    generator = torch.Generator().manual_seed(0)
    update = {"w": torch.randn(20, 30, generator=generator), "steps": torch.tensor(7)}
    return encode(update, codec, generator).vectors


def put(key: str, index: int, value: float) -> Callable[[Arrays], Arrays]:
    def change(arrays: Arrays) -> Arrays:
        vector = arrays[key].clone()
        vector[index] = value
        return arrays | {key: vector}

    return change


CASES: list[tuple[Codec | None, Callable[[Arrays], Arrays], str]] = [
    (None, lambda a: {}, "the message's arrays are none"),
    (None, lambda a: a | {"extra": torch.zeros(1)}, "extra"),
    (None, lambda a: {k: v for k, v in a.items() if k != "int64"}, "need float32, int64"),
    (None, lambda a: a | {"float32": a["float32"].double()}, "float64"),
    (None, lambda a: a | {"float32": a["float32"][:-1]}, "599"),
    (None, lambda a: a | {"float32": a["float32"].reshape(2, -1)}, "300"),
    (None, put("float32", 3, float("nan")), "not finite"),
    (Fp16(), put("values", 0, float("inf")), "not finite"),
    (Fp16(), lambda a: message(Int8()), "need int64, values"),
    (Int8(), put("codes", 5, -128), "int8 codes must be -127..127"),
    (Int8(), put("scales", 2, -1.0), "scales 0 or more"),
    (Int8(), put("scales", 2, float("inf")), "not finite"),
    (Int8(), put("scales", 2, 3.4e38), "decodes to a value that is not finite"),
    (TopK(0.1), put("positions_2", 0, -1), "ascending within 0..599"),
    (TopK(0.1), put("positions_2", -1, 600), "ascending within 0..599"),
    (TopK(0.1), lambda a: a | {"positions_2": a["positions_2"].flip(0)}, "ascending"),
    (TopK(0.1), lambda a: a | {"positions_2": torch.full_like(a["positions_2"], 4)}, "ascending"),
    (TopK(0.1), put("values", 0, float("nan")), "not finite"),
    (TopK(0.1), lambda a: message(TopK(0.2)), "(120,)"),
]


@pytest.mark.parametrize(("codec", "change", "said"), CASES)
def test_tampered_arrays_are_refused(
    codec: Codec | None, change: Callable[[Arrays], Arrays], said: str
) -> None:
    decode(message(codec), codec, TEMPLATE)
    with pytest.raises(FederationError) as error:
        decode(change(message(codec)), codec, TEMPLATE)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
