"""Arrays on the wire: Flower's own format, byte for byte, and nothing but numbers comes back."""

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord

from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.federated.records import (
    pack_arrays,
    pack_weights,
    unpack_arrays,
    unpack_weights,
)
from phoenix_pipeline.federated.wire import Layout

STATE = {
    "matrix": torch.arange(6.0).reshape(2, 3).T,
    "scalar": torch.tensor(7),
    "empty": torch.zeros(0, 4),
    "half": torch.ones(3).half(),
    "flags": torch.tensor([True, False]),
}


@pytest.mark.parametrize("name", STATE)
def test_records_are_those_of_flower(name: str) -> None:
    ours = pack_arrays(STATE)[name]
    plain = STATE[name].contiguous().numpy()
    theirs = Array(plain)
    assert (ours.dtype, ours.shape, ours.stype, ours.data) == (
        (theirs.dtype, theirs.shape, theirs.stype, theirs.data)
    )
    assert np.array_equal(ours.numpy(), plain)
    back = unpack_arrays(ArrayRecord({name: theirs}))[name]
    assert back.dtype == STATE[name].dtype and torch.equal(back, STATE[name])
    back.zero_()
    assert np.array_equal(ours.numpy(), plain)


def test_arrays_in_fortran_order_keep_their_values() -> None:
    turned = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    back = unpack_arrays(ArrayRecord({"x": Array(turned)}))["x"]
    assert torch.equal(back, torch.from_numpy(np.ascontiguousarray(turned)))


def test_a_models_weights_are_one_array_per_dtype_and_come_back_by_name() -> None:
    state = {name: STATE[name] for name in ("matrix", "scalar", "empty", "half")}
    record, layout = pack_weights(state), Layout.of(state)
    assert set(record) == {"float32", "int64", "float16"}
    back = unpack_weights(record, layout)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())
    assert Layout.of(back) == layout
    renamed = {name.upper(): tensor for name, tensor in state.items()}
    assert Layout.of(renamed).fingerprint != layout.fingerprint
    turned = state | {"matrix": state["matrix"].T}
    assert Layout.of(turned).fingerprint != layout.fingerprint
    with pytest.raises(FederationError, match=r"array float32 is torch.float32 \(6,\).*\(9,\)"):
        unpack_weights(record, Layout.of(state | {"matrix": torch.zeros(3, 3)}))


@pytest.mark.parametrize("dtype", [">f4", "S4", "M8[s]"])
def test_weights_of_a_foreign_dtype_are_malformed(dtype: str) -> None:
    record = ArrayRecord({"float32": Array(np.zeros(6).astype(dtype))})
    with pytest.raises((ValueError, TypeError), match="cannot be read"):
        unpack_weights(record, Layout.of({"matrix": torch.zeros(6)}))


@pytest.mark.parametrize(
    ("stype", "data"),
    [
        ("pickle", Array(np.ones(3)).data),
        ("numpy.ndarray", b""),
        ("numpy.ndarray", b"\x93NUMPY\x02" + Array(np.ones(3)).data[7:]),
        ("numpy.ndarray", Array(np.ones(3)).data[:-1]),
        ("numpy.ndarray", Array(np.ones(3)).data[:-8]),
        ("numpy.ndarray", Array(np.ones(3)).data.replace(b"(3,)", b"(9,)")),
        ("numpy.ndarray", Array(np.ones(3)).data.replace(b"<f8", b"|O8")),
    ],
)
def test_malformed_arrays_are_refused(stype: str, data: bytes) -> None:
    with pytest.raises(ValueError):
        unpack_arrays(ArrayRecord({"x": Array("float64", (3,), stype, data)}))


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 3), (4, 1, 0, 5), (1,) * 32])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "u1", "i2", "i4", "i8", "bool"])
def test_what_numpy_writes_is_read(shape: tuple[int, ...], dtype: str) -> None:
    values = np.arange(int(np.prod(shape))).reshape(shape).astype(dtype, order="F")
    read = unpack_arrays(ArrayRecord({"x": Array(values)}))["x"]
    assert read.shape == shape
    assert np.array_equal(read.numpy(), values)


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"-" * 200 + b"1,), }\n",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (2**1,), }\n",
        b"{'descr': '<f4', 'fortran_order': 0, 'shape': (2,), }\n",
        b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n",
        b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }\n",
        b"__import__('os')\n",
    ],
)
def test_a_header_is_matched_and_not_evaluated(header: bytes) -> None:
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(8)
    with pytest.raises(ValueError, match="cannot be read"):
        unpack_arrays(ArrayRecord({"x": Array("float32", (2,), "numpy.ndarray", data)}))
