"""The line before training: from one measured step, in people's units; results stay as they are."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from phoenix_pipeline.arms import time_estimate
from phoenix_pipeline.arms.time_estimate import announce_time, show_duration
from phoenix_pipeline.config import (
    FederationConfig,
    LocalWorkConfig,
    ModelConfig,
    TrainingConfig,
    UNetConfig,
)
from phoenix_pipeline.families.diffusion import DiffusionFamily
from phoenix_pipeline.federated.job import FederatedJob
from phoenix_pipeline.federated.records import ClientSettings
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.optimization.work import ClientTask


def make_job(side: int, family: str = "diffusion", **training: object) -> FederatedJob:
    unet = UNetConfig(block_out_channels=(8,), attention_resolutions=(), norm_num_groups=4)
    return FederatedJob(
        images=ImageSet(np.zeros((8, 1, side, side), np.uint8)),
        client_images=pd.DataFrame({"client_id": [0] * 4 + [1] * 4, "image_index": range(8)}),
        config=FederationConfig(
            num_rounds=3, workers=2, threads_per_client=1,
            local_work=LocalWorkConfig(unit="steps", amount=5),
        ),
        settings=ClientSettings(
            model=ModelConfig(family=family, unet=unet),
            training=TrainingConfig.model_validate({"batch_size": 4, **training}),
            channels=1, image_size=side, seed=0,
        ),
        device="cpu",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.2, "1 s"), (40, "40 s"), (700, "12 min"), (12_600, "3.5 h")]
)
def test_durations(seconds: float, shown: str) -> None:
    assert show_duration(seconds) == shown


@pytest.mark.parametrize(("side", "level"), [(8, "INFO"), (64, "WARNING")])
def test_the_line(
    side: int, level: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(time_estimate, "_time_step", lambda job, device, together: 8.0)
    with caplog.at_level("INFO"):
        announce_time(make_job(side))
    # 3 rounds x 2 clients x 5 steps of 8 s, two at a time.
    assert "about 2 min of training on this machine (30 steps of 4 images" in caplog.text
    assert caplog.records[-1].levelname == level
    assert ("without a GPU" in caplog.text) == (side >= 64)


@pytest.mark.parametrize(
    ("workers", "fraction", "together"), [(2, 1.0, 1), (1, 1.0, 2), (1, 0.5, 1)]
)
def test_a_step_is_that_of_as_many_clients_as_a_worker_stacks(
    workers: int,
    fraction: float,
    together: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stacked: list[tuple[int, int]] = []
    train = DiffusionFamily.train_stacked

    def watch(
        self: DiffusionFamily, network: nn.Module, tasks: list[ClientTask], *rest: Any
    ) -> Any:
        stacked.append((len(tasks), tasks[0].work.steps))
        return train(self, network, tasks, *rest)

    monkeypatch.setattr(DiffusionFamily, "train_stacked", watch)
    job = make_job(8)
    config = job.config.model_copy(update={"workers": workers, "client_fraction": fraction})
    with caplog.at_level("INFO"):
        announce_time(replace(job, config=config))
    assert stacked == ([] if together == 1 else [(together, steps) for steps in (1, 1, 3)])
    assert ("2 clients as one program" in caplog.text) == (together == 2)


def test_what_a_stack_takes_beside_its_steps_is_not_counted_as_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]

    def train(self: DiffusionFamily, network: nn.Module, tasks: list[ClientTask], *_: Any) -> None:
        clock[0] += 10.0 + 0.5 * tasks[0].work.steps

    monkeypatch.setattr(DiffusionFamily, "train_stacked", train)
    monkeypatch.setattr(time_estimate.time, "perf_counter", lambda: clock[0])
    # Half a second a step, for two clients.
    assert time_estimate._time_step(make_job(8), torch.device("cpu"), 2) == 0.25


@pytest.mark.parametrize("family", ["diffusion", "dcgan"])
@pytest.mark.parametrize("private", [False, True])
def test_a_measured_step_leaves_random_streams_and_threads_alone(
    family: str, private: bool, caplog: pytest.LogCaptureFixture
) -> None:
    if private and family == "dcgan":
        pytest.skip("DP-SGD is for diffusion models")
    job = make_job(8, family, dp_sgd={"enabled": private, "noise_multiplier": 1.0})
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    with caplog.at_level("INFO"):
        announce_time(job)
    assert "of training on this machine" in caplog.text
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.get_num_threads() == threads


def test_nothing_is_said_of_the_machines_of_a_deployment(caplog: pytest.LogCaptureFixture) -> None:
    job = make_job(8)
    config = job.config.model_copy(update={"engine": "deployment"})
    with caplog.at_level("INFO"):
        announce_time(FederatedJob(**{**vars(job), "config": config}))
    assert not caplog.text
