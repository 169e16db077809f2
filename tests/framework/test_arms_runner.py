"""Arms side by side: which node runs when, in what process, and what ends all of them."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline, node
from threadpoolctl import threadpool_info, threadpool_limits

from phoenix_pipeline.child_process import lent_process
from phoenix_pipeline.config import ArmSettings, RunConfig
from phoenix_pipeline.errors import TrainingError
from phoenix_pipeline.framework import arms_runner
from phoenix_pipeline.framework.arm_blocks import arm_registry
from phoenix_pipeline.framework.arms_runner import ArmsRunner
from phoenix_pipeline.hardware import available_cores

ARMS = ("centralized", "phoenix", "dcgan")


def threads_of_numpy() -> int:
    """Return how many threads a product of matrices takes here."""
    return max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")


class Log:
    """What began and ended, in order, what each training was lent, and others' priority.

    ``priorities``: how nice the thread of each other node was, and the threads of torch and NumPy.
    """

    def __init__(self) -> None:
        self.events: list[str] = []
        self.processes: dict[str, int] = {}
        self.priorities: dict[str, tuple[int, int, int]] = {}
        self.most_at_once = self._now = 0
        self._changing = threading.Lock()

    def note(self, event: str, change: int = 0) -> None:
        with self._changing:
            self.events.append(event)
            self._now += change
            self.most_at_once = max(self.most_at_once, self._now)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    monkeypatch.setattr(arms_runner, "_IMPORTED_FIRST", ())
    before = arm_registry.names
    monkeypatch.setattr(arm_registry, "_names", ARMS)
    yield Log()
    assert arm_registry.names == ARMS
    monkeypatch.setattr(arm_registry, "_names", before)


def make_pipeline(log: Log, monkeypatch: pytest.MonkeyPatch, failing: str = "") -> Pipeline:
    """Return, for each arm, a check, a training and an evaluation, and what all of them share."""

    def train(arm: str, checked: str) -> str:
        log.note(f"{arm} begins", 1)
        assert threading.current_thread() is not threading.main_thread()
        child = lent_process.get()
        assert child
        log.processes[arm] = child.call(available_cores)
        if arm == failing:
            log.note(f"{arm} fails", -1)
            raise TrainingError("loss is nan")
        child.call(time.sleep, 0.2 if arm == "phoenix" else 0.4)
        log.note(f"{arm} ends", -1)
        return arm

    monkeypatch.setattr(arms_runner, "train", train)

    def noting(event: str) -> Callable[..., str]:
        def run(*inputs: str) -> str:
            nice = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
            log.priorities[event] = nice, torch.get_num_threads(), threads_of_numpy()
            log.note(event)
            return inputs[-1]

        return run

    judge = noting("judge trained")
    monkeypatch.setattr(arms_runner, "train_label_judge", judge)
    nodes = [
        node(noting("images read"), "raw", "images", name="read"),
        node(judge, "images", "judge", name="judge"),
        node(noting("floor scored"), "judge", "floor", name="floor"),
    ]
    for arm in ARMS:
        tags = f"arm.{arm}"
        nodes += [
            node(noting(f"{arm} checked"), ["images", f"{arm}.name"], f"{arm}.checked",
                 name=f"{arm}.check", tags=tags),
            node(train, [f"{arm}.name", f"{arm}.checked"], f"{arm}.model",
                 name=f"{arm}.train", tags=tags),
            node(noting(f"{arm} scored"), ["judge", f"{arm}.model"], f"{arm}.scores",
                 name=f"{arm}.score", tags=tags),
        ]  # fmt: skip
    return Pipeline(nodes)


def run(pipeline: Pipeline, at_a_time: int | str) -> dict[str, object]:
    values: dict[str, object] = {
        "raw": "raw",
        "params:run": RunConfig.model_validate({"arms_at_a_time": at_a_time, "device": "cpu"}),
        **{f"{arm}.name": arm for arm in ARMS},
        **{f"params:{arm}": ArmSettings.model_validate({}) for arm in ARMS},
    }
    catalog = DataCatalog({name: MemoryDataset(value) for name, value in values.items()})
    outputs = ArmsRunner().run(pipeline, catalog, _create_hook_manager())
    return {name: dataset.load() for name, dataset in outputs.items()}


def test_two_at_a_time_in_the_order_of_conf(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = run(make_pipeline(log, monkeypatch), 2)
    assert scores == {**{f"{arm}.scores": arm for arm in ARMS}, "floor": "raw"}
    assert log.most_at_once == 2
    begun = [event for event in log.events if event.endswith("begins")]
    # All checks come first, and the judge, who fills the machine by himself; whoever is free takes
    # the next arm; scores do not wait for the others.
    first = ["images read", "judge trained", *(f"{arm} checked" for arm in ARMS)]
    assert sorted(log.events[:5]) == sorted(first)
    # What trainings do not need is done beside them.
    assert log.events.index("floor scored") < log.events.index("phoenix ends")
    assert set(begun[:2]) == {"centralized begins", "phoenix begins"}
    assert begun[2] == "dcgan begins"
    assert log.events.index("phoenix scored") < log.events.index("dcgan ends")
    assert set(log.processes.values()) == {max(1, available_cores() // 2)}


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priorities of their own")
def test_what_runs_beside_trainings_gives_way(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    limits = threadpool_limits(2, "blas")
    try:
        run(make_pipeline(log, monkeypatch), 2)
        usual = os.getpriority(os.PRIO_PROCESS, 0)
        assert {log.priorities["images read"], log.priorities["judge trained"]} == {(usual, 2, 2)}
        assert log.priorities["floor scored"] == (max(3, usual), 1, 1)
        assert torch.get_num_threads() == threads_of_numpy() == 2
        assert log.priorities["phoenix scored"] == (max(3, usual), 1, 1)
        # After the last training nothing is at work any more.
        assert (usual, 2, 2) in {log.priorities[f"{arm} scored"] for arm in ARMS}
    finally:
        # It also sets OpenMP's threads to what they were when it began.
        limits.restore_original_limits()
        torch.set_num_threads(threads)


def test_an_arm_that_fails_ends_the_others(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = make_pipeline(log, monkeypatch, failing="phoenix")
    with pytest.raises(TrainingError, match="loss is nan"):
        run(pipeline, 3)
    assert "centralized ends" not in log.events and "dcgan ends" not in log.events
    assert not [t for t in threading.enumerate() if t.name.startswith("arm_")]


def test_how_many_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arms_runner, "available_cores", lambda: 4)
    memory = 100 << 30
    monkeypatch.setattr(arms_runner, "available_memory", lambda device: memory)
    names = {name: name for name in "abcde"}
    nodes = [
        node(lambda x: x, name, f"{name}.out", name=name, tags=f"arm.{name}") for name in names
    ]

    def count(**groups: object) -> int:
        run_config = {"device": "cpu", **groups.pop("run", {})}  # type: ignore[dict-item]
        catalog = {"params:run": MemoryDataset(RunConfig.model_validate(run_config))}
        for name in names:
            catalog[f"params:{name}"] = MemoryDataset(ArmSettings.model_validate(groups))
        return arms_runner._arms_at_a_time(nodes, DataCatalog(catalog))

    assert count() == 4
    assert count(run={"arms_at_a_time": 9}) == 5
    assert count(federation={"engine": "ray"}) == 1
    memory = 5 << 30
    assert count() == 2
    memory = 1 << 30
    assert count() == 1
    assert arms_runner._arms_at_a_time(nodes[:1], DataCatalog({})) == 1


def test_the_command_uses_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from phoenix_pipeline.cli import run as command

    used = []
    monkeypatch.setattr(ArmsRunner, "_run", lambda *arguments: used.append(arguments))
    assert CliRunner().invoke(command, ["--pipelines", "shared"]).exit_code == 0
    assert CliRunner().invoke(command, ["--runner", "SequentialRunner"]).exit_code == 0
    assert len(used) == 1
