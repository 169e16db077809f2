"""A federation that trains adapters (LoRA) on a base which every site has."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from phoenix_pipeline.arms.arm_model import ArmModel
from phoenix_pipeline.config import (
    ModelConfig,
)
from phoenix_pipeline.diffusion.export import export_pipeline, load_unet
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.errors import CheckpointError, FederationError
from phoenix_pipeline.federated.job import FederatedResult
from phoenix_pipeline.federated.own_models import OwnModels
from phoenix_pipeline.federated.round_memory import round_bytes
from phoenix_pipeline.federated.site_errors import SiteRefusal
from phoenix_pipeline.images import ImageSet
from tests.federated.adapted import arm, make_base, told
from tests.federated.tiny import (
    SIZES,
    UNET,
    assert_stacking_changes_rounding_alone,
    cut_and_resume,
    federate,
    interrupt,
    job,
    make_images,
    same,
    settings,
)
from tests.pipelines.test_check_arm import RUN

pytest.importorskip("peft")

B_STAYS = ("*.lora_B",)
NOISE = {"enabled": True, "noise_multiplier": 1.0, "delta": 1e-3}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_base(tmp_path / "base", 77)


def run(folder: Path, base: Path, layers: tuple[str, ...] = (), **options: Any) -> FederatedResult:
    own = told(base, layers, options.pop("lora", None), **options.pop("training", {}))
    return federate(folder, settings=own, base=base, **options)


def test_adapters_alone_are_sent_and_averaged(tmp_path: Path, base: Path) -> None:
    result, whole = run(tmp_path / "run", base), federate(tmp_path / "whole")
    assert result.raw and all(".lora_" in name for name in result.raw)
    sent = sum(array.nbytes for array in result.raw.values())
    weights = sum(array.nbytes for array in whole.raw.values())
    up = result.rounds["bytes_up"].iloc[0], whole.rounds["bytes_up"].iloc[0]
    assert up[1] - up[0] == weights - sent
    start = told(base).build_network().state_dict()
    assert not any(torch.equal(result.raw[name], start[name]) for name in start)


@pytest.mark.parametrize("name", ["plain", "few bits"])
def test_layers_that_are_trained_whole_begin_as_in_the_base(
    name: str, tmp_path: Path, base: Path
) -> None:
    options = {**COMBINATIONS[name], "training": {"learning_rate": 1e-6}}
    whole = ("conv_in", "conv_out")
    result = run(tmp_path / "run", base, lora={"modules_to_save": whole}, rounds=1, **options)
    assert set(result.rounds["status"]) == {"ok"}
    start = load_unet(base).state_dict()
    names = [name for name in result.raw if ".lora_" not in name]
    assert set(names) == {f"{layer}.{part}" for layer in whole for part in ("weight", "bias")}
    for each in names:
        torch.testing.assert_close(result.raw[each], start[each], rtol=0.0, atol=1e-4)


COMBINATIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "few bits": {
        "compression": {
            "up": {"codec": "uniform", "step": 1.5},
            "down": {"codec": "uniform", "relative_to": "last_broadcast"},
        },
        "strategies": {"alignment": {"share": 0.5}},
        "training": {"optimizer_state": "keep"},
    },
    "dp_sgd": {"training": {"dp_sgd": NOISE}},
    "clients": {"differential_privacy": NOISE, "min_clients": 1},
    "personal": {"layers": B_STAYS, "training": {"optimizer_state": "keep"}},
    "stacked": {"stacked_clients": 2, "workers": 1, "layers": B_STAYS},
    "usplit": {"compression": {"partial_update": "usplit"}},
}


@pytest.mark.parametrize("name", COMBINATIONS)
def test_a_resumed_run_ends_with_the_same_bits(name: str, tmp_path: Path, base: Path) -> None:
    options = {**COMBINATIONS[name]}
    own = told(base, options.pop("layers", ()), **options.pop("training", {}))
    given: dict[str, Any] = {"settings": own, "base": base, "rounds": 3, **options}
    whole, resumed = cut_and_resume(tmp_path, after=1, **given)
    assert set(whole.rounds["status"]) == {"ok"}
    assert all(torch.isfinite(array).all() for array in whole.raw.values())
    for client in whole.connected:
        kept = (each.client_state(client).personal for each in (whole, resumed))
        assert same(*kept)


def test_stacked_clients_end_like_one_after_another(tmp_path: Path, base: Path) -> None:
    one, both = (
        run(tmp_path / str(n), base, stacked_clients=n, workers=1, threads_per_client=1)
        for n in (1, 2)
    )
    assert_stacking_changes_rounding_alone(one, both)


def test_clients_with_factors_of_their_own_share_the_others(tmp_path: Path, base: Path) -> None:
    result = run(tmp_path / "run", base, B_STAYS)
    assert result.raw and all(".lora_A." in name for name in result.raw)
    own = [result.client_state(client).personal for client in result.connected]
    assert all(".lora_B." in name for layers in own for name in layers)
    assert not same(*own)


def test_adapters_of_a_conditional_model_leave_its_classes_as_they_are(tmp_path: Path) -> None:
    names, rows = ("a", "b"), sum(SIZES)
    images = ImageSet(make_images().images, np.arange(rows) % 2, names)
    base = tmp_path / "base"
    export_pipeline(base, build_unet(UNET, 1, 8, 77, len(names)), settings().model.noise, {})
    given = arm(base)
    model = given.model.model_copy(update={"conditioning": "labels", "label_dropout": 0.5})
    own = ArmModel.of(images, given.model_copy(update={"model": model}), RUN).client_settings()
    own = own.model_copy(update={"training": settings().training})
    for together in (1, 2):
        result = federate(
            tmp_path / str(together), settings=own, base=base, images=images,
            stacked_clients=together, workers=1,
        )  # fmt: skip
        assert set(result.rounds["status"]) == {"ok"}
        assert result.raw and all(".lora_" in name for name in result.raw)


def test_another_base_goes_on_with_no_run(tmp_path: Path, base: Path) -> None:
    interrupt(tmp_path / "cut", after=1, settings=told(base), base=base, rounds=3)
    other = make_base(tmp_path / "other", 78)
    with pytest.raises(CheckpointError, match="base_digest"):
        run(tmp_path / "cut", other, rounds=3)


def test_a_site_with_another_base_or_none_is_refused_in_one_line(
    tmp_path: Path, base: Path
) -> None:
    other = make_base(tmp_path / "other", 78)
    with pytest.raises(FederationError, match=r"its base model has other weights.*digest"):
        federate(tmp_path / "run", settings=told(base), base=other)
    with pytest.raises(SiteRefusal, match="base-model") as refused:
        told(base).open_network(None)
    assert refused.value.code == "no-base"
    (tmp_path / "wider").mkdir()
    wider = build_unet(UNET.model_copy(update={"layers_per_block": 2}), 1, 8, 1)
    export_pipeline(tmp_path / "wider", wider, settings().model.noise, {})
    with pytest.raises(SiteRefusal, match="layers_per_block is 2, here 1") as refused:
        told(base).open_network(tmp_path / "wider")
    assert refused.value.code == "other-base"


def test_adapters_take_less_memory_than_whole_weights(base: Path) -> None:
    own = told(base)
    whole = own.model_copy(update={"model": ModelConfig(unet=UNET), "base_digest": ""})
    assert round_bytes(own, 10, 1 << 40) < round_bytes(whole, 10, 1 << 40)


def test_a_base_is_of_adapters_alone(base: Path) -> None:
    assert OwnModels.of(arm(base).model).base == base.resolve()
    assert OwnModels.of(arm(base, lora={"rank": 0}).model).base is None
    assert job().own.base is None
