"""The autoencoder that this project trains: on the pool alone, with latents of unit deviation."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits

from phoenix_pipeline.arms.autoencoder import train_pool_autoencoder
from phoenix_pipeline.config import AutoencoderConfig, RunConfig, SharedPoolConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.latents.autoencoder import load_autoencoder, read_pool_images
from phoenix_pipeline.latents.training import reconstruction_psnr, train_autoencoder
from phoenix_pipeline.partitioning.shared_pool import draw_shared_pool
from tests.latents.tiny import make_autoencoder

CPU = torch.device("cpu")
SMALL = AutoencoderConfig(
    block_out_channels=(8, 16), steps=150, learning_rate=4e-3, latent_channels=2, beta=0.2
)


def digits() -> np.ndarray:
    return np.round(load_digits().images * 255 / 16).astype(np.uint8)[:, None]


def test_it_learns_and_its_latents_have_unit_deviation() -> None:
    images = digits()
    made = train_autoencoder(images[:500], SMALL, 0, CPU)
    begun = train_autoencoder(images[:500], SMALL.model_copy(update={"steps": 1}), 0, CPU)
    held_out = torch.from_numpy(images[1000:1200])
    assert reconstruction_psnr(made, held_out) > reconstruction_psnr(begun, held_out) + 3.0
    latents = made.encode(torch.from_numpy(images[:500]))
    assert float(latents.std()) == pytest.approx(1.0, rel=1e-4)
    again = train_autoencoder(images[:500], SMALL, 0, CPU)
    assert again.space == made.space, "the same seed gives the same bits"


def test_psnr_of_one_level_off_everywhere() -> None:
    class OneOff:
        def encode(self, images: torch.Tensor) -> torch.Tensor:
            return (images.float() + 1.0) / 127.5 - 1.0

        def decode(self, latents: torch.Tensor) -> torch.Tensor:
            return latents

    images = torch.from_numpy(digits()[:4]).clamp(max=254)
    # 10 log10(255^2 / 1)
    assert reconstruction_psnr(OneOff(), images) == pytest.approx(48.1308, abs=1e-3)  # type: ignore[arg-type]


def test_only_images_of_the_pool_are_looked_at(tmp_path: Path) -> None:
    images, count = digits()[:200], 200
    table = pd.DataFrame(
        {"client_id": np.arange(count) % 4, "image_index": np.arange(count), "label": -1}
    )
    pool = draw_shared_pool(table, SharedPoolConfig(beta=SMALL.beta), 0, 0).pool
    assert len(pool) == 40
    others = images.copy()
    others[np.setdiff1d(np.arange(count), pool)] = 0
    test, run = ImageSet(digits()[200:230]), RunConfig(device="cpu")
    few = SMALL.model_copy(update={"steps": 3})
    for name, own in (("all", images), ("pool", others)):
        train_pool_autoencoder(ImageSet(own), test, table, few, run)(tmp_path / name)
    first, second = (load_autoencoder(tmp_path / name) for name in ("all", "pool"))
    assert first.space == second.space
    assert read_pool_images(tmp_path / "all") == 40
    told = json.loads((tmp_path / "all" / "autoencoder.json").read_text())
    assert told["digest"] == first.space.digest


def test_nobody_says_what_a_given_autoencoder_was_trained_on(tmp_path: Path) -> None:
    assert read_pool_images(make_autoencoder(tmp_path / "given")) is None


def test_sides_that_cannot_be_halved_as_often_are_refused() -> None:
    odd = ImageSet(np.zeros((8, 1, 10, 10), np.uint8))
    table = pd.DataFrame({"client_id": [0] * 8, "image_index": range(8), "label": -1})
    deep = AutoencoderConfig(block_out_channels=(8, 8, 8))
    with pytest.raises(SettingsError, match=r"makes sides 4 times .* 8 or 12, or change auto"):
        train_pool_autoencoder(odd, odd, table, deep, RunConfig(device="cpu"))
