"""A federation that learns latents: each site encodes its own images once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from phoenix_pipeline.arms.arm_model import ArmModel
from phoenix_pipeline.arms.setup import check_arm
from phoenix_pipeline.config import ArmSettings, ThresholdFilterConfig
from phoenix_pipeline.errors import CheckpointError, FederationError, SettingsError
from phoenix_pipeline.federated.client_state import ClientStates
from phoenix_pipeline.federated.job import FederatedResult
from phoenix_pipeline.federated.own_models import NO_MODELS, OwnModels, SiteLatents
from phoenix_pipeline.federated.round_memory import round_bytes
from phoenix_pipeline.federated.site_errors import SiteRefusal
from phoenix_pipeline.federated.sites import Sites, write_sites
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.metrics.monitoring import build_monitor_reference
from tests.federated.tiny import (
    SIZES,
    UNET,
    assert_stacking_changes_rounding_alone,
    cut_and_resume,
    federate,
    interrupt,
    job,
    make_images,
)
from tests.latents.tiny import LATENT_CHANNELS, arm, make_autoencoder, told
from tests.pipelines.test_check_arm import RUN

CPU = torch.device("cpu")
NOISE = {"enabled": True, "noise_multiplier": 1.0, "delta": 1e-3}


@pytest.fixture
def autoencoder(tmp_path: Path) -> Path:
    return make_autoencoder(tmp_path / "autoencoder")


def run(folder: Path, autoencoder: Path, **options: Any) -> FederatedResult:
    own = told(autoencoder, options.pop("layers", ()), **options.pop("training", {}))
    return federate(folder, settings=own, autoencoder=autoencoder, **options)


def test_the_network_is_that_of_the_latents(autoencoder: Path) -> None:
    own = told(autoencoder)
    assert own.trained_shape == (LATENT_CHANNELS, 4, 4)
    network: Any = own.build_network()
    assert (network.config.in_channels, network.config.sample_size) == (LATENT_CHANNELS, 4)
    assert own.model.autoencoder is None, "no message names a folder"


def test_a_folder_of_sites_has_latents_and_no_images(tmp_path: Path, autoencoder: Path) -> None:
    latents = SiteLatents.of(told(autoencoder), OwnModels(autoencoder=autoencoder))
    assert latents is not None
    encoded = latents.encode(make_images().images, CPU)
    assert encoded.shape == (sum(SIZES), LATENT_CHANNELS, 4, 4)
    write_sites(tmp_path / "sites", job(settings=told(autoencoder), autoencoder=autoencoder))
    sites = Sites.in_folder(tmp_path / "sites", CPU, ClientStates(tmp_path / "states"))
    stored = np.load(tmp_path / "sites" / "images.npy", allow_pickle=False)
    assert torch.equal(torch.from_numpy(stored), encoded)
    assert sites.sizes() == {0: SIZES[0], 1: SIZES[1]}


COMBINATIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "kept moments, few bits": {
        "compression": {
            "up": {"codec": "uniform", "step": 1.5},
            "down": {"codec": "uniform", "relative_to": "last_broadcast"},
        },
        "strategies": {"alignment": {"share": 0.5}},
        "training": {"optimizer_state": "keep", "horizontal_flip": True},
    },
    "dp_sgd": {"training": {"dp_sgd": NOISE}},
    "personal": {"layers": ("conv_out",), "training": {"optimizer_state": "keep"}},
    "stacked": {"stacked_clients": 2, "workers": 1, "training": {"horizontal_flip": True}},
    "warm-up": {"pool": np.arange(20), "warmup_steps": 2},
}


@pytest.mark.parametrize("name", COMBINATIONS)
def test_a_resumed_run_ends_with_the_same_bits(
    name: str, tmp_path: Path, autoencoder: Path
) -> None:
    options = {**COMBINATIONS[name]}
    own = told(autoencoder, options.pop("layers", ()), **options.pop("training", {}))
    given: dict[str, Any] = {"settings": own, "autoencoder": autoencoder, "rounds": 3, **options}
    whole, _ = cut_and_resume(tmp_path, after=1, **given)
    assert set(whole.rounds["status"]) == {"ok"}
    assert all(torch.isfinite(array).all() for array in whole.raw.values())


def test_stacked_clients_end_like_one_after_another(tmp_path: Path, autoencoder: Path) -> None:
    one, both = (
        run(tmp_path / str(n), autoencoder, stacked_clients=n, workers=1, threads_per_client=1)
        for n in (1, 2)
    )
    assert_stacking_changes_rounding_alone(one, both)


def test_mirrored_images_are_encoded_and_not_mirrored_latents(autoencoder: Path) -> None:
    images = make_images().images[:5]
    latents = SiteLatents.of(
        told(autoencoder, horizontal_flip=True), OwnModels(autoencoder=autoencoder)
    )
    assert latents is not None
    both = latents.encode(images, CPU)
    assert both.shape == (5, 2, LATENT_CHANNELS, 4, 4)
    mirrored = np.ascontiguousarray(images[..., ::-1])
    assert torch.equal(both[:, 1], latents.autoencoder.encode(torch.from_numpy(mirrored)))
    assert not torch.allclose(both[:, 1], both[:, 0].flip(-1))


def test_labels_go_through(tmp_path: Path, autoencoder: Path) -> None:
    names = ("a", "b")
    images = ImageSet(make_images().images, np.arange(sum(SIZES)) % 2, names)
    own = told(autoencoder, images=images, model={"conditioning": "labels"})
    result = federate(tmp_path, settings=own, autoencoder=autoencoder, images=images)
    assert set(result.rounds["status"]) == {"ok"}
    assert result.raw["class_embedding.weight"].shape[0] == len(names) + 1


def test_clients_score_decoded_samples(tmp_path: Path, autoencoder: Path) -> None:
    own = told(autoencoder).model_copy(update={"monitor_samples": 8, "monitor_steps": 2})
    result = federate(
        tmp_path,
        settings=own,
        autoencoder=autoencoder,
        reference=build_monitor_reference(make_images(60), 0),
        threshold_filter=ThresholdFilterConfig(enabled=True, monitor_every=1),
    )
    assert set(result.rounds["status"]) == {"ok"}
    assert np.isfinite(result.rounds["score"]).all()


def test_another_autoencoder_goes_on_with_no_run(tmp_path: Path, autoencoder: Path) -> None:
    own = told(autoencoder)
    interrupt(tmp_path / "cut", after=1, settings=own, autoencoder=autoencoder, rounds=3)
    other = make_autoencoder(tmp_path / "other", seed=2)
    with pytest.raises(CheckpointError, match=r"latents\.digest"):
        run(tmp_path / "cut", other, rounds=3)


def test_a_site_with_another_autoencoder_or_none_is_refused(
    tmp_path: Path, autoencoder: Path
) -> None:
    other = make_autoencoder(tmp_path / "other", seed=2)
    with pytest.raises(FederationError, match=r"its autoencoder has other weights.*digest"):
        federate(tmp_path / "run", settings=told(autoencoder), autoencoder=other)
    with pytest.raises(SiteRefusal, match="set autoencoder in the node") as refused:
        SiteLatents.of(told(autoencoder), NO_MODELS)
    assert refused.value.code == "no-autoencoder"
    with pytest.raises(SiteRefusal, match="has no AutoencoderKL") as refused:
        SiteLatents.of(told(autoencoder), OwnModels(autoencoder=tmp_path / "nothing"))
    assert refused.value.code == "other-autoencoder"


def test_latents_are_kept_in_a_file_of_the_last_images(tmp_path: Path, autoencoder: Path) -> None:
    latents = SiteLatents.of(told(autoencoder), OwnModels(autoencoder=autoencoder))
    assert latents is not None
    images, state = make_images().images, tmp_path / "state"
    first = latents.encode_once(images, CPU, state)
    (kept,) = state.glob("latents-*")
    kept_at = kept.stat().st_mtime_ns
    assert torch.equal(latents.encode_once(images, CPU, state), first)
    assert kept.stat().st_mtime_ns == kept_at
    kept.write_bytes(kept.read_bytes()[:-1])
    assert torch.equal(latents.encode_once(images, CPU, state), first)
    assert torch.equal(latents.encode_once(images[:4], CPU, state), first[:4])
    assert [file for file in state.glob("latents-*") if file == kept] == []


def test_a_round_is_estimated_with_the_latents_that_are_kept(autoencoder: Path) -> None:
    own = told(autoencoder)
    few, many = (round_bytes(own, count, 1 << 40) for count in (10, 1010))
    assert many - few == 1000 * (2 * 8 * 8 + 4 * LATENT_CHANNELS * 4 * 4)


@pytest.mark.parametrize(
    ("images", "groups", "reason"),
    [
        (make_images(), {"model": {"family": "dcgan"}}, r"learn pixels alone; set model\.auto"),
        (make_images(), {"model": {"autoencoder": "nowhere"}}, "has no AutoencoderKL"),
        (make_images(), {"model": {"autoencoder": "an/other"}}, r"allow_download: true"),
        (ImageSet(np.zeros((60, 3, 8, 8), np.uint8)), {}, "of 1 channels, but these have 3"),
        (ImageSet(np.zeros((60, 1, 9, 9), np.uint8)), {}, r"image_size: 8 or 10"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(
    tmp_path: Path, autoencoder: Path, images: ImageSet, groups: dict[str, Any], reason: str
) -> None:
    with pytest.raises((SettingsError, CheckpointError), match=reason) as refused:
        check_arm(images, images, arm(autoencoder, **groups), RUN, tmp_path)
    assert "\n" not in str(refused.value)


def test_auto_goes_by_the_side_of_the_latents(tmp_path: Path) -> None:
    images = ImageSet(np.zeros((60, 1, 32, 32), np.uint8))
    waiting = {
        "unet": {"block_out_channels": "auto", "attention_resolutions": "auto"},
        "autoencoder": str(make_autoencoder(tmp_path / "ae", levels=3)),
    }
    training = {"batch_size": "auto", "learning_rate": "auto", "micro_batch": "auto"}
    settings = ArmSettings(model=waiting, training=training)
    own = ArmModel.of(images, settings, RUN).client_settings()
    assert own.model.unet.block_out_channels == (16, 32)
    assert own.model.unet.attention_resolutions == (4,)
    assert own.training.batch_size == 16
    assert own.trained_shape == (LATENT_CHANNELS, 8, 8)


def test_a_start_of_other_latents_is_refused(tmp_path: Path, autoencoder: Path) -> None:
    from phoenix_pipeline.diffusion.export import export_pipeline
    from phoenix_pipeline.diffusion.unet import build_unet
    from phoenix_pipeline.latents.autoencoder import load_autoencoder

    start, noise = tmp_path / "start", told(autoencoder).model.noise
    beside = load_autoencoder(make_autoencoder(tmp_path / "other", seed=2)).network
    export_pipeline(start, build_unet(UNET, LATENT_CHANNELS, 4, 7), noise, {}, beside)
    with pytest.raises(SettingsError, match=r"latents of an autoencoder with the digest"):
        check_arm(
            make_images(),
            make_images(60),
            arm(autoencoder, model={"start_from": str(start)}),
            RUN,
            tmp_path,
        )
    fitting = arm(start, model={"start_from": str(start)})
    assert check_arm(make_images(), make_images(60), fitting, RUN, tmp_path)["channels"] == 1
