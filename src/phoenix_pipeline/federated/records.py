"""The names and types of what crosses the wire, in one place for both sides."""

import re
from collections.abc import Mapping
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from pydantic import Field, model_validator
from torch import Tensor, nn

from phoenix_pipeline.config import CompressionConfig, Group, ModelConfig, TrainingConfig
from phoenix_pipeline.errors import FederationError, SettingsError
from phoenix_pipeline.families import family_of
from phoenix_pipeline.federated.site_errors import SiteRefusal
from phoenix_pipeline.federated.wire import Joined, Layout, join, num_bytes
from phoenix_pipeline.latents.space import LatentSpace, trained_shape

ARRAYS = "arrays"
CONFIG = "config"
METRICS = "metrics"
# Sent only to clients that have no personal layers yet, after a warm-up that trained them.
INITIAL_PERSONAL = "initial-personal"
# Reference statistics of the threshold filter; their presence asks the client for a score.
REFERENCE = "reference"
PERSONAL_LAYERS_QUERY = "personal_layers"
# Asks a node of a deployment who it is and how many images it holds.
DESCRIBE_QUERY = "describe"
# Flower's name for NumPy's own format, and the bytes before its header: magic, version, length.
_NUMPY = "numpy.ndarray"
_NPY_PREFIX = 10
# Of 32 dimensions with 4 digits each.
_LONGEST_NPY_HEADER = 320
_NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([<|](?:f[248]|[iu][1248]|b1))', "
    rb"'fortran_order': (True|False), 'shape': \((\d*,?(?: \d+,?)*)\), \} *\n",
    re.DOTALL,
)

_REPLY_MARGIN_BYTES = 1 << 20


class LocalNoise(Group):
    """What a client does to its update before it sends it: clip to S, add noise of `z S`."""

    clip_norm: float = Field(gt=0.0)
    noise_multiplier: float = Field(ge=0.0)


class ClientSettings(Group):
    """What every client must know to train: sent with each message as JSON.

    ``class_names``: of a conditional model, in the order of its labels; empty for any other.
    ``base_digest``: of the weights that adapters are trained on, which every site has; "" without.
    ``latents``: of the autoencoder, which every site has too; None where pixels are learnt.
    """

    model: ModelConfig
    training: TrainingConfig
    channels: int
    image_size: int
    seed: int
    personal_layers: tuple[str, ...] = ()
    monitor_samples: int = 64
    monitor_steps: int = 10
    compression: CompressionConfig = CompressionConfig()
    strategies: dict[str, dict[str, Any]] = Field(default_factory=dict)
    local_noise: LocalNoise | None = None
    secret_noise: bool = False
    class_names: tuple[str, ...] = ()
    base_digest: str = ""
    latents: LatentSpace | None = None

    @model_validator(mode="after")
    def _no_site_reads_what_a_server_names(self) -> Self:
        model = self.model
        if model.start_from or model.autoencoder or model.allow_download:
            raise ValueError(
                "model.start_from, model.autoencoder and model.allow_download are each site's own"
            )
        return self

    @property
    def trained_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what the network is trained on: images, or their latents."""
        return trained_shape(self.channels, self.image_size, self.latents)

    def build_network(self) -> nn.Module:
        """Return the network with weights by ``seed`` alone; adapters without a base."""
        channels, side, _ = self.trained_shape
        return family_of(self.model).build(
            self.model, channels, side, self.seed, len(self.class_names)
        )

    def open_network(self, base: Path | None) -> nn.Module:
        """Return the network with ``base`` below adapters; raises SiteRefusal for others."""
        if not self.base_digest:
            return self.build_network()
        if base is None:
            raise SiteRefusal("no-base", "set base-model in the node configuration to its folder")
        model = self.model.model_copy(update={"start_from": str(base)})
        try:
            network = self.model_copy(update={"model": model}).build_network()
        except SettingsError as error:
            raise SiteRefusal("other-base", str(error)) from error
        found = family_of(self.model).base_digest(network)
        if found != self.base_digest:
            raise SiteRefusal(
                "other-base",
                f"{base} has the digest {found}, but the run is on {self.base_digest}; use the "
                "same folder at every site",
            )
        return network


def pack_arrays(state: Mapping[str, Tensor]) -> ArrayRecord:
    """Return ``state`` as a record; names, shapes and dtypes are kept."""
    record = ArrayRecord()
    for name, tensor in state.items():
        # Given to its constructor, arrays would be copied.
        record[name] = _to_array(tensor)
    return record


def unpack_arrays(record: ArrayRecord) -> dict[str, Tensor]:
    """Return a record's arrays as CPU tensors, without unpickling; raises ValueError if broken."""
    return {name: torch.from_numpy(_read(array).copy(order="C")) for name, array in record.items()}


def pack_weights(weights: Mapping[str, Tensor], layout: Layout | None = None) -> ArrayRecord:
    """Return a model's arrays as a record of one vector per dtype; names are not in it."""
    return pack_arrays(join(weights, layout).vectors)


def unpack_weights(record: ArrayRecord, layout: Layout) -> Joined:
    """Return the arrays in a message, read-only; raises ValueError or FederationError."""
    return Joined({name: _view(_read(array)) for name, array in record.items()}, layout)


def _to_array(tensor: Tensor) -> Array:
    # Flower's own way writes and parses NumPy's header anew for each array of each client.
    plain = tensor.detach().cpu().numpy()
    dtype, header = _npy_header(plain.shape, plain.dtype)
    content = np.ascontiguousarray(plain).data
    return Array(dtype, plain.shape, _NUMPY, b"".join((header, content)))


def _view(plain: np.ndarray) -> Tensor:
    # torch.from_numpy warns of memory that may only be read.
    try:
        return torch.utils.dlpack.from_dlpack(plain)
    except (BufferError, RuntimeError) as error:
        raise ValueError(f"an array of dtype {plain.dtype} cannot be read: {error}") from error


def _read(array: Array) -> np.ndarray:
    if array.stype != _NUMPY:
        raise ValueError(f"an array is not serialised as {_NUMPY!r}, which alone is read")
    start = _NPY_PREFIX + int.from_bytes(array.data[_NPY_PREFIX - 2 : _NPY_PREFIX], "little")
    if start > _LONGEST_NPY_HEADER:
        raise ValueError(f"an array's header has {start} bytes; {_LONGEST_NPY_HEADER} are allowed")
    shape, fortran, dtype = _read_npy_header(bytes(array.data[:start]))
    flat = np.frombuffer(array.data, dtype, offset=start)
    return flat.reshape(shape, order="F" if fortran else "C")


@lru_cache(maxsize=1024)
def _npy_header(shape: tuple[int, ...], dtype: np.dtype) -> tuple[str, bytes]:
    """Return the dtype's name and NumPy's header for such an array in C order."""
    stream = BytesIO()
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return str(dtype), stream.getvalue()


@lru_cache(maxsize=1024)
def _read_npy_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return (shape, whether it is in Fortran order, dtype) of an array in NumPy's format 1.0.

    NumPy evaluates the header as Python, which some headers of a few thousand bytes exhaust.
    """
    found = _NPY_HEADER.fullmatch(header)
    if not found:
        raise ValueError("an array cannot be read: plain numbers in NumPy's format 1.0 are needed")
    dtype, fortran, shape = (part.decode("ascii") for part in found.groups())
    sizes = tuple(int(size) for size in shape.replace(",", " ").split())
    return sizes, fortran == "True", np.dtype(dtype)


def check_size(size: int, expected: Mapping[str, Tensor]) -> None:
    """Raise FederationError for a reply of more bytes than any with these arrays can have."""
    largest = 2 * num_bytes(expected) + _REPLY_MARGIN_BYTES
    if size > largest:
        raise FederationError(f"the reply has {size} bytes; at most {largest} are allowed")


def count_bytes(content: RecordDict) -> int:
    """Return the serialised size of a message's records in bytes, framing aside."""
    size = 0
    for record in content.values():
        if isinstance(record, ConfigRecord):
            size += sum(len(key) + len(str(value).encode()) for key, value in record.items())
        else:
            size += record.count_bytes()
    return size
