"""Settings that choose by name: each has its entry, and another is an error with the list."""

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
import pytest
import torch
from pydantic import BaseModel

from phoenix_pipeline.config import (
    EXTRACTORS,
    AggregationConfig,
    ClipNormConfig,
    EvaluationConfig,
    FederationConfig,
    NoiseConfig,
    PartitionConfig,
    SamplingConfig,
    ServerOptimizerConfig,
    TrainingConfig,
)
from phoenix_pipeline.config.base import Component
from phoenix_pipeline.config.compression import DownlinkConfig, UplinkConfig
from phoenix_pipeline.diffusion import noise as forward_process
from phoenix_pipeline.diffusion.noise import NoiseSchedule, build_scheduler
from phoenix_pipeline.diffusion.samplers import SAMPLERS
from phoenix_pipeline.diffusion.samplers.steps import _CLEAN, _NOISE
from phoenix_pipeline.diffusion.schedulers import build_sampler
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.federated.aggregation import _MOST_HELD, RULES, build_aggregation
from phoenix_pipeline.federated.aggregation.robust import RobustRule
from phoenix_pipeline.federated.compression.codecs import CODECS, codec_of
from phoenix_pipeline.federated.server_optimizer import OPTIMIZERS, ServerOptimizer
from phoenix_pipeline.metrics.components import available_extractors, extractor_spaces
from phoenix_pipeline.optimization.precision import _AUTOCAST, autocast
from phoenix_pipeline.optimization.schedules import _COURSES, learning_rate_at
from phoenix_pipeline.partitioning import partition_clients
from phoenix_pipeline.partitioning.clients import SCHEMES

CPU = torch.device("cpu")
WEIGHTS = {"w": torch.zeros(2)}

CHOICES: list[tuple[type[BaseModel], str, Mapping[str, Any], set[str]]] = [
    (PartitionConfig, "scheme", SCHEMES.own, set()),
    (SamplingConfig, "sampler", SAMPLERS.own, set()),
    (SamplingConfig, "precision", _AUTOCAST, set()),
    (TrainingConfig, "precision", _AUTOCAST, set()),
    (TrainingConfig, "lr_schedule", _COURSES, set()),
    (NoiseConfig, "schedule", forward_process._SCHEDULES, set()),
    (NoiseConfig, "prediction_type", forward_process._PREDICTIONS, set()),
    (NoiseConfig, "prediction_type", _CLEAN, {"flow"}),
    (NoiseConfig, "prediction_type", _NOISE, {"flow"}),
    (UplinkConfig, "codec", CODECS.own, set()),
    (DownlinkConfig, "codec", CODECS.own, set()),
    (AggregationConfig, "rule", RULES.own, set()),
    (ClipNormConfig, "unit", _MOST_HELD, set()),
    (ServerOptimizerConfig, "name", OPTIMIZERS.own, {"fedavg"}),
]


@pytest.mark.parametrize(("model", "field", "entries", "apart"), CHOICES)
def test_every_name_of_a_setting_has_its_entry(
    model: type[BaseModel], field: str, entries: Mapping[str, Any], apart: set[str]
) -> None:
    described = model.model_fields[field]
    marks = [mark.own for mark in described.metadata if isinstance(mark, Component)]
    names = marks[0] if marks else get_args(described.annotation)
    assert set(names) == {*entries, *apart}


def test_every_extractor_has_its_entry() -> None:
    assert set(EXTRACTORS) == set(extractor_spaces())


def unknown(group: Any, field: str) -> Any:
    return group.model_copy(update={field: "tarot"})


def robust() -> object:
    rule = RobustRule(unknown(AggregationConfig(), "rule"), WEIGHTS)
    rule.add(WEIGHTS, 1.0)
    return rule.result()


def clipped() -> object:
    norm = unknown(ClipNormConfig(bound=1.0), "unit")
    config = FederationConfig(
        aggregation=AggregationConfig().model_copy(update={"clip_norm": norm})
    )
    return build_aggregation(config, WEIGHTS, 0, 1)


def optimized() -> object:
    config = unknown(ServerOptimizerConfig(name="fedadam"), "name")
    return ServerOptimizer(config, frozenset("w")).step(WEIGHTS, WEIGHTS, {}, 1)


def predicted() -> object:
    schedule = NoiseSchedule.from_config(NoiseConfig(), CPU)
    odd = NoiseSchedule(schedule.signal, schedule.noise, "tarot")
    return odd.target(torch.zeros(1, 1, 2, 2), torch.tensor([3]), torch.zeros(1, 1, 2, 2))


UNKNOWN = {
    "partition.scheme": lambda: partition_clients(
        np.zeros(50, int), 50, unknown(PartitionConfig(), "scheme"), 0
    ),
    "sampling.sampler": lambda: build_sampler(NoiseConfig(), unknown(SamplingConfig(), "sampler")),
    "precision": lambda: autocast(CPU, "tarot"),
    "training.lr_schedule": lambda: learning_rate_at(
        0.5, 1.0, unknown(TrainingConfig(), "lr_schedule")
    ),
    "model.noise.schedule": lambda: build_scheduler(unknown(NoiseConfig(), "schedule")),
    "model.noise.prediction_type": predicted,
    "codec": lambda: codec_of(unknown(UplinkConfig(), "codec")),
    "federation.aggregation.rule": robust,
    "federation.aggregation.clip_norm.unit": clipped,
    "federation.server_optimizer.name": optimized,
    "evaluation.extractors": lambda: available_extractors(
        EvaluationConfig().model_copy(update={"extractors": ("tarot",)}), 1, 8, None, CPU
    ),
}


@pytest.mark.parametrize("setting", UNKNOWN)
def test_an_unknown_name_is_an_error_that_lists_the_names(setting: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{setting} is 'tarot'; allowed are \w+"):
        UNKNOWN[setting]()
