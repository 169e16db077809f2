"""The names and types of what crosses the wire, in one place for both sides."""

from collections.abc import Mapping

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor, nn

from phoenix_pipeline.config import CompressionConfig, Group, ModelConfig, TrainingConfig
from phoenix_pipeline.errors import FederationError
from phoenix_pipeline.families import family_of

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

_REPLY_MARGIN_BYTES = 1 << 20


class LocalNoise(Group):
    """What a client does to its update before it sends it: clip to S, add noise of `z S`."""

    clip_norm: float
    noise_multiplier: float


class ClientSettings(Group):
    """What every client must know to train: sent with each message as JSON."""

    model: ModelConfig
    training: TrainingConfig
    channels: int
    image_size: int
    seed: int
    personal_layers: tuple[str, ...] = ()
    monitor_samples: int = 64
    monitor_steps: int = 10
    compression: CompressionConfig = CompressionConfig()
    local_noise: LocalNoise | None = None
    secret_noise: bool = False

    def build_network(self) -> nn.Module:
        """Return the network with its initial weights, which depend on ``seed`` alone."""
        return family_of(self.model).build(self.model, self.channels, self.image_size, self.seed)


def pack_arrays(state: Mapping[str, Tensor]) -> ArrayRecord:
    """Return ``state`` as a record; names, shapes and dtypes are kept."""
    return ArrayRecord(
        {name: Array(tensor.detach().cpu().numpy()) for name, tensor in state.items()}
    )


def unpack_arrays(record: ArrayRecord) -> dict[str, Tensor]:
    """Return a record's arrays as CPU tensors; nothing is unpickled."""
    return {name: torch.from_numpy(np.asarray(array.numpy())) for name, array in record.items()}


def check_size(content: RecordDict, expected: Mapping[str, Tensor]) -> None:
    """Raise FederationError for a reply that is larger than any with these arrays can be."""
    size = count_bytes(content)
    largest = 2 * sum(tensor.nbytes for tensor in expected.values()) + _REPLY_MARGIN_BYTES
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
