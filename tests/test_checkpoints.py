"""Files are complete or absent, and what was altered is refused."""

import json
import os
import resource

import numpy as np
import pytest
import torch

from phoenix_pipeline.checkpoints import atomic_path, load_tensors, remove_leftovers, save_tensors
from phoenix_pipeline.errors import CheckpointError, StorageError
from phoenix_pipeline.json_files import read_json, write_json

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.int64,
    torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64,
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_survives_bit_for_bit(tmp_path, dtype):
    given = {
        "matrix": torch.arange(6).reshape(2, 3).to(dtype),
        "scalar": torch.tensor(3).to(dtype),
        "empty": torch.zeros(0, 4).to(dtype),
    }
    save_tensors(tmp_path / "a.safetensors", given, {})
    read, _ = load_tensors(tmp_path / "a.safetensors")
    assert read.keys() == given.keys()
    for name, tensor in given.items():
        assert read[name].dtype == dtype and read[name].shape == tensor.shape
        assert torch.equal(read[name].reshape(-1).view(torch.uint8),
                           tensor.reshape(-1).view(torch.uint8))  # fmt: skip


def test_views_shared_and_trainable_tensors(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    weight = torch.nn.Parameter(torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last))
    given = {"turned": base.T, "part": base[1], "base": base, "again": base, "weight": weight}
    save_tensors(tmp_path / "a.safetensors", given, {})
    read, _ = load_tensors(tmp_path / "a.safetensors")
    assert all(torch.equal(read[name], tensor) for name, tensor in given.items())


def test_metadata_comes_back(tmp_path):
    metadata = {"round": 3, "config": {"a": [1, 2.5, None]}, "loss": np.float32(0.5)}
    save_tensors(tmp_path / "a.safetensors", {"x": torch.zeros(1)}, metadata)
    assert load_tensors(tmp_path / "a.safetensors")[1] == {**metadata, "loss": 0.5}


def test_altered_truncated_and_foreign_files_are_refused(tmp_path):
    from safetensors.torch import save_file

    good, bad = tmp_path / "good.safetensors", tmp_path / "bad.safetensors"
    save_tensors(good, {"x": torch.arange(100)}, {"round": 3})
    data = good.read_bytes()
    position = data.index(b'round\\": 3') + 9
    for content, message in {
        data[:-1] + b"\x01": "was altered",
        data[:position] + b"4" + data[position + 1 :]: "was altered",
        data[: len(data) // 2]: "not a complete safetensors file",
        data[:5]: "not a complete safetensors file",
        b"": "not a complete safetensors file",
        b"PK\x03\x04 a pickle in a zip": "not a complete safetensors file",
    }.items():
        bad.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            load_tensors(bad)
    save_file({"x": torch.zeros(2)}, bad)
    with pytest.raises(CheckpointError, match="no checksum"):
        load_tensors(bad)
    with pytest.raises(CheckpointError, match="no such file"):
        load_tensors(tmp_path / "absent.safetensors")


def test_json_round_trip_and_refusals(tmp_path):
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"a": [1, np.int64(2)], "é": np.array([0.5])})
    assert read_json(path) == {"a": [1, 2], "é": [0.5]}
    with pytest.raises(StorageError, match="finite"):
        write_json(path, {"fid": float("nan")})
    assert read_json(path)["a"] == [1, 2]
    path.write_text('{"a": [1,')
    with pytest.raises(CheckpointError, match="not valid JSON"):
        read_json(path)
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        read_json(tmp_path / "absent.json")


@pytest.mark.parametrize("write", [
    lambda path: save_tensors(path, {"x": torch.zeros(10_000)}, {}),
    lambda path: write_json(path, list(range(10_000))),
])  # fmt: skip
def test_full_disk_keeps_the_old_file_and_leaves_nothing_else(tmp_path, write):
    path = tmp_path / "state.safetensors"
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"state\.safetensors could not be written: "):
            write(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_folders_are_replaced_as_a_whole(tmp_path):
    final = tmp_path / "model"
    for content in ("first", "second"):
        with atomic_path(final) as temporary:
            (temporary / "unet").mkdir(parents=True)
            (temporary / "unet" / "config.json").write_text(json.dumps(content))
            (temporary / content).touch()
    assert sorted(child.name for child in final.iterdir()) == ["second", "unet"]
    assert read_json(final / "unet" / "config.json") == "second"
    with pytest.raises(ZeroDivisionError), atomic_path(final) as temporary:
        temporary.mkdir()
        (temporary / "half").touch()
        raise ZeroDivisionError
    assert [child.name for child in tmp_path.iterdir()] == ["model"] and (final / "second").exists()


def test_the_temporary_is_a_hidden_sibling_with_the_same_suffix(tmp_path):
    with atomic_path(tmp_path / "a.png") as temporary:
        assert temporary.parent == tmp_path and temporary.suffix == ".png"
        assert temporary.name.startswith(".") and not temporary.exists()
        temporary.touch()


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(StorageError, match=r"a\.json could not be written"):
        with atomic_path(tmp_path / "a.json"):
            pass


def test_leftovers_of_killed_processes_go_once_they_are_old(tmp_path):
    old, young, other = (
        tmp_path / name
        for name in (
            ".a.00000000.partial.json",
            ".a.11111111.partial.json",
            ".b.00000000.hidden.json",
        )
    )
    for leftover in (old, young, other):
        leftover.touch()
    for leftover in (old, other):
        os.utime(leftover, (0, 0))
    write_json(tmp_path / "a.json", 1)
    assert [old.exists(), young.exists(), other.exists()] == [False, True, True]
    # Once per folder: thousands of files in one would else be listed for each of them.
    old.touch()
    os.utime(old, (0, 0))
    write_json(tmp_path / "b.json", 1)
    assert old.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 1_000_000, "nested too deep"),
        ('{"name": "\\ud800"}', "surrogates not allowed"),
        ("nonsense", "not valid JSON"),
    ],
)
def test_json_that_cannot_be_used_is_one_line(tmp_path, text, said):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(CheckpointError, match=said) as caught:
        read_json(tmp_path / "a.json")
    assert "\n" not in str(caught.value)


def test_whole_characters_beyond_the_first_plane_are_read(tmp_path):
    (tmp_path / "a.json").write_text('{"name": "\\ud83d\\ude00"}')
    assert read_json(tmp_path / "a.json") == {"name": "\U0001f600"}


def test_leftovers_go_whatever_their_age_where_nobody_writes(tmp_path):
    folder = tmp_path / "fedavg"
    gone = [
        folder / ".tmpA1b2C3",
        folder / "clients/.0.0a1b2c3d.partial.safetensors",
        tmp_path / ".fedavg.0a1b2c3d.partial",
    ]
    kept = [folder / "round.safetensors", tmp_path / ".dcgan.0a1b2c3d.partial", folder / ".tmp"]
    for file in (*gone, *kept):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    remove_leftovers(folder)
    assert not [file for file in gone if file.exists()]
    assert all(file.exists() for file in kept)
