"""Closed forms, agreement with scikit-learn, and real against corrupted images."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf
from torch.nn import functional

from phoenix_pipeline.errors import CheckpointError, DataError, SettingsError
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.metrics.monitoring import (
    MonitorReference,
    build_monitor_reference,
    monitor_score,
)

Splits = tuple[ImageSet, ImageSet]


def draw(images: ImageSet, classes: tuple[int, ...], count: int = 64) -> np.ndarray:
    each = count // len(classes)
    return np.concatenate([images.images[images.labels == c][:each] for c in classes])


def corruptions(real: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = real.shape
    levels = rng.integers(0, 256, (*shape[:2], 1, 1), dtype=np.uint8)
    noisy = np.clip(real + rng.normal(0.0, 51.0, shape), 0, 255)
    return {
        "noise": rng.integers(0, 256, shape, dtype=np.uint8),
        "noisy": noisy.astype(np.uint8),
        "constant": np.broadcast_to(levels, shape).copy(),
        "black": np.zeros_like(real),
        "one image repeated": np.repeat(real[:1], len(real), axis=0),
    }


def blurred(real: np.ndarray, width: int) -> np.ndarray:
    padded = functional.pad(torch.from_numpy(real).float(), [width // 2] * 4, mode="replicate")
    return functional.avg_pool2d(padded, width, 1).round().byte().numpy()


def textures(seed: int, size: int, channels: int, per_class: int = 80) -> ImageSet:
    """Draw smooth random fields (power falls as 1/f^3), each of four classes on its own colour."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)) + 1.0 / size
    white = rng.normal(size=(4 * per_class, channels, size, size))
    fields = np.fft.irfft2(np.fft.rfft2(white) * frequency**-1.5, s=(size, size))
    fields *= 35.0 / fields.std()
    labels = np.arange(4).repeat(per_class)
    colours = np.random.default_rng(99).uniform(80.0, 170.0, (4, channels, 1, 1))
    pixels = np.clip(fields + colours[labels], 0.0, 255.0).astype(np.uint8)
    return ImageSet(pixels, labels, ("a", "b", "c", "d"))


@pytest.fixture(scope="module")
def reference(digits: Splits) -> MonitorReference:
    return build_monitor_reference(digits[1], seed=0)


def plain(slack: float, means: torch.Tensor) -> MonitorReference:
    return MonitorReference(means, torch.eye(64), torch.full((64,), slack))


def test_score_has_a_closed_form() -> None:
    white, dark = np.full((10, 1, 8, 8), 255, np.uint8), np.zeros((10, 1, 8, 8), np.uint8)
    zero = plain(0.5, torch.zeros(1, 64))
    # features are +-1: v = 1 + 0.5
    assert monitor_score(white, zero) == pytest.approx(1.5 - math.log(1.5))
    assert monitor_score(dark, zero) == pytest.approx(1.5 - math.log(1.5))
    # on the nearer of two means: v = 0.5, too little variance
    two = plain(0.5, torch.stack([torch.ones(64), -3 * torch.ones(64)]))
    assert monitor_score(white, two) == pytest.approx(0.5 - math.log(0.5))
    # Of five dark images, 2 off, and five white ones on the mean, one dark one is left out.
    one = plain(0.5, torch.ones(1, 64))
    mixed = np.concatenate([white[:5], dark[:5]])
    v = 4 * 4 / 9 + 0.5
    assert monitor_score(mixed, one) == pytest.approx(v - math.log(v))


def test_one_broken_sample_in_ten_changes_nothing() -> None:
    reference = plain(0.5, torch.ones(1, 64))
    samples = np.full((10, 1, 8, 8), 255, np.uint8)
    clean = monitor_score(samples, reference)
    samples[3] = 0
    assert monitor_score(samples, reference) == clean
    samples[4] = 0
    v = 4 / 9 + 0.5  # one of the nine that are kept is 2 off
    assert monitor_score(samples, reference) == pytest.approx(v - math.log(v))


def test_whitening_inverts_scikit_learns_covariance(
    digits: Splits, reference: MonitorReference
) -> None:
    images = digits[1]
    pixels = images.images.reshape(images.num_images, -1) / 127.5 - 1.0
    means = np.stack([pixels[images.labels == c].mean(axis=0) for c in range(10)])
    covariance, shrinkage = ledoit_wolf(pixels - means[images.labels], assume_centered=True)
    np.testing.assert_allclose(reference.means.numpy(), means, atol=1e-6)
    precision = (reference.whitening.T @ reference.whitening).double().numpy()
    np.testing.assert_allclose(
        np.linalg.inv(precision) * (1 - shrinkage), covariance, rtol=1e-3, atol=1e-4
    )
    data_share = 1.0 - reference.slack.double().numpy()
    whitened = (pixels - means[images.labels]) @ reference.whitening.double().numpy().T
    np.testing.assert_allclose((whitened**2).mean(axis=0), data_share, atol=1e-4)


@pytest.mark.parametrize("labelled", [True, False])
def test_any_one_or_two_digits_score_alike_and_bad_ones_apart(
    digits: Splits, labelled: bool
) -> None:
    train, test = digits
    reference = build_monitor_reference(test if labelled else ImageSet(test.images), seed=0)
    mixes = [(c,) for c in range(10)] + list(combinations(range(10), 2))[::3]
    real = [monitor_score(draw(train, mix), reference) for mix in mixes]
    assert 1.0 <= min(real)
    assert max(real) < 1.15
    for mix in mixes[::5]:
        images = draw(train, mix)
        bad = {**corruptions(images), "inverted": 255 - images}
        worse = {kind: monitor_score(x, reference) for kind, x in bad.items()}
        assert worse["inverted"] > 30.0
        assert worse["noise"] > 10.0
        assert worse["constant"] > 5.0
        assert min(worse.values()) > max(real) + 0.1, worse
        assert monitor_score(blurred(images, 3), reference) > max(real), mix


@pytest.mark.parametrize(("size", "channels"), [(32, 3), (64, 1), (12, 3), (25, 1)])
def test_larger_images_and_colours(size: int, channels: int) -> None:
    reference = build_monitor_reference(textures(0, size, channels), seed=0)
    held_out = textures(1, size, channels)
    real = [monitor_score(draw(held_out, (c,)), reference) for c in range(4)]
    assert max(real) < 1.25
    images = draw(held_out, (0, 3))
    worse = {k: monitor_score(x, reference) for k, x in corruptions(images).items()}
    worse["blurred"] = monitor_score(blurred(images, size // 4 | 1), reference)
    assert min(worse.values()) > max(real) + 0.1, worse


def test_a_class_far_from_all_others_is_not_punished_for_being_rare(digits: Splits) -> None:
    train, test = digits
    pixels = np.concatenate([test.images[18:], 255 - test.images[:18]])
    labels = np.concatenate([test.labels[18:], np.full(18, 10)])
    images = ImageSet(pixels, labels, tuple("0123456789x"))
    reference = build_monitor_reference(images, seed=0)
    assert monitor_score(255 - train.images[:64], reference) < 1.25
    assert monitor_score(corruptions(train.images[:64])["noise"], reference) > 10.0


def test_survives_the_wire_and_is_small(reference: MonitorReference, digits: Splits) -> None:
    back = MonitorReference.from_arrays({k: v.clone() for k, v in reference.arrays().items()})
    samples = digits[0].images[:32]
    assert monitor_score(samples, back) == monitor_score(torch.from_numpy(samples), reference)
    large = build_monitor_reference(textures(0, 32, 3), seed=0).arrays().values()
    assert sum(part.numel() * 4 for part in large) < 300_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slack": None}, "slack missing"),
        ({"means": torch.zeros(64)}, r"means has shape \(64,\)"),
        ({"means": torch.zeros(0, 64)}, r"means has shape \(0, 64\)"),
        ({"whitening": torch.zeros(64, 63)}, r"whitening is torch.float32 \(64, 63\)"),
        ({"whitening": torch.full((64, 64), math.nan)}, "whitening holds values"),
        ({"slack": torch.ones(64).double()}, "slack is torch.float64"),
        ({"slack": torch.zeros(64)}, "slack holds values that are not above 0"),
    ],
)
def test_a_broken_reference_is_refused(
    reference: MonitorReference, change: dict[str, torch.Tensor | None], message: str
) -> None:
    arrays = {k: v for k, v in {**reference.arrays(), **change}.items() if v is not None}
    with pytest.raises(CheckpointError, match=message):
        MonitorReference.from_arrays(arrays)


def test_what_cannot_be_described_or_scored_is_refused(
    reference: MonitorReference, digits: Splits
) -> None:
    with pytest.raises(DataError, match="49 reference images; at least 50"):
        build_monitor_reference(digits[1].subset(slice(49)), seed=0)
    with pytest.raises(DataError, match="all equal"):
        build_monitor_reference(ImageSet(np.full((60, 1, 8, 8), 7, np.uint8)), seed=0)
    for wrong in (
        np.zeros((0, 1, 8, 8), np.uint8),
        np.zeros((4, 1, 8, 8), np.float32),
        np.zeros((4, 8, 8), np.uint8),
    ):
        with pytest.raises(SettingsError, match=r"uint8 \[N, C, H, W\]"):
            monitor_score(wrong, reference)
    with pytest.raises(SettingsError, match="192 features, the monitor reference has 64"):
        monitor_score(np.zeros((4, 3, 8, 8), np.uint8), reference)
