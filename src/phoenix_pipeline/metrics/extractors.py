"""The feature spaces by name (``config.EXTRACTORS``), and which of them are at hand.

A Frechet distance is named after its extractor; only ``fid_inception_v3`` is the published FID.
"""

import torch
from torch import Tensor
from torch.nn import functional

from phoenix_pipeline.config import EvaluationConfig
from phoenix_pipeline.metrics.classifier import LabelJudge
from phoenix_pipeline.metrics.efficientnet import efficientnet_lite0_extractor
from phoenix_pipeline.metrics.feature_extractor import (
    FeatureExtractor,
    extract_features,
    fingerprint_weights,
)
from phoenix_pipeline.metrics.inception import inception_v3_extractor
from phoenix_pipeline.metrics.network_file import FileNetwork

__all__ = [
    "FeatureExtractor",
    "available_extractors",
    "classifier_extractor",
    "extract_features",
    "pixel_extractor",
]

LARGEST_PIXEL_SIDE = 16
NO_JUDGE = "no label judge: the images have no labels, or fewer than two classes"
OWN_JUDGE = "the label judge is from a file, which gives classes and no features"


def pixel_extractor(channels: int, image_size: int, device: torch.device) -> FeatureExtractor:
    """Return ``fid_pixels``: pixels in 0..1, larger images first averaged down to 16x16."""
    side = min(image_size, LARGEST_PIXEL_SIDE)
    preprocessing = f"{channels} channels, area average to {side}x{side}, x / 255, flattened"

    def forward(images: Tensor) -> Tensor:
        pixels = images.float() / 255.0
        if image_size > LARGEST_PIXEL_SIDE:
            pixels = functional.interpolate(pixels, size=(side, side), mode="area")
        return pixels.flatten(1)

    return FeatureExtractor(
        name="fid_pixels",
        num_features=channels * side * side,
        preprocessing=preprocessing,
        fingerprint=fingerprint_weights({}, preprocessing),
        device=device,
        forward=forward,
    )


def classifier_extractor(judge: LabelJudge) -> FeatureExtractor | None:
    """Return ``fid_classifier``: the features before the last layer of a judge trained here.

    None for a judge from a file, which has no features to give.
    """
    if isinstance(judge.network, FileNetwork):
        return None
    preprocessing = (
        f"{judge.channels} channels, {judge.image_size}x{judge.image_size}, x / 127.5 - 1"
    )
    return FeatureExtractor(
        name="fid_classifier",
        num_features=judge.network.head.in_features,
        preprocessing=preprocessing,
        fingerprint=fingerprint_weights(judge.network.state_dict(), preprocessing),
        device=judge.device,
        forward=judge.network.features,
        largest_batch=256,
    )


def available_extractors(
    config: EvaluationConfig,
    channels: int,
    image_size: int,
    judge: LabelJudge | None,
    device: torch.device,
) -> tuple[list[FeatureExtractor], dict[str, str]]:
    """Return the extractors of ``config.extractors`` that can be had, and why the others cannot.

    Raises:
        SettingsError, CheckpointError: see :func:`inception_v3_extractor`.
    """
    found: list[FeatureExtractor] = []
    skipped: dict[str, str] = {}
    for name in config.extractors:
        extractor: FeatureExtractor | None = None
        reason = NO_JUDGE
        if name == "fid_pixels":
            extractor = pixel_extractor(channels, image_size, device)
        elif name == "fid_classifier":
            reason = NO_JUDGE if judge is None else judge.refusal or OWN_JUDGE
            extractor = classifier_extractor(judge) if judge and not judge.refusal else None
        elif name == "fid_efficientnet_lite0":
            extractor = efficientnet_lite0_extractor(device)
        else:
            extractor, reason = inception_v3_extractor(config, device)
        if extractor is None:
            skipped[name] = reason
        else:
            found.append(extractor)
    return found, skipped
