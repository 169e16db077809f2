"""Features without a file of weights: pixels, and those of the label judge."""

import torch
from torch import Tensor
from torch.nn import functional

from phoenix_pipeline.metrics.feature_extractor import (
    FeatureExtractor,
    FeatureSpace,
    SpaceInputs,
    fingerprint_weights,
)
from phoenix_pipeline.metrics.label_judge import LabelJudge
from phoenix_pipeline.metrics.network_file import FileNetwork

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
        searches_copies=True,
    )


def classifier_extractor(judge: LabelJudge) -> FeatureExtractor | None:
    """Return ``fid_classifier``: the features of a judge trained here; None for one from a file."""
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
        searches_copies=True,
    )


def _classifier(inputs: SpaceInputs) -> FeatureExtractor | str:
    if inputs.judge is None:
        return NO_JUDGE
    return inputs.judge.refusal or classifier_extractor(inputs.judge) or OWN_JUDGE


FEATURE_SPACES = (
    FeatureSpace("classifier", "classifier", rank=20, build=_classifier),
    FeatureSpace(
        "pixels",
        "pixels",
        rank=40,
        build=lambda of: pixel_extractor(of.channels, of.image_size, of.device),
    ),
)
