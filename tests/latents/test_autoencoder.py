"""Images to latents and back: shapes, scale and shift, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from phoenix_pipeline.errors import CheckpointError, SettingsError
from phoenix_pipeline.latents.autoencoder import load_autoencoder
from phoenix_pipeline.latents.space import find_autoencoder, read_space, trained_shape
from tests.latents.tiny import LATENT_CHANNELS, SCALE, SHIFT, make_autoencoder


def pixels(count: int, channels: int = 1, side: int = 8) -> torch.Tensor:
    drawn = np.random.default_rng(0).integers(0, 256, (count, channels, side, side))
    return torch.from_numpy(drawn.astype(np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_autoencoder(tmp_path / "autoencoder")


def test_latents_are_the_posteriors_mean_shifted_and_scaled(folder: Path) -> None:
    ours, images = load_autoencoder(folder), pixels(3)
    latents = ours.encode(images)
    assert latents.shape == (3, LATENT_CHANNELS, 4, 4)
    assert latents.dtype == torch.float32
    with torch.no_grad():
        mean = ours.network.encode(images.float() / 127.5 - 1.0).latent_dist.mean
    torch.testing.assert_close(latents, (mean - SHIFT) * SCALE)


def test_decoding_takes_scale_and_shift_off_again(folder: Path) -> None:
    ours = load_autoencoder(folder)
    latents = torch.randn(2, LATENT_CHANNELS, 4, 4, generator=torch.Generator().manual_seed(0))
    made = ours.decode((latents - SHIFT) * SCALE)
    assert made.shape == (2, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(made, ours.network.decode(latents).sample)


def test_an_image_has_the_same_bits_of_latents_whatever_lies_beside_it(folder: Path) -> None:
    ours, images = load_autoencoder(folder), pixels(37)
    together = ours.encode(images)
    order = torch.randperm(37, generator=torch.Generator().manual_seed(1))
    assert torch.equal(ours.encode(images[order]), together[order])
    assert torch.equal(ours.encode(images[:5]), together[:5])
    # Kept in a file they lie in one layout; those that were not must lie as well.
    network = ours.network.to(memory_format=torch.channels_last)
    assert replace(ours, network=network).encode(images[:5]).is_contiguous()


def test_the_digest_tells_weights_and_scale_apart(tmp_path: Path, folder: Path) -> None:
    known = load_autoencoder(folder).space.digest
    assert len(known) == 32
    load_autoencoder(folder).save(tmp_path / "copy")
    assert load_autoencoder(tmp_path / "copy").space.digest == known
    other = load_autoencoder(make_autoencoder(tmp_path / "other", seed=2))
    scaled = load_autoencoder(make_autoencoder(tmp_path / "scaled", scaling_factor=1.0))
    assert len({known, other.space.digest, scaled.space.digest}) == 3


def test_an_arms_own_stays_read_while_its_start_is_looked_at(tmp_path: Path, folder: Path) -> None:
    ours = load_autoencoder(folder)
    load_autoencoder(make_autoencoder(tmp_path / "start", seed=2))
    assert load_autoencoder(folder) is ours


@pytest.mark.parametrize("place", ["vae", "vqvae"])
def test_it_is_found_in_the_folder_of_a_pipeline(tmp_path: Path, place: str) -> None:
    own = make_autoencoder(tmp_path / "pipeline" / place)
    assert find_autoencoder(tmp_path / "pipeline") == own
    assert load_autoencoder(tmp_path / "pipeline").space.factor == 2


def test_a_folder_of_something_else_is_refused_in_one_line(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    for none in (tmp_path / "nothing", tmp_path / "unet"):
        with pytest.raises(CheckpointError, match=r"has no AutoencoderKL.*name the folder"):
            read_space(none)
    config = json.loads((folder / "config.json").read_text())
    del config["latent_channels"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="latent_channels"):
        read_space(folder)


def test_weights_that_would_be_unpickled_are_refused(tmp_path: Path, folder: Path) -> None:
    shutil.copytree(folder, tmp_path / "pickled")
    weights = tmp_path / "pickled" / "diffusion_pytorch_model.safetensors"
    torch.save(load_autoencoder(folder).network.state_dict(), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(CheckpointError, match="holds no complete AutoencoderKL"):
        load_autoencoder(tmp_path / "pickled")


def test_images_that_do_not_fit_are_refused_with_what_would(folder: Path) -> None:
    space = read_space(folder)
    space.check(1, 8)
    with pytest.raises(SettingsError, match=r"1 channels, but these have 3; set images\.channels"):
        space.check(3, 8)
    with pytest.raises(SettingsError, match=r"image_size: 8 or 10"):
        space.check(1, 9)
    assert trained_shape(1, 8, space) == (LATENT_CHANNELS, 4, 4)
    assert trained_shape(1, 8, None) == (1, 8, 8)


def test_an_autoencoder_is_read_once_for_each_state_of_its_files(tmp_path: Path) -> None:
    first = load_autoencoder(make_autoencoder(tmp_path))
    assert load_autoencoder(tmp_path) is first
    make_autoencoder(tmp_path, seed=2)
    assert load_autoencoder(tmp_path).space.digest != first.space.digest
