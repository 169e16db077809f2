"""An arm that learnt latents: its folder, its samples, its scores by round, and its audit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import LDMPipeline

from phoenix_pipeline.arms.sampling import draw_images
from phoenix_pipeline.arms.score_rounds import load_snapshot
from phoenix_pipeline.config import (
    ModelConfig,
    PrivacyAuditConfig,
    SamplingConfig,
)
from phoenix_pipeline.errors import CheckpointError
from phoenix_pipeline.families.model_folder import (
    assemble_client,
    load_network,
    read_description,
)
from phoenix_pipeline.federated.round_teller import find_snapshots
from phoenix_pipeline.latents.autoencoder import autoencoder_of, load_autoencoder
from phoenix_pipeline.metrics.privacy.membership import membership_scores
from phoenix_pipeline.pipelines.privacy_audit.reconstruction import reconstruct_images
from phoenix_pipeline.pipelines.privacy_audit.subject import Subject
from tests.federated.tiny import make_images
from tests.latents.tiny import SCALE, arm, make_autoencoder
from tests.pipelines.tiny_arm import FEDERATION, write_tiny_arm

CPU = torch.device("cpu")
# LDMPipeline knows a scale and no shift.
PLAIN: dict[str, Any] = {"shift_factor": None}


def train(folder: Path, layers: Any = None, **groups: Any) -> Path:
    """Train an arm and return the folder that it writes."""
    federation = {**FEDERATION, "snapshots": {"every": 1}}
    autoencoder = make_autoencoder(folder / "autoencoder", **PLAIN)
    own = arm(autoencoder, federation=federation, personal_layers={"layers": layers}, **groups)
    return write_tiny_arm(folder, own)


def test_samples_are_decoded_and_need_nothing_but_the_folder(tmp_path: Path) -> None:
    folder = train(tmp_path)
    description = read_description(folder)
    known = load_autoencoder(tmp_path / "autoencoder").space
    assert description["settings"]["latents"] == known.model_dump()
    assert "latents of an autoencoder" in " ".join(description["disclosure"])
    (tmp_path / "autoencoder").rename(tmp_path / "gone")
    images = draw_images(folder, 5, SamplingConfig(num_steps=2), 0, "cpu")
    assert images.shape == (5, 1, 8, 8)
    assert images.dtype == np.uint8
    assert images.std() > 0
    again = draw_images(folder, 2, SamplingConfig(num_steps=2), 0, "cpu")
    assert np.abs(again.astype(int) - images[:2]).max() <= 1


def test_a_stranger_draws_images_by_diffusers_alone(tmp_path: Path) -> None:
    folder = train(tmp_path)
    pipeline = LDMPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.vqvae.config.scaling_factor == SCALE
    assert not pipeline.scheduler.config.clip_sample
    generator = torch.Generator().manual_seed(0)
    made = pipeline(2, generator=generator, num_inference_steps=2, output_type="np").images
    assert made.shape == (2, 8, 8, 1)
    assert "LDMPipeline" in (folder / "README.md").read_text()


def test_another_autoencoder_in_the_folder_is_refused(tmp_path: Path) -> None:
    folder = train(tmp_path)
    make_autoencoder(folder / "vqvae", seed=2, **PLAIN)
    with pytest.raises(CheckpointError, match="were trained on latents of"):
        load_network(folder)


def test_clients_models_have_the_autoencoder_too(tmp_path: Path) -> None:
    folder = train(tmp_path, layers=["conv_out"])
    images = draw_images(folder, 4, SamplingConfig(num_steps=2), 0, "cpu", client_id=1)
    assert images.shape == (4, 1, 8, 8)
    assemble_client(folder, 1, tmp_path / "one")
    assert autoencoder_of(load_network(tmp_path / "one")) is not None
    assert LDMPipeline.from_pretrained(tmp_path / "one", local_files_only=True)


def test_kept_rounds_are_decoded(tmp_path: Path) -> None:
    folder = train(tmp_path)
    kept = find_snapshots(tmp_path / "checkpoints")
    assert list(kept) == [1, 2]
    network = load_snapshot(kept[2], folder, read_description(folder))
    assert autoencoder_of(network) is not None


def test_the_audit_attacks_by_latents_and_inverts_none(tmp_path: Path) -> None:
    folder, images = train(tmp_path), make_images()
    description = read_description(folder)
    model = ModelConfig.model_validate(description["settings"]["model"])
    config = PrivacyAuditConfig(timesteps=2, reconstructions=1, reconstruction_steps=2)
    scores = membership_scores(load_network(folder), model, images.images, config, 0)
    assert all(np.isfinite(own).all() and own.shape == (48,) for own in scores.values())
    rows = {0: np.arange(12), 1: np.arange(12, 48)}
    subject = Subject(folder, description, rows, images, images, config, CPU)
    skipped: dict[str, str] = {}
    assert reconstruct_images(subject, skipped) is None
    assert "learnt latents" in skipped["reconstruction"]
