"""Files that are complete or absent: JSON and safetensors, read back or refused; no pickle."""

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phoenix_pipeline.errors import CheckpointError, StorageError

if TYPE_CHECKING:
    from torch import Tensor

# Of an exported model: settings and origin, whatever kind of model it is.
METADATA_FILE = "phoenix.json"

_STALE_AFTER_S = 24 * 3600.0
# Ours, and those that safetensors writes first.
_LEFTOVERS = (".*.????????.partial*", ".tmp??????")


@contextmanager
def atomic_path(final: Path) -> Iterator[Path]:
    """Give a temporary sibling of ``final`` that replaces it when the block ends well.

    The block may write a file or a folder there; it is flushed to disk and renamed. After any
    exception the temporary is removed and ``final`` is as it was. Raises StorageError for an
    OSError inside the block, naming ``final`` and the system's reason.
    """
    final = Path(final)
    temporary = final.with_name(f".{final.stem}.{secrets.token_hex(4)}.partial{final.suffix}")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(final.parent.absolute())
        yield temporary
        _flush(temporary)
        _rename(temporary, final)
        _flush_folder(final.parent)
    except OSError as error:
        _remove(temporary)
        reason = error.strerror or str(error).splitlines()[0]
        raise StorageError(
            f"{final} could not be written: {reason}; nothing was left under that name that was "
            f"not there before"
        ) from error
    except BaseException:
        _remove(temporary)
        raise


def save_tensors(path: Path, tensors: Mapping[str, "Tensor"], metadata: Mapping[str, Any]) -> None:
    """Write tensors of any dtype, device and layout as safetensors.

    The header holds ``metadata`` as one JSON string and a sha256 over it and the tensors.
    Raises StorageError when the file cannot be written in full.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = _detach(tensors)
    text = json.dumps(metadata, default=plain_value)
    header = {"format": "pt", "metadata": text, "sha256": checksum(plain, text)}
    with atomic_path(path) as temporary:
        try:
            save_file(plain, temporary, metadata=header)
        except SafetensorError as error:
            raise OSError(str(error)) from error


def load_tensors(path: Path) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """Return tensors, on the CPU, and metadata; raises CheckpointError for a broken file."""
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise CheckpointError(f"{path} cannot be read: there is no such file")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a complete safetensors file: {error}") from error
    if not {"metadata", "sha256"} <= header.keys():
        raise CheckpointError(f"{path} was not written by this project: it has no checksum")
    if checksum(tensors, header["metadata"]) != header["sha256"]:
        raise CheckpointError(f"{path} was altered after it was written: its checksum differs")
    return tensors, json.loads(header["metadata"])


def load_metadata(path: Path) -> dict[str, Any]:
    """Return only the metadata, checksums not looked at; raises CheckpointError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            header = file.metadata() or {}
        return dict(json.loads(header["metadata"]))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} has no metadata of this project: {error}") from error


def load_diffusers(kind: Any, folder: Path, place: str, whole: str, remedy: str) -> Any:
    """Return the model of diffusers in ``folder``, on the CPU; never downloads, never unpickles.

    Args:
        kind: its class.
        folder: in whose subfolder ``place``, or "", are ``config.json`` and safetensors.
        place: as above.
        whole: what a folder that cannot be read is not, for the error.
        remedy: what to do about one that lacks weights.

    Raises CheckpointError: it is incomplete, or its weights do not fit its configuration.
    """
    import torch
    from safetensors import SafetensorError

    try:
        with torch.random.fork_rng(devices=[]):
            model, report = kind.from_pretrained(
                folder,
                subfolder=place,
                local_files_only=True,
                use_safetensors=True,
                low_cpu_mem_usage=False,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, TypeError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{folder} {whole}: {reason}") from error
    if missing := report["missing_keys"]:
        raise CheckpointError(
            f"{folder} lacks {len(missing)} of the network's weights, the first is {missing[0]}; "
            f"{remedy}"
        )
    return model


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left in and beside ``folder``, which nobody else writes."""
    found = [leftover for pattern in _LEFTOVERS for leftover in folder.rglob(pattern)]
    found += folder.parent.glob(f".{folder.name}.????????.partial*")
    for leftover in found:
        with suppress(OSError):
            _remove(leftover)


def _detach(tensors: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    """Return contiguous CPU tensors, none sharing memory with another, as safetensors needs."""
    seen: set[int] = set()
    plain = {}
    for name, tensor in tensors.items():
        copy = tensor.detach().cpu().contiguous()
        if copy.untyped_storage().data_ptr() in seen:
            copy = copy.clone()
        seen.add(copy.untyped_storage().data_ptr())
        plain[name] = copy
    return plain


def plain_value(value: Any) -> Any:
    """Return a NumPy number or array as JSON takes it; raises TypeError for anything else."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be stored as JSON")


def checksum(tensors: Mapping[str, "Tensor"], metadata: str) -> str:
    """Return the sha256 of ``metadata`` and of names, types, shapes and values of ``tensors``."""
    import torch

    digest = hashlib.sha256(metadata.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        values = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(values.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _flush(path: Path) -> None:
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        if file.is_file():
            with file.open("rb+") as stream:
                os.fsync(stream.fileno())


def _flush_folder(folder: Path) -> None:
    """Make the rename itself durable, where folders can be opened at all (not on Windows)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _rename(temporary: Path, final: Path) -> None:
    """Replace ``final``; a folder can only be moved to a free name, so the old one steps aside."""
    if not (temporary.is_dir() and final.is_dir()):
        temporary.replace(final)
        return
    aside = temporary.with_name(f"{temporary.name}.old")
    final.rename(aside)
    try:
        temporary.rename(final)
    except OSError:
        aside.rename(final)
        raise
    _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    elif path.exists():
        path.unlink(missing_ok=True)


@lru_cache(maxsize=1024)
def _remove_stale(folder: Path) -> None:
    """Remove what killed processes left long ago, once per folder and process."""
    for pattern in _LEFTOVERS:
        for leftover in folder.glob(pattern):
            with suppress(OSError):  # Another process may be removing it as well.
                if time.time() - leftover.stat().st_mtime > _STALE_AFTER_S:
                    _remove(leftover)
