"""Whatever settings are combined, they are refused with the reason, or they train."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from phoenix_pipeline.arms.arm_model import ArmModel
from phoenix_pipeline.arms.setup import set_up_arm
from phoenix_pipeline.config import ArmSettings, FederationConfig, RunConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.federated.job import FederatedJob, FederatedResult
from phoenix_pipeline.federated.server import train_federated
from tests.federated.tiny import UNET, make_images

ARMS = ("centralized", "fedavg", "dcgan")
CODECS = ("none", "int4", "top_k")
PARTS = ("full", "usplit", "ulatdec", "udec")
PRIVACY = ("none", "dp_sgd", "central", "adaptive", "local")
RULES = ("mean", "median", "krum")
LAYERS = (None, "output")
CLIENTS = 5
RUN = RunConfig(device="cpu")
IMAGES = make_images(40)
PARTITION = pd.DataFrame(
    {"client_id": np.arange(40) % CLIENTS, "image_index": np.arange(40), "label": -1}
)
Combination = tuple[str, str, str, str, str, str | None]


def settings_of(combination: Combination) -> ArmSettings:
    """Return the settings; raises ValidationError where a group refuses them."""
    arm, codec, part, privacy, rule, layers = combination
    noise = {"enabled": True, "noise_multiplier": 1.0, "delta": 1e-3}
    of_clients = {"placement": "local"} if privacy == "local" else {}
    of_clients |= {"clipping": "adaptive"} if privacy == "adaptive" else {}
    federation = FederationConfig(
        num_rounds=1,
        pooled=arm == "centralized",
        min_clients=1,
        local_work={"unit": "steps", "amount": 1},
        compression={"partial_update": part, "up": {"codec": codec}},
        aggregation={"rule": rule},
        differential_privacy={**noise, **of_clients} if privacy not in ("none", "dp_sgd") else {},
    )
    family = {"family": "dcgan", "dcgan": {"base_channels": 8}} if arm == "dcgan" else {}
    return ArmSettings(
        model={"unet": UNET, **family},
        training={"batch_size": 4, "dp_sgd": noise if privacy == "dp_sgd" else {}},
        federation=federation,
        personal_layers={"layers": layers},
        sampling={"num_steps": 2},
    )


def check(combination: Combination, folder: Path) -> tuple[ArmSettings, pd.DataFrame]:
    """Return the settings and who trains on what, as the stage that sets an arm up does."""
    settings = settings_of(combination)
    clients, _, _ = set_up_arm(IMAGES, IMAGES, PARTITION, settings, RUN, folder)
    return settings, clients


def reasons(combination: Combination) -> list[str]:
    """Return, for each rule of common sense that is broken, a word of the reason to be given."""
    arm, codec, part, privacy, rule, layers = combination
    of_clients = privacy in ("central", "adaptive", "local")
    broken = {
        "pooled puts all data in one place": arm == "centralized"
        and (codec != "none" or part != "full"),
        "mean nothing": arm == "centralized" and layers is not None,
        "one client with all data": arm == "centralized" and of_clients,
        r"needs \d replies": arm == "centralized" and rule != "mean",
        "knows the parts of a U-Net": arm == "dcgan" and part != "full",
        "dcgan allowed are class_embedding, a list": arm == "dcgan" and layers is not None,
        "gradients of single images": arm == "dcgan" and privacy == "dp_sgd",
        "statistics mix the images": arm == "dcgan" and of_clients,
        "averages each array over those who sent it": part == "usplit"
        and (rule != "mean" or of_clients),
        "an aggregation of its own": privacy in ("central", "adaptive") and rule != "mean",
    }
    return [reason for reason, is_broken in broken.items() if is_broken]


@pytest.mark.parametrize("privacy", PRIVACY)
@pytest.mark.parametrize("arm", ARMS)
def test_senseless_combinations_are_refused_and_no_others(
    arm: str, privacy: str, tmp_path: Path
) -> None:
    for codec, part, rule, layers in itertools.product(CODECS[:2], PARTS[:3], RULES[:2], LAYERS):
        combination = (arm, codec, part, privacy, rule, layers)
        expected = reasons(combination)
        if not expected:
            check(combination, tmp_path)
            continue
        with pytest.raises((ValidationError, SettingsError), match="|".join(expected)) as refused:
            check(combination, tmp_path)
        if isinstance(refused.value, SettingsError):
            assert "\n" not in str(refused.value)


def run(combination: Combination, folder: Path) -> FederatedResult:
    settings, clients = check(combination, folder)
    job = FederatedJob(
        images=IMAGES,
        client_images=clients,
        config=settings.federation,
        settings=ArmModel.of(IMAGES, settings, RUN).client_settings(),
        device="cpu",
    )
    return train_federated(job, folder)


# Each two values that go together meet in one of these at least, as the next test checks.
RUNS: tuple[Combination, ...] = (
    ("centralized", "none", "full", "none", "mean", None),
    ("centralized", "none", "full", "dp_sgd", "mean", None),
    ("fedavg", "none", "usplit", "none", "mean", "output"),
    ("fedavg", "int4", "usplit", "dp_sgd", "mean", None),
    ("fedavg", "top_k", "usplit", "none", "mean", None),
    ("fedavg", "int4", "ulatdec", "none", "median", "output"),
    ("fedavg", "none", "udec", "none", "krum", None),
    ("fedavg", "top_k", "ulatdec", "dp_sgd", "krum", "output"),
    ("fedavg", "none", "udec", "dp_sgd", "median", None),
    ("fedavg", "int4", "udec", "central", "mean", "output"),
    ("fedavg", "none", "ulatdec", "central", "mean", None),
    ("fedavg", "top_k", "full", "central", "mean", None),
    ("fedavg", "top_k", "udec", "adaptive", "mean", "output"),
    ("fedavg", "int4", "ulatdec", "adaptive", "mean", None),
    ("fedavg", "none", "full", "adaptive", "mean", None),
    ("fedavg", "int4", "full", "local", "krum", "output"),
    ("fedavg", "top_k", "udec", "local", "median", None),
    ("fedavg", "none", "ulatdec", "local", "mean", None),
    ("fedavg", "none", "full", "none", "median", "output"),
    ("dcgan", "none", "full", "none", "mean", None),
    ("dcgan", "int4", "full", "none", "krum", None),
    ("dcgan", "top_k", "full", "none", "median", None),
)


def pairs(combinations: list[Combination]) -> set[tuple[object, ...]]:
    """Return all pairs of values, with their places."""
    return {
        pair
        for combination in combinations
        for pair in itertools.combinations(enumerate(combination), 2)
    }


def test_all_pairs_that_make_sense_are_run() -> None:
    everything = itertools.product(ARMS, CODECS, PARTS, PRIVACY, RULES, LAYERS)
    sensible = [combination for combination in everything if not reasons(combination)]
    assert all(combination in sensible for combination in RUNS)
    assert pairs(list(RUNS)) == pairs(sensible)


@pytest.mark.parametrize("combination", RUNS, ids=lambda c: "-".join(map(str, c)))
def test_sensible_combinations_train(combination: Combination, tmp_path: Path) -> None:
    result = run(combination, tmp_path)
    assert (result.rounds["status"] == "ok").all() and len(result.rounds) > 0
    assert all(torch.isfinite(w).all() for w in result.raw.values() if w.is_floating_point())
    has_epsilon = combination[3] != "none"
    assert result.rounds["epsilon"].notna().all() == has_epsilon
    layers = combination[5] is not None or combination[2] in ("ulatdec", "udec")
    kept = [bool(result.client_state(c).personal) for c in result.connected]
    assert kept == [layers] * len(kept)
