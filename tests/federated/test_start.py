"""A federation that starts from given weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from phoenix_pipeline.diffusion.export import export_pipeline
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.errors import CheckpointError
from phoenix_pipeline.federated.engines.exchange import read_job, write_job
from tests.federated.tiny import UNET, federate, interrupt, job, same, settings
from tests.pipelines.test_check_arm import check

START = build_unet(UNET, 1, 8, 77).state_dict()
COMPRESSION = {
    "up": {"codec": "uniform", "step": 1.5},
    "down": {"codec": "uniform", "relative_to": "last_broadcast"},
}
# So small that the weights stay where they begin.
RESTING: dict[str, Any] = {"learning_rate": 1e-12}


def assert_start(weights: dict[str, Tensor]) -> None:
    for name, value in weights.items():
        torch.testing.assert_close(value, START[name], rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("compression", [{}, COMPRESSION], ids=["plain", "differences"])
def test_clients_train_from_the_given_weights(tmp_path: Path, compression: dict) -> None:
    told = settings(**RESTING)
    result = federate(tmp_path, rounds=2, start=START, settings=told, compression=compression)
    assert len(result.raw) == len(START)
    assert_start(result.raw)
    assert_start(result.ema)


def test_personal_layers_start_from_them_too(tmp_path: Path) -> None:
    told = settings(("conv_out",), **RESTING)
    result = federate(tmp_path, rounds=2, start=START, settings=told)
    for client in (0, 1):
        assert_start(result.client_state(client).personal)


def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    given: dict[str, Any] = {"rounds": 3, "start": START, "compression": COMPRESSION}
    whole = federate(tmp_path / "whole", **given)
    interrupt(tmp_path / "cut", after=1, **given)
    with pytest.raises(CheckpointError, match=r"model\.start_from"):
        federate(tmp_path / "cut", **{**given, "start": build_unet(UNET, 1, 8, 78).state_dict()})
    assert same(federate(tmp_path / "cut", **given).raw, whole.raw)


def test_a_deployment_is_given_the_weights(tmp_path: Path) -> None:
    asked = job(start=START)
    write_job(tmp_path, asked)
    found = read_job(tmp_path).start
    assert found is not None
    assert same(dict(found), dict(START))
    write_job(tmp_path, job())
    assert read_job(tmp_path).start is None


def test_an_arm_is_checked_with_its_start(tmp_path: Path) -> None:
    model = {"unet": UNET, "start_from": str(tmp_path / "start")}
    with pytest.raises(CheckpointError, match=r"has no unet/config\.json"):
        check(tmp_path, model=model)
    export_pipeline(tmp_path / "start", build_unet(UNET, 1, 8, 77), model_noise(), {})
    assert check(tmp_path, model=model)["num_parameters"] > 0


def model_noise() -> Any:
    return settings().model.noise
