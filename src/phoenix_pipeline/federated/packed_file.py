"""Files of hundreds of arrays, held as one vector per dtype: what is kept between rounds.

Each array of a safetensors file is copied, hashed and read by itself, which costs more than the
bytes of small arrays do. Every client writes and reads such a file in every round.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Size, Tensor

from phoenix_pipeline.checkpoints import load_tensors, save_tensors
from phoenix_pipeline.errors import CheckpointError, FederationError
from phoenix_pipeline.federated.wire import Joined, Layout, join

# Names, shapes and dtypes, among the metadata.
_ARRAYS = "arrays"


def save_packed(path: Path, arrays: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write ``arrays`` on any device, and ``metadata``, with a sha256 over all of it.

    Raises:
        StorageError: the file cannot be written in full.
    """
    joined = join({name: array.detach().cpu() for name, array in arrays.items()})
    described = {
        name: (list(shape), str(dtype).removeprefix("torch."))
        for name, (shape, dtype) in joined.layout.shapes.items()
    }
    save_tensors(path, joined.vectors, {**metadata, _ARRAYS: described})


def load_packed(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the arrays, which are parts of one vector per dtype, and the metadata.

    Raises:
        CheckpointError: the file is missing, truncated, altered or of another origin.
    """
    vectors, told = load_tensors(path)
    try:
        described = told.pop(_ARRAYS).items()
        layout = Layout({n: (Size(shape), getattr(torch, kind)) for n, (shape, kind) in described})
        return dict(Joined(vectors, layout)), told
    except (KeyError, FederationError) as error:
        raise CheckpointError(f"{path} holds other arrays than it describes: {error}") from error
