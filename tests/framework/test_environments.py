"""The committed environments: valid, comparable across arms, and of the size that they claim."""

from pathlib import Path
from typing import Any

import pytest
import torch

from phoenix_pipeline.config import (
    AggregationConfig,
    ArmSettings,
    EvaluationConfig,
    FederationConfig,
    ModelConfig,
    SamplingConfig,
    ServerOptimizerConfig,
    UNetConfig,
)
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.families import family_of
from phoenix_pipeline.families.by_image_size import settle_arm
from phoenix_pipeline.federated.work_plan import plan_steps
from phoenix_pipeline.framework.config_loader import PhoenixConfigLoader
from phoenix_pipeline.settings import CONFIG_LOADER_ARGS

CONF = Path(__file__).parents[2] / "conf"
CIFAR = ("cifar10", "cifar10_h200", "cifar10_small")


def load(env: str | None) -> PhoenixConfigLoader:
    return PhoenixConfigLoader(CONF, env, {}, **CONFIG_LOADER_ARGS)


def images_trained(groups: dict[str, Any], num_clients: int) -> int:
    own = ArmSettings.model_validate({name: groups[name] for name in ArmSettings.model_fields})
    settled = settle_arm(own, 8)
    training, federation = settled.training, settled.federation
    batch = training.batch_size
    sizes = dict.fromkeys(range(1 if federation.pooled else num_clients), 1000)
    steps = plan_steps(sizes, federation.local_work, batch)
    return federation.num_rounds * sum(steps.values()) * batch


@pytest.mark.parametrize("env", [None, "smoke", *CIFAR])
def test_every_arm_trains_on_as_many_images(env: str | None) -> None:
    config = load(env)
    parameters = config["parameters"]
    clients = parameters["partition"]["num_clients"]
    seen = {arm: images_trained(parameters[arm], clients) for arm in parameters["arms"]}
    on_request = seen.pop("phoenix_labels")
    assert config.on_request == ("phoenix_labels",)
    assert len(set(seen.values())) == 1
    # What is told the classes needs half as much to be the best of the digits' arms.
    assert on_request == seen["phoenix"] * (0.5 if env is None else 1)


def test_guards_of_a_federation_reach_every_arm_but_the_pooled_one() -> None:
    guards = {
        "federation": {
            "aggregation": {"rule": "median", "clip_norm": {"bound": 2.0}},
            "server_optimizer": {"name": "fedadam", "learning_rate": 0.1},
            "compression": {
                "up": {"codec": "int8"},
                "down": {"codec": "int8", "relative_to": "last_broadcast"},
            },
            "min_clients": 3,
            "strategies": {"fedprox": {"mu": 0.1}},
        },
    }
    parameters = PhoenixConfigLoader(CONF, None, guards, **CONFIG_LOADER_ARGS)["parameters"]
    for arm in parameters["arms"]:
        federation = FederationConfig.model_validate(parameters[arm]["federation"])
        guarded = arm != "centralized"
        assert (federation.aggregation != AggregationConfig()) == guarded
        assert (federation.server_optimizer != ServerOptimizerConfig()) == guarded
        assert bool(federation.strategies) == guarded
        assert federation.compression.is_active == guarded
        assert (federation.min_clients > 1) == guarded


@pytest.mark.parametrize("env", ["cifar10", "cifar10_h200"])
def test_the_large_judges_see_cutout_and_both_views(env: str) -> None:
    judge = EvaluationConfig.model_validate(load(env)["parameters"]["evaluation"]).classifier
    assert (judge.cutout, judge.horizontal_flip, judge.file.path) == (0.25, True, None)


@pytest.mark.parametrize("env", CIFAR)
def test_cifar_results_lie_apart(env: str) -> None:
    loader = load(env)
    assert loader["globals"]["data_root"] == f"data/{env}"
    assert loader["parameters"]["data_root"] == f"data/{env}"


@pytest.mark.parametrize(
    ("env", "arm"), [("cifar10_small", "fedavg"), *((env, "dcgan") for env in CIFAR)]
)
def test_cifar_models_make_32_pixels(env: str, arm: str) -> None:
    groups = load(env)["parameters"][arm]
    model = ModelConfig.model_validate(groups["model"])
    family_of(model).check_sampling(model, SamplingConfig.model_validate(groups["sampling"]))
    family_of(model).build(model, 3, 32, seed=0)


@pytest.mark.parametrize(("env", "weights"), [("cifar10", 35_746_307), ("cifar10_h200", 8_952_067)])
def test_networks_have_the_documented_size(env: str, weights: int) -> None:
    with torch.device("meta"):
        settings = load(env)["parameters"]["fedavg"]["model"]["unet"]
        network = build_unet(UNetConfig.model_validate(settings), 3, 32, 0)
    assert sum(p.numel() for p in network.parameters()) == weights
