"""An arm of adapters: its folder, its round 0, its audit, and what is refused before it trains."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline

from phoenix_pipeline.arms.score_rounds import load_snapshot
from phoenix_pipeline.config import (
    PrivacyAuditConfig,
)
from phoenix_pipeline.diffusion.unet import build_unet
from phoenix_pipeline.errors import CheckpointError, SettingsError
from phoenix_pipeline.families.model_folder import load_as_trained, load_network, read_description
from phoenix_pipeline.federated.round_teller import find_snapshots
from phoenix_pipeline.pipelines.privacy_audit.reconstruction import reconstruct_images
from phoenix_pipeline.pipelines.privacy_audit.subject import Subject
from tests.federated.adapted import LORA, arm, make_base
from tests.federated.tiny import SIZES, UNET, make_images
from tests.pipelines.test_check_arm import check
from tests.pipelines.tiny_arm import FEDERATION, write_tiny_arm

pytest.importorskip("peft")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_base(tmp_path / "base", 77)


def train(folder: Path, base: Path, layers: Any = None, **groups: Any) -> Path:
    """Train an arm and return the folder that it writes."""
    federation = {**FEDERATION, "snapshots": groups.pop("snapshots", {})}
    personal = {"layers": layers, "final_average": layers is not None}
    own = arm(base, federation=federation, personal_layers=personal, **groups)
    return write_tiny_arm(folder, own, learning_rate=0.02)


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
    disclosure = " ".join(read_description(folder)["disclosure"])
    assert "low-rank adapters of its model (LoRA, rank 2)" in disclosure
    assert "never sent" in disclosure
    assert (folder / "pytorch_lora_weights.safetensors").is_file()
    make_base(base, 78)
    with pytest.raises(CheckpointError, match="other weights"):
        load_as_trained(folder)
    load_network(folder)


@pytest.mark.parametrize("layers", [None, "adapters"])
def test_an_audit_inverts_the_update_of_adapters(layers: Any, tmp_path: Path, base: Path) -> None:
    folder, images = train(tmp_path, base, layers), make_images()
    rows = {0: np.arange(SIZES[0]), 1: np.arange(SIZES[0], sum(SIZES))}
    subject = Subject(
        folder,
        read_description(folder),
        rows,
        images,
        images,
        PrivacyAuditConfig(reconstructions=1, reconstruction_steps=2),
        torch.device("cpu"),
    )
    found = reconstruct_images(subject, {})
    assert found is not None
    assert found["seen"] == ("weights, shared layers only" if layers else "weights")
    assert found["scores"]["reconstruction_psnr_db"] > 0


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
    networks = [load_snapshot(file, folder, read_description(folder)) for file in kept.values()]
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
