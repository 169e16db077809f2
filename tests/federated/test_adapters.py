"""A federation that trains adapters (LoRA) on a base which every site has."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from diffusers import DDPMPipeline

from phoenix_pipeline.arms.score_rounds import load_snapshot
from phoenix_pipeline.arms.setup import client_settings, find_base
from phoenix_pipeline.arms.training import train_arm
from phoenix_pipeline.config import ArmSettings, ImagesConfig, ModelConfig, RunConfig
from phoenix_pipeline.diffusion.export import export_pipeline
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.errors import CheckpointError, FederationError, SettingsError
from phoenix_pipeline.families.model_folder import load_as_trained, load_network, read_metadata
from phoenix_pipeline.federated.base_weights import open_network
from phoenix_pipeline.federated.job import FederatedResult
from phoenix_pipeline.federated.records import ClientSettings
from phoenix_pipeline.federated.round_memory import round_bytes
from phoenix_pipeline.federated.site_errors import SiteRefusal
from phoenix_pipeline.federated.snapshots import find_snapshots
from tests.federated.tiny import (
    UNET,
    client_table,
    federate,
    interrupt,
    job,
    make_images,
    same,
    settings,
)
from tests.pipelines.test_check_arm import RUN, check

pytest.importorskip("peft")

LORA = {"rank": 2, "target_modules": ["conv1", "conv2"]}
B_STAYS = ("*.lora_B",)
NOISE = {"enabled": True, "noise_multiplier": 1.0, "delta": 1e-3}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_base(tmp_path / "base", 77)


def make_base(folder: Path, seed: int) -> Path:
    export_pipeline(folder, build_unet(UNET, 1, 8, seed), settings().model.noise, {})
    return folder


def told(base: Path, layers: tuple[str, ...] = (), **training: Any) -> ClientSettings:
    """Return what clients are told, with the digest of what is in ``base``."""
    given = arm(base, training=training)
    own = client_settings(make_images(), given, RunConfig(seed=5, device="cpu"))
    return own.model_copy(
        update={"personal_layers": layers, "training": settings(**training).training}
    )


def arm(base: Path, **groups: Any) -> ArmSettings:
    lora = {**LORA, **groups.pop("lora", {})}
    model = {"unet": UNET, "start_from": str(base), "lora": lora}
    groups.pop("training", None)
    return ArmSettings(model=model, sampling={"num_steps": 2}, **groups)


def run(folder: Path, base: Path, layers: tuple[str, ...] = (), **options: Any) -> FederatedResult:
    own = told(base, layers, **options.pop("training", {}))
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
    whole = federate(tmp_path / "whole", **given)
    assert set(whole.rounds["status"]) == {"ok"}
    assert all(torch.isfinite(array).all() for array in whole.raw.values())
    interrupt(tmp_path / "cut", after=1, **given)
    resumed = federate(tmp_path / "cut", **given)
    assert same(whole.raw, resumed.raw)
    assert same(whole.ema, resumed.ema)
    for client in whole.connected:
        kept = (each.client_state(client).personal for each in (whole, resumed))
        assert same(*kept)


def test_stacked_clients_end_like_one_after_another(tmp_path: Path, base: Path) -> None:
    one, both = (
        run(tmp_path / str(n), base, stacked_clients=n, workers=1, threads_per_client=1)
        for n in (1, 2)
    )
    assert not same(one.raw, both.raw), "the clients were not stacked"
    for name, expected in one.raw.items():
        torch.testing.assert_close(both.raw[name], expected, rtol=1e-2, atol=1e-4)


def test_clients_with_factors_of_their_own_share_the_others(tmp_path: Path, base: Path) -> None:
    result = run(tmp_path / "run", base, B_STAYS)
    assert result.raw and all(".lora_A." in name for name in result.raw)
    own = [result.client_state(client).personal for client in result.connected]
    assert all(".lora_B." in name for layers in own for name in layers)
    assert not same(*own)


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
        open_network(told(base), None)
    assert refused.value.code == "no-base"
    (tmp_path / "wider").mkdir()
    wider = build_unet(UNET.model_copy(update={"layers_per_block": 2}), 1, 8, 1)
    export_pipeline(tmp_path / "wider", wider, settings().model.noise, {})
    with pytest.raises(SiteRefusal, match="layers_per_block is 2, here 1") as refused:
        open_network(told(base), tmp_path / "wider")
    assert refused.value.code == "other-base"


def train(folder: Path, base: Path, layers: Any = None, **groups: Any) -> Path:
    """Train an arm and return the folder that it writes."""
    federation: dict[str, Any] = {"num_rounds": 2, "local_work": {"unit": "steps", "amount": 2}}
    federation["snapshots"] = groups.pop("snapshots", {})
    personal = {"layers": layers, "final_average": layers is not None}
    own = arm(base, federation=federation, personal_layers=personal, **groups)
    own = own.model_copy(update={"training": settings(learning_rate=0.02).training})
    pool = pd.DataFrame({"client_id": [], "image_index": []})
    images = make_images()
    trained = train_arm(
        "fedavg", images, images, client_table().assign(label=-1), pool, own, RUN,
        folder / "checkpoints", {"images": ImagesConfig()},
    )  # fmt: skip
    trained.write(folder / "model")
    return folder / "model"


def predict(network: torch.nn.Module) -> torch.Tensor:
    x = torch.linspace(-1, 1, 64).view(1, 1, 8, 8)
    with torch.no_grad():
        return network(x, torch.tensor([400]), return_dict=False)[0]


def test_an_arm_is_a_plain_pipeline_and_tells_its_adapters(tmp_path: Path, base: Path) -> None:
    folder = train(tmp_path, base)
    pipeline = DDPMPipeline.from_pretrained(folder, local_files_only=True)
    adapted = load_as_trained(folder)
    assert all(".lora_" in name for name, _ in adapted.named_parameters())
    torch.testing.assert_close(predict(pipeline.unet), predict(adapted), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(predict(load_network(folder)), predict(pipeline.unet))
    assert not torch.allclose(predict(adapted), predict(build_unet(UNET, 1, 8, 77)), atol=1e-3)
    disclosure = " ".join(read_metadata(folder)["disclosure"])
    assert "low-rank adapters of its model (LoRA, rank 2)" in disclosure
    assert "never sent" in disclosure
    assert (folder / "pytorch_lora_weights.safetensors").is_file()
    make_base(base, 78)
    with pytest.raises(CheckpointError, match="other weights"):
        load_as_trained(folder)
    load_network(folder)


def test_a_clients_own_model_needs_no_base_any_more(tmp_path: Path, base: Path) -> None:
    folder = train(tmp_path, base, "adapters")
    for client in (0, 1):
        adapted = load_as_trained(folder, client)
        torch.testing.assert_close(
            predict(load_network(folder, client)), predict(adapted), rtol=1e-4, atol=1e-5
        )
    own = (folder / "clients" / "0.safetensors").stat().st_size
    assert own < (folder / "shared_body.safetensors").stat().st_size / 2
    base.rename(tmp_path / "gone")
    first, second = (predict(load_network(folder, client)) for client in (0, 1))
    assert not torch.allclose(first, second, atol=1e-4)


def test_round_0_is_kept_and_scored_with_the_base_below_it(tmp_path: Path, base: Path) -> None:
    folder = train(tmp_path, base, snapshots={"every": 1})
    kept = find_snapshots(tmp_path / "checkpoints")
    assert list(kept) == [0, 1, 2]
    networks = [load_snapshot(file, read_metadata(folder)) for file in kept.values()]
    started = build_unet(UNET, 1, 8, 77)
    torch.testing.assert_close(predict(networks[0]), predict(started))
    last = predict(networks[-1])
    torch.testing.assert_close(last, predict(load_network(folder)), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(last, predict(started), atol=1e-3)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ({"start_from": None}, r"start_from is null: there is nothing to adapt"),
        ({"family": "dcgan"}, r"family dcgan have no adapters"),
        (
            {"lora": {"rank": 1, "target_modules": ["query"]}},
            r"'query', which no .* conv_in, conv_out",
        ),
        (
            {"unet": UNET.model_copy(update={"layers_per_block": 2})},
            r"layers_per_block is 1, here 2",
        ),
    ],
)
def test_an_arm_is_refused_before_training(
    model: dict[str, Any], reason: str, tmp_path: Path, base: Path
) -> None:
    given = {"unet": UNET, "start_from": str(base), "lora": LORA, **model}
    with pytest.raises(SettingsError, match=reason) as refused:
        check(tmp_path, model=given, personal_layers={})
    assert "\n" not in str(refused.value)


def test_what_is_set_up_counts_adapters_and_what_is_at_rest(tmp_path: Path, base: Path) -> None:
    model = {"unet": UNET, "start_from": str(base), "lora": LORA}
    found = check(tmp_path, model=model, personal_layers={"layers": "adapters"})
    whole = sum(weight.numel() for weight in build_unet(UNET, 1, 8, 77).parameters())
    assert found["num_parameters_at_rest"] == whole
    assert 0 < found["num_personal_parameters"] < found["num_parameters"] < whole


def test_adapters_take_less_memory_than_whole_weights(base: Path) -> None:
    own = told(base)
    whole = own.model_copy(update={"model": ModelConfig(unet=UNET), "base_digest": ""})
    assert round_bytes(own, 10, 1 << 40) < round_bytes(whole, 10, 1 << 40)


def test_a_base_is_of_adapters_alone(base: Path) -> None:
    assert find_base(arm(base)) == base.resolve()
    assert find_base(arm(base, lora={"rank": 0})) is None
    assert job().base is None
