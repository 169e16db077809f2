"""A federation of flow models is stacked, compressed and resumed like any other."""

from pathlib import Path
from typing import Any

import torch

from phoenix_pipeline.config import ModelConfig
from phoenix_pipeline.federated.records import ClientSettings
from tests.federated.tiny import UNET, federate, interrupt, same, settings

MODEL = ModelConfig.model_validate({"unet": UNET, "noise": {"prediction_type": "flow"}})
OPTIONS: dict[str, Any] = {
    "compression": {
        "up": {"codec": "uniform", "step": 1.5},
        "down": {"codec": "uniform", "relative_to": "last_broadcast"},
    },
    "strategies": {"alignment": {"share": 0.5}},
}


def told() -> ClientSettings:
    chosen = settings(("conv_out",), timestep_distribution="logit_normal", optimizer_state="keep")
    return chosen.model_copy(update={"model": MODEL})


def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole = federate(tmp_path / "whole", rounds=3, settings=told(), **OPTIONS)
    interrupt(tmp_path / "cut", after=2, rounds=3, settings=told(), **OPTIONS)
    resumed = federate(tmp_path / "cut", rounds=3, settings=told(), **OPTIONS)
    assert same(resumed.raw, whole.raw)
    assert same(resumed.ema, whole.ema)


def test_stacked_clients_learn_what_they_learn_one_after_another(tmp_path: Path) -> None:
    alone = federate(tmp_path / "alone", rounds=2, settings=told())
    stacked = federate(tmp_path / "stacked", rounds=2, settings=told(), stacked_clients=2)
    for name, value in alone.raw.items():
        torch.testing.assert_close(stacked.raw[name], value, rtol=1e-3, atol=5e-4)
