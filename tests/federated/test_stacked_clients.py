"""Federations whose clients train as one program: the results of one after another, and resumes."""

import logging
import weakref
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from phoenix_pipeline.config import (
    CompressionConfig,
    DpSgdConfig,
    FederationConfig,
    ModelConfig,
    ThresholdFilterConfig,
    UNetConfig,
)
from phoenix_pipeline.federated import stacked_clients
from phoenix_pipeline.federated.job import FederatedResult
from phoenix_pipeline.federated.sites import Site, Sites
from phoenix_pipeline.federated.stacked_clients import clients_at_a_time
from phoenix_pipeline.metrics.monitoring import build_monitor_reference
from tests.federated.tiny import client_table, federate, interrupt, make_images, same, settings

SIZES = (12, 36, 20, 9, 30)
CPU = torch.device("cpu")
INT8 = CompressionConfig.model_validate(
    {"up": {"codec": "int8"}, "down": {"codec": "int8", "relative_to": "last_broadcast"}}
)
FEW_BITS = CompressionConfig.model_validate(
    {
        "up": {"codec": "uniform", "step": 1.5},
        "down": {"codec": "uniform", "relative_to": "last_broadcast"},
    }
)
KEPT = settings(optimizer_state="keep")
OWN = settings(("conv_out",), optimizer_state="keep")
ALIGNED: dict[str, Any] = {"alignment": {"share": 0.5}}
COMBINATIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "kept": {"settings": KEPT, "strategies": {**ALIGNED, "fedprox": {"mu": 0.1}}},
    "personal": {"settings": OWN, "strategies": {**ALIGNED, "scaffold": {}, "feddyn": {}}},
    "int8": {"settings": KEPT, "strategies": ALIGNED, "compression": INT8},
    "few bits": {"settings": KEPT, "strategies": ALIGNED, "compression": FEW_BITS},
    "some": {"settings": KEPT, "strategies": ALIGNED, "client_fraction": 0.5},
    "bf16": {"settings": settings(precision="bf16", channels_last=True, optimizer_state="keep")},
}


def run(folder: Path, stacked: int, workers: int = 1, **options: Any) -> FederatedResult:
    return federate(folder, **options_of(stacked, workers, **options))


def options_of(stacked: int, workers: int = 1, **options: Any) -> dict[str, Any]:
    data = {"images": make_images(sum(SIZES)), "client_images": client_table(SIZES)}
    told = {"stacked_clients": stacked, "workers": workers, "threads_per_client": 1, "rounds": 4}
    return {**data, **told, **options}


@pytest.fixture(scope="module")
def all_at_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], FederatedResult]:
    """Return what trains a combination with its five clients as one program, once."""

    @cache
    def train(name: str) -> FederatedResult:
        return run(tmp_path_factory.mktemp("all_at_once"), 5, **COMBINATIONS[name])

    return train


def assert_same_rounds(one: FederatedResult, other: FederatedResult, compressed: bool) -> None:
    """Codes are deflated: how far depends on each of them, and so on how sums were rounded."""
    counted = ["round", "client_id", "steps", "images_trained", "status"]
    assert one.rounds[counted].equals(other.rounds[counted])
    sizes = [result.rounds[["bytes_up", "bytes_down"]] for result in (one, other)]
    np.testing.assert_allclose(*sizes, rtol=0.01 if compressed else 0.0)


@pytest.mark.parametrize("name", COMBINATIONS)
def test_stacked_rounds_end_like_one_client_after_another(
    name: str, all_at_once: Callable[[str], FederatedResult], tmp_path: Path
) -> None:
    options = COMBINATIONS[name]
    one, stacked = run(tmp_path, 1, **options), all_at_once(name)
    assert not same(one.raw, stacked.raw), "the clients were not stacked"
    rounding = {"int8": 1e-3, "few bits": 1e-3, "bf16": 1e-2}.get(name, 1e-4)
    for array, expected in one.raw.items():
        if array.endswith("to_k.bias"):
            continue  # its gradient is zero, and AdamW makes steps of the rounding
        apart = (stacked.raw[array] - expected).abs()
        assert apart.median().item() < rounding, array
    for client in one.connected:
        for array, value in one.client_state(client).personal.items():
            torch.testing.assert_close(
                stacked.client_state(client).personal[array], value, rtol=1e-2, atol=1e-4
            )
    assert_same_rounds(one, stacked, compressed="compression" in options)


@pytest.mark.parametrize("name", COMBINATIONS)
def test_an_interrupted_stacked_run_ends_with_the_same_bits(name: str, tmp_path: Path) -> None:
    options = options_of(3, 1, **COMBINATIONS[name])
    whole = federate(tmp_path / "whole", **options)
    interrupt(tmp_path / "cut", after=2, **options)
    resumed = federate(tmp_path / "cut", **options)
    assert same(whole.raw, resumed.raw)
    assert same(whole.ema, resumed.ema)


@pytest.mark.parametrize("name", COMBINATIONS)
def test_threads_for_messages_and_files_change_nothing(
    name: str, all_at_once: Callable[[str], FederatedResult], tmp_path: Path
) -> None:
    options = COMBINATIONS[name]
    alone = all_at_once(name)
    beside = run(tmp_path, 5, **{**options, "threads_per_client": 3})
    for array, expected in alone.raw.items():
        if not array.endswith("to_k.bias"):  # as above
            torch.testing.assert_close(beside.raw[array], expected, rtol=1e-3, atol=2e-5)
    assert_same_rounds(alone, beside, compressed="compression" in options)


def test_clients_are_scored_with_their_own_models(tmp_path: Path) -> None:
    options = {
        "settings": settings(("conv_out",), learning_rate=0.05),
        "threshold_filter": ThresholdFilterConfig(enabled=True, monitor_every=1),
        "reference": build_monitor_reference(make_images(200), 0),
    }
    one, all_at_once = (run(tmp_path / str(n), n, **options) for n in (1, 5))
    scores = one.rounds["score"].to_numpy()
    assert len(set(scores)) == len(scores)
    assert all_at_once.rounds["score"].to_numpy() == pytest.approx(scores, rel=0.05)


def test_a_client_that_cannot_begin_is_left_out_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Sites.site

    def site(self: Sites, client_id: int) -> Site:
        if client_id == 2:
            raise OSError("its disk is gone")
        return opened(self, client_id)

    monkeypatch.setattr(Sites, "site", site)
    rounds = run(tmp_path, 5).rounds
    failed = rounds[rounds["client_id"] == 2]
    assert set(failed["status"]) == {"failed"}
    assert all("its disk is gone" in reason for reason in failed["reason"])
    assert set(rounds[rounds["client_id"] != 2]["status"]) == {"ok"}


def test_too_little_memory_halves_the_clients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    train, sizes = stacked_clients._train, []
    taken: list[weakref.ref[torch.Tensor]] = []

    def limited(begun: list[Any]) -> list[Any]:
        sizes.append(len(begun))
        assert not any(memory() is not None for memory in taken), "what did not fit is still held"
        if len(begun) > 2:
            memory = torch.zeros(3)
            taken.append(weakref.ref(memory))
            raise torch.OutOfMemoryError("too many")
        return train(begun)

    monkeypatch.setattr(stacked_clients, "_train", limited)
    with caplog.at_level(logging.WARNING):
        rounds = run(tmp_path, 5, rounds=2).rounds
    assert sizes == [5, 2, 3, 1, 2, 2, 1, 2], "the second round begins with what fits"
    assert "5 clients at a time are too many" in caplog.text
    assert set(rounds["status"]) == {"ok"}


@pytest.mark.parametrize(
    ("asked", "training", "model", "expected"),
    [
        ("auto", {"batch_size": 16}, {}, 7),
        ("auto", {"batch_size": 128}, {}, 1),
        (3, {"batch_size": 64}, {}, 3),
        (100, {"batch_size": 16}, {}, 7),
        (1, {"batch_size": 16}, {}, 1),
        (3, {"batch_size": 16}, {"family": "dcgan"}, 1),
        ("auto", {"batch_size": 16, "precision": "fp16"}, {}, 1),
        ("auto", {"dp_sgd": DpSgdConfig(enabled=True, noise_multiplier=1.0)}, {}, 1),
    ],
)
def test_how_many_at_a_time(
    asked: Any, training: dict[str, Any], model: dict[str, Any], expected: int
) -> None:
    unet = UNetConfig(block_out_channels=(16, 32), attention_resolutions=(4,))
    told = settings(**training)
    told = told.model_copy(update={"model": ModelConfig.model_validate({"unet": unet, **model})})
    config = FederationConfig(stacked_clients=asked)
    assert clients_at_a_time(config, told, CPU, num_clients=7) == expected


@pytest.mark.parametrize(("batch_size", "expected"), [(13, 7), (128, 1)])
def test_a_gpu_takes_clients_together_whose_batches_leave_it_idle(
    batch_size: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacked_clients, "available_memory", lambda device: 1 << 36)
    unet = UNetConfig(block_out_channels=(64, 128), attention_resolutions=(16,))
    changes = {"model": ModelConfig(unet=unet), "image_size": 32, "channels": 3}
    told = settings(batch_size=batch_size).model_copy(update=changes)
    gpu = torch.device("cuda")
    assert clients_at_a_time(FederationConfig(), told, gpu, num_clients=7) == expected


def test_memory_bounds_the_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacked_clients, "available_memory", lambda device: 4_000_000)
    count = clients_at_a_time(FederationConfig(), settings(), CPU, num_clients=1000)
    assert 1 <= count < 20


def test_what_is_asked_for_in_vain_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        clients_at_a_time(FederationConfig(stacked_clients=4), settings(precision="fp16"), CPU, 7)
    assert "one after another: training.precision fp16" in caplog.text
