"""Codes of one byte are deflated: lossless, smaller where they are uneven, and bounded."""

import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from torch import Tensor

from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.compression.deflate import deflate, inflate


def zeros(count: int) -> Tensor:
    """Return ``count`` codes of 0, deflated."""
    return deflate({"uint8": torch.zeros(count, dtype=torch.uint8)})["uint8"]


def as_bytes(packed: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(packed, np.uint8).copy())


def test_codes_come_back_and_other_vectors_are_left_alone() -> None:
    vectors = {
        "uint8": torch.arange(256, dtype=torch.uint8),
        "int8": torch.tensor([-127, 0, 0, 5], dtype=torch.int8),
        "float32": torch.randn(9),
        "int64": torch.tensor([3]),
    }
    lengths = {key: (len(v), v.dtype) for key, v in vectors.items()}
    packed = deflate(vectors)
    assert packed["float32"] is vectors["float32"]
    assert packed["int8"].dtype == torch.uint8
    back = inflate(packed, lengths)
    assert all(
        torch.equal(back[key], v) and back[key].dtype == v.dtype for key, v in vectors.items()
    )


def test_each_code_takes_the_bits_of_its_frequency() -> None:
    # A half, a quarter and two eighths: 1, 2, 3 and 4 bits, since the last place of the tree is
    # shared with the end of a block: 1.875 on average.
    codes = torch.tensor([0, 0, 0, 0, 9, 9, 7, 200], dtype=torch.uint8)
    order = torch.randperm(80_000, generator=torch.Generator().manual_seed(0))
    packed = deflate({"uint8": codes.repeat(10_000)[order]})["uint8"]
    assert 8 * len(packed) / 80_000 == pytest.approx(1.875, rel=0.01)


def test_codes_that_are_all_as_frequent_take_hardly_more_than_before() -> None:
    source = torch.Generator().manual_seed(0)
    codes = torch.randint(256, (100_000,), generator=source).to(torch.uint8)
    assert len(deflate({"uint8": codes})["uint8"]) < 100_000 * 1.001


@pytest.mark.parametrize(
    ("packed", "said"),
    [
        (as_bytes(b"\xff\xff\xff"), "cannot be inflated"),
        (zeros(7), "inflates to 7 codes"),
        (zeros(9), "inflates to over 8"),
        (zeros(8)[:-1], "nothing after them"),
        (torch.cat([zeros(8), as_bytes(b"x")]), "nothing after them"),
        (torch.zeros(4), "one vector of torch.uint8"),
        (torch.zeros(2, 2, dtype=torch.uint8), "one vector of torch.uint8"),
        (torch.zeros(0, dtype=torch.uint8), "inflates to 0 codes"),
    ],
    ids=["no code", "short", "long", "cut", "tail", "dtype", "shape", "empty"],
)
def test_what_no_client_writes_is_refused(packed: Tensor, said: str) -> None:
    with pytest.raises(FederationError, match=said) as error:
        inflate({"uint8": packed}, {"uint8": (8, torch.uint8)})
    assert "\n" not in str(error.value)


def test_a_message_that_swells_takes_no_more_memory_than_was_announced() -> None:
    bomb = as_bytes(zlib.compress(bytes(50_000_000), 9, wbits=-15))
    assert len(bomb) < 60_000
    tracemalloc.start()
    with pytest.raises(FederationError, match="inflates to over 8"):
        inflate({"uint8": bomb}, {"uint8": (8, torch.uint8)})
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
