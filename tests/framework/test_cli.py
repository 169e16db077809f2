"""``kedro run`` answers a mistake with one line on stderr and status 2."""

import errno
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from kedro.io import DatasetError

from phoenix_pipeline.cli import run
from phoenix_pipeline.errors import DataError
from phoenix_pipeline.framework.error_lines import describe

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--params", "federation.num_rounds=-1"], ["federation.num_rounds: got -1", "--params"]),
        (["--params", "fedavg.training.rouns=1"], ["fedavg.training.rouns: unknown key"]),
        (["--params", "federation"], ["federation", "="]),
        (["--env", "smok"], ["conf/smok", "did you mean smoke?"]),
        (["--pipelines", "fedavgg"], ["fedavgg", "did you mean fedavg?"]),
        (["--nodes", "trian"], ["--nodes trian", "centralized.train or", "registry describe"]),
        (["--to-nodes", "fedavg.train,train"], ["--to-nodes train: there is no such node"]),
        (["--from-nodes", "fedavg.tran"], ["did you mean fedavg.train"]),
        (["--from-inputs", "sumary"], ["did you mean summary?", "catalog describe-datasets"]),
        (["--to-outputs", "fedavg.metric"], ["did you mean fedavg.metrics"]),
        (["--env", "sweeps"], ["conf/sweeps holds the files of `kedro sweep <name>`"]),
        (["--tags", "arm.fedavg,arm.fedavgg"], ["--tags arm.fedavgg", "did you mean arm.fedavg?"]),
        (["--namespaces", "fedavgg"], ["--namespaces fedavgg", "did you mean fedavg?"]),
        (
            ["--params", "fedavg.sampling.class_distribution=[0.5,0.5]"],
            ["`0.5]` must contain a key", "conf/local/parameters.yml"],
        ),
        (["--bogus"], ["--bogus"]),
        (["--params", "train_images=nowhere"], ["no images at", "nowhere"]),
        (["--pipelines", "fedavg"], ["summary.json does not exist", "earlier stage"]),
        (
            ["--pipelines", "shared,fedavg", "--params", "training.learning_rate=2"],
            ["loss is nan in round 1"],
        ),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    project: Path, arguments: list[str], parts: list[str]
) -> None:
    if "train_images=nowhere" not in arguments:
        for split in ("train", "test"):
            (project / f"data/01_raw/{split}.parquet").write_text("never opened")
    result = CliRunner().invoke(run, arguments)
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("Error: ")
    for part in parts:
        assert part in lines[0]
    assert "Traceback" in (project / "logs/traceback.log").read_text()


# The arm's own block wins, so the shared name would have no effect on it.
ADVISED = {
    "training.learning_rate=2": "lower training.learning_rate",
    "fedavg.training.learning_rate=2": "lower fedavg.training.learning_rate",
    "fedavg.training.learning_rate=3": "while saving; lower fedavg.training.learning_rate",
    "centralized.federation.compression.partial_update=usplit,federation.aggregation.rule=median": (
        "set federation.aggregation.rule: mean, federation.aggregation.clip_norm.bound: null and "
        "federation.differential_privacy.enabled: false, or "
        "centralized.federation.compression.partial_update: full"
    ),
}


@pytest.mark.parametrize("params", ADVISED)
def test_an_error_of_an_arm_names_the_setting_that_has_an_effect_on_it(
    project: Path, params: str
) -> None:
    for split in ("train", "test"):
        (project / f"data/01_raw/{split}.parquet").write_text("never opened")
    result = CliRunner().invoke(run, ["--pipelines", "shared,fedavg", "--params", params])
    assert result.exit_code == 2
    assert ADVISED[params] in result.stderr


def test_a_broken_yaml_file_is_named_with_its_line(project: Path) -> None:
    (project / "conf/base/parameters_run.yml").write_text("run: {seed: 1\nx: [\n")
    result = CliRunner().invoke(run, [])
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert "parameters_run.yml" in result.stderr


def test_verbose_prints_the_traceback(project: Path) -> None:
    result = CliRunner().invoke(run, ["--verbose", "--env", "smok"])
    assert result.exit_code == 2
    assert "Traceback (most recent call last)" in result.stderr


def test_a_real_process_prints_nothing_but_the_line(project: Path) -> None:
    shutil.copy(REPOSITORY / "conf/logging.yml", project / "conf/logging.yml")
    done = subprocess.run(
        [sys.executable, "-m", "kedro", "run", "--env", "smok"],
        cwd=project,
        env={"PYTHONPATH": str(REPOSITORY / "src"), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Error: --env smok")
    assert done.stderr.count("\n") == 1


TAKES_LESS = (
    "smaller values take less: federation.stacked_clients and training.micro_batch in training, "
    "sampling.batch_size, evaluation.batch_size; so does one run at a time"
)


def wrapped(inner: Exception) -> DatasetError:
    error = DatasetError("Failed while saving data to dataset X\n...")
    error.__cause__ = inner
    return error


@pytest.mark.parametrize(
    ("error", "line", "status"),
    [
        (wrapped(DataError("row 3 is\nbroken")), "row 3 is broken", 2),
        (
            wrapped(OSError(errno.ENOSPC, "No space left on device", "a.bin")),
            "the disk is full while writing a.bin; free some space and run again",
            2,
        ),
        (
            wrapped(
                torch.OutOfMemoryError(
                    "CUDA out of memory. Tried to allocate 2.00 MiB. GPU 0 has a total capacity of "
                    "139.80 GiB of which 4.00 MiB is free. Process 517 has 2.10 GiB memory in use."
                )
            ),
            "CUDA out of memory. Tried to allocate 2.00 MiB. GPU 0 has a total capacity of "
            f"139.80 GiB of which 4.00 MiB is free; {TAKES_LESS}",
            2,
        ),
        (MemoryError(), f"this machine's memory is full; {TAKES_LESS}", 2),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 T"),
            f"this machine's memory is full; {TAKES_LESS}",
            2,
        ),
        (RuntimeError("shape mismatch"), "RuntimeError: shape mismatch", 1),
        (ValueError("of our own"), "ValueError: of our own", 1),
    ],
)
def test_describe_finds_the_cause(error: Exception, line: str, status: int) -> None:
    assert describe(error) == (line, status)


def test_an_interruption_has_the_shells_status() -> None:
    assert describe(KeyboardInterrupt())[1] == 130
