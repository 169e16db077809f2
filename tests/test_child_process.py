"""Calls in another process: what comes back, what is told on the way, and how it ends."""

import importlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from phoenix_pipeline.child_process import ChildProcess
from phoenix_pipeline.errors import SettingsError, TrainingError
from phoenix_pipeline.hardware import available_cores, available_memory


@pytest.fixture(scope="module")
def there() -> Iterator[ModuleType]:
    """Functions that another process finds as well."""
    folder = str(Path(__file__).parent / "in_child")
    sys.path.insert(0, folder)
    yield importlib.import_module("called_in_child")
    sys.path.remove(folder)


@pytest.fixture(scope="module")
def child(there: ModuleType) -> Iterator[ChildProcess]:
    logging.getLogger("phoenix_pipeline").setLevel("INFO")
    started = ChildProcess(sharing=2)
    logging.getLogger("phoenix_pipeline").setLevel("NOTSET")
    yield started
    started.end()


def test_results_events_and_log_come_back(
    child: ChildProcess, there: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[int, dict[str, float]]] = []
    counted: list[int] = []
    with caplog.at_level("INFO"):
        doubled = child.call(
            there.work,
            torch.arange(6).view(2, 3),
            tell=(lambda *values: told.append(values), counted.append),  # type: ignore[arg-type]
            log_as="fedavg",
        )
    assert doubled.tolist() == [[0, 2, 4], [6, 8, 10]]
    assert told == [(0, {"loss": 0.0}), (1, {"loss": 0.5}), (2, {"loss": 1.0})]
    assert sum(counted) == 3
    assert [(r.name, r.levelname, r.getMessage()) for r in caplog.records] == [
        ("phoenix_pipeline.tests", "INFO", "fedavg: 2 rows")
    ]


def test_what_it_raises_is_raised_here_and_it_goes_on(
    child: ChildProcess, there: ModuleType
) -> None:
    with pytest.raises(SettingsError, match="too few clients") as caught:
        child.call(there.fail, SettingsError("too few clients"))
    assert "in fail" in caught.value.__notes__[0]
    with pytest.raises(RuntimeError, match="AwkwardError: no luck"):
        child.call(there.fail_awkwardly)
    assert child.call(there.share)[0] != os.getpid()


def test_it_takes_its_share_of_the_machine(child: ChildProcess, there: ModuleType) -> None:
    _, cores, memory = child.call(there.share)
    assert cores == max(1, available_cores() // 2)
    # Other programs take and free memory meanwhile.
    assert memory < 0.7 * available_memory(torch.device("cpu"))


def test_one_that_is_killed_is_said_to_be(there: ModuleType) -> None:
    child = ChildProcess(sharing=1)
    pid = child.call(there.share)[0]
    with pytest.raises(TrainingError, match=r"phoenix: .*SIGKILL: is the memory full.*goes on"):
        child.call(there.sleep, tell=(lambda: os.kill(pid, signal.SIGKILL),), log_as="phoenix")


def test_it_ends_with_this_process() -> None:
    code = (
        "import os, signal\n"
        "from phoenix_pipeline.child_process import ChildProcess\n"
        "child = ChildProcess(sharing=1)\n"
        "print(child.call(os.getpid), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    pid = int(ended.stdout)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("the child goes on")
