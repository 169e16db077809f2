"""What this process may use: the device, its memory, and the number of CPU cores."""

import math
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from phoenix_pipeline.errors import SettingsError

if TYPE_CHECKING:
    import torch

_CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")
_CGROUP_MEMORY = Path("/sys/fs/cgroup/memory.max")

_TAKES_LESS = (
    "smaller values take less: federation.stacked_clients and training.micro_batch in training, "
    "sampling.batch_size, evaluation.batch_size; so does one run at a time"
)

_share = SimpleNamespace(processes=1)


def share_machine(processes: int) -> None:
    """Let this process take one of ``processes`` equal parts of cores and memory."""
    _share.processes = processes


def available_cores() -> int:
    """Return how many cores this process may use: its share of those of the machine."""
    return max(1, _cores() // _share.processes)


def _cores() -> int:
    """Return the cores of the affinity, capped by a container's limit."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    try:
        quota, period = _CGROUP_LIMIT.read_text().split()
        return cores if quota == "max" else max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores


def available_memory(device: "torch.device") -> int:
    """Return free bytes for this process on ``device``, its share; 4 GiB where none can tell."""
    return _free_memory(device) // _share.processes


def _free_memory(device: "torch.device") -> int:
    """Return free bytes; on a CPU capped by a container's limit."""
    import torch

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 4 << 30
    try:
        return min(free, int(_CGROUP_MEMORY.read_text()))
    except (OSError, ValueError):
        return free


def out_of_memory(error: BaseException) -> str | None:
    """Return one line if ``error`` says that memory ran out, with what takes less; else None."""
    # Not imported for this: whatever raised an error of torch has done so.
    torch, text = sys.modules.get("torch"), " ".join(str(error).split())
    if torch and isinstance(error, torch.OutOfMemoryError):
        # What follows names other processes, and how torch shares its memory out.
        whole, found, _ = text.partition(" is free.")
        what = f"{whole} is free" if found else text or "the memory is full"
    elif isinstance(error, MemoryError) or (
        type(error) is RuntimeError and "can't allocate memory" in text
    ):
        what = "this machine's memory is full"
    else:
        return None
    return f"{what}; {_TAKES_LESS}"


def resolve_device(name: str) -> "torch.device":
    """Return the device ``name``, ``auto``: the first GPU, else the CPU; raises SettingsError."""
    import torch

    has_mps = torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
    device = torch.device(name)
    present = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(has_mps)}[device.type]
    if (device.index or 0) >= present:
        raise SettingsError(
            f"run.device is {name!r}, but this machine has {present} {device.type} device(s); "
            "allowed here: auto, cpu"
            + "".join(f", cuda:{i}" for i in range(torch.cuda.device_count()))
        )
    return device
