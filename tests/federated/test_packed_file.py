from pathlib import Path

import pytest
import torch

from phoenix_pipeline.checkpoints import load_metadata, save_tensors
from phoenix_pipeline.errors import CheckpointError
from phoenix_pipeline.federated.wire import load_packed, save_packed


def test_arrays_come_back_by_name_shape_and_dtype(tmp_path: Path) -> None:
    arrays = {
        "b": torch.arange(6.0).reshape(2, 3).t(),
        "a": torch.tensor(3),
        "half": torch.ones(2, 2, dtype=torch.bfloat16),
        "empty": torch.zeros(0, 4),
    }
    save_packed(tmp_path / "kept.safetensors", {"own": arrays, "held/x": {}}, {"round": 4})
    groups, told = load_packed(tmp_path / "kept.safetensors")
    assert groups.keys() == {"own", "held/x"}
    read = groups["own"]
    assert told == {"round": 4}
    assert load_metadata(tmp_path / "kept.safetensors")["round"] == 4
    assert {n: (t.shape, t.dtype) for n, t in read.items()} == {
        n: (t.shape, t.dtype) for n, t in arrays.items()
    }
    assert all(torch.equal(read[name], arrays[name]) for name in arrays)


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"arrays": {"own": {"w": [[3], "float32"]}}},
        {"arrays": {"own": {"w": [[2], "float64"]}}},
        {"arrays": {"own": {"w": [[2], "no_dtype"]}}},
        # As an earlier version wrote it, without groups.
        {"arrays": {"w": [[2], "float32"]}},
    ],
)
def test_a_file_that_does_not_describe_its_arrays_is_refused(
    tmp_path: Path, told: dict[str, object]
) -> None:
    save_tensors(tmp_path / "kept.safetensors", {"own/float32": torch.zeros(2)}, told)
    with pytest.raises(CheckpointError, match="holds other arrays than it describes"):
        load_packed(tmp_path / "kept.safetensors")
