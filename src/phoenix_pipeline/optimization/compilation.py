"""``torch.compile``: when it pays; cached on disk, and never the end of a run."""

import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch
from torch import nn

from phoenix_pipeline.errors import PhoenixError


@dataclass(frozen=True)
class BreakEven:
    """``least``: calls by kind of device from which compiling pays; None or missing: never."""

    parameter: str
    calls: str
    least: Mapping[str, int | None]

    def pays(self, calls: int, device: str, why_not: str | None = None) -> bool:
        """Return whether compiling pays for ``calls``, and log why; ``why_not`` rules it out."""
        least = self.least.get(device)
        chosen = why_not is None and least is not None and calls >= least
        logger.info(
            "%s: auto chooses %s for %s %s on %s: %s",
            self.parameter,
            str(chosen).lower(),
            f"{calls:,}",
            self.calls,
            device,
            why_not or self._reason(device),
        )
        return chosen

    def _reason(self, device: str) -> str:
        if device not in self.least:
            return "compiling was not measured there"
        least = self.least[device]
        return "compiling does not pay there" if least is None else f"it pays from {least:,} on"


# Measured (docs/speed.md). cuda: on an H200 a step of 128 images takes 16 ms less, and compiling
# 80 s of which the cores are busy; a step of ten clients 8 ms less for 138 s.
TRAINING = BreakEven("training.compile", "steps", {"cpu": 15_000, "cuda": 5_000})
STACKED = BreakEven("training.compile", "steps of all clients", {"cpu": None, "cuda": 16_000})
# Passes of a batch, measured at 500 images. On a CPU what sampling does by itself is the faster.
SAMPLING = BreakEven("sampling.compile", "passes", {"cpu": None, "cuda": 1_000})


logger = logging.getLogger(__name__)

_P = ParamSpec("_P")
_T = TypeVar("_T")

_CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
# Set once compiled code has failed: torch.compile is off in this process from then on.
_FAILED = threading.Event()
_FALLING_BACK = threading.Lock()


def compile_network(network: nn.Module) -> None:
    """Let ``network`` be compiled in place when it is first called."""
    keep_compiled_code()
    network.compile()


def compile_function(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Return ``function``, compiled when it is first called."""
    keep_compiled_code()
    return torch.compile(function)


def is_compiled(network: nn.Module) -> bool:
    """Return whether a call of ``network`` or of one of its parts is compiled."""
    return any(module._compiled_call_impl is not None for module in network.modules())


def run_compiled(compute: Callable[[], _T]) -> _T:
    """Return ``compute()``, which calls compiled code; without compiling where that fails.

    The first failure in a process turns compiling off and says why, in one line. What fails without
    compiling too is raised, and so is a lack of memory.
    """
    try:
        return compute()
    except (PhoenixError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        reason = _reason(error)
    # Not inside the handler: the error holds on to the memory of the frames that it went through.
    with _FALLING_BACK:
        with torch.compiler.set_stance("force_eager"):
            result = compute()
        if not _FAILED.is_set():
            _FAILED.set()
            logger.warning("torch.compile failed, going on without it: %s", reason)
        torch.compiler.set_stance("force_eager")
    return result


def keep_compiled_code() -> None:
    """Keep compiled code in the user's cache directory: other processes need not compile it again.

    torch's own default lies among the temporary files, which a restart deletes; it has put it into
    the environment by the time that its compiler is imported. A ``TORCHINDUCTOR_CACHE_DIR`` of the
    user's wins.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    if os.environ.get(_CACHE_VARIABLE, default_cache_dir()) != os.path.abspath(default_cache_dir()):
        return
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = caches / "phoenix_pipeline" / "torchinductor"
        # Compiled code is run: nobody else may write there.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: the user has no home
        logger.info("compiled code is kept among temporary files: %s", error)
        return
    os.environ[_CACHE_VARIABLE] = str(folder)


def _reason(error: BaseException) -> str:
    """Return the error's name and its first line that says something."""
    # What torch puts around a backend's error begins with the backend's name alone.
    error = getattr(error, "inner_exception", error)
    lines = (line.strip() for line in str(error).splitlines())
    return f"{type(error).__name__}: {next(filter(None, lines), 'without a message')}"
