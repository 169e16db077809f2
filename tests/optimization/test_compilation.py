"""Compiling never ends a run, and its code outlives the process."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.optimization import compilation
from phoenix_pipeline.optimization.compilation import (
    compile_function,
    compile_network,
    is_compiled,
    keep_compiled_code,
    run_compiled,
)

VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
TWICE = """
import os
import torch
from torch._dynamo.utils import counters
from phoenix_pipeline.optimization.compilation import compile_function
assert compile_function(torch.nn.functional.silu)(torch.zeros(5)).sum() == 0
assert os.environ["TORCHINDUCTOR_CACHE_DIR"].startswith(os.environ["XDG_CACHE_HOME"])
print(counters["inductor"]["fxgraph_cache_hit"])
"""


@pytest.fixture(autouse=True)
def nothing_has_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "torchinductor"))
    compilation._FAILED.clear()
    yield
    compilation._FAILED.clear()
    torch.compiler.set_stance("default")
    torch._dynamo.reset()


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return this project's warnings: torch traces what it compiles."""
    own = [record for record in caplog.records if record.name == compilation.__name__]
    return [record.getMessage() for record in own if record.levelno == logging.WARNING]


def double(x: Tensor) -> Tensor:
    return 2.0 * x


def no_compiler(graph: Any, inputs: Any) -> Any:
    raise RuntimeError("\nno C compiler was found\nand much more")


def test_what_cannot_be_compiled_runs_without(caplog: pytest.LogCaptureFixture) -> None:
    compiled = torch.compile(double, backend=no_compiler)
    for _ in range(2):
        assert run_compiled(partial(compiled, torch.ones(2))).tolist() == [2.0, 2.0]
    assert warnings_of(caplog) == [
        "torch.compile failed, going on without it: RuntimeError: no C compiler was found"
    ]


def test_a_machine_without_a_c_compiler(caplog: pytest.LogCaptureFixture) -> None:
    compiled = compile_function(double)
    with torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}):
        assert run_compiled(partial(compiled, torch.ones(3))).sum() == 6.0
    [warning] = warnings_of(caplog)
    assert "InvalidCxxCompiler" in warning


class FailsBackwards(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        raise RuntimeError("an operation has no compiled gradient")


def test_gradients_that_cannot_be_compiled_are_taken_without() -> None:
    def backend(graph: Any, inputs: Any) -> Any:
        return lambda *given: [FailsBackwards.apply(out) for out in graph(*given)]

    network = nn.Linear(2, 1)
    network.compile(backend=backend)

    def take() -> Tensor:
        network.zero_grad()
        network(torch.ones(1, 2)).sum().backward()
        assert network.weight.grad is not None
        return network.weight.grad

    assert run_compiled(take).tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("error", [SettingsError("bad"), torch.OutOfMemoryError("full")])
def test_what_is_not_the_fault_of_compiling_is_raised_at_once(error: Exception) -> None:
    calls = []

    def fail() -> None:
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        run_compiled(fail)
    assert len(calls) == 1


def test_what_fails_without_compiling_too_is_raised(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        run_compiled(partial(torch.mm, torch.ones(2, 3), torch.ones(2, 3)))
    assert not warnings_of(caplog)


def test_a_part_may_be_what_is_compiled() -> None:
    network = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
    assert not is_compiled(network)
    compile_network(network[0])
    assert is_compiled(network)


def test_code_is_kept_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keep_compiled_code()
    assert os.environ[VARIABLE] == str(tmp_path / "torchinductor"), "the user's own wins"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "phoenix_pipeline" / "torchinductor"
    # As torch leaves it when its compiler is imported, and as it is before.
    for found in (default_cache_dir(), None):
        monkeypatch.delenv(VARIABLE)
        if found:
            monkeypatch.setenv(VARIABLE, found)
        keep_compiled_code()
        assert os.environ[VARIABLE] == str(folder)
    assert folder.stat().st_mode & 0o077 == 0


def test_without_a_cache_directory_torch_chooses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(VARIABLE)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with caplog.at_level(logging.INFO):
        keep_compiled_code()
    assert VARIABLE not in os.environ
    assert "temporary files" in caplog.text


@pytest.mark.slow
def test_a_second_process_finds_the_code_of_the_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    hits = [subprocess.check_output([sys.executable, "-c", TWICE], text=True) for _ in range(2)]
    assert [int(line) for line in hits] == [0, 1]
