"""Features without a file, and spaces at hand; only ``fid_inception_v3`` is the published FID."""

import torch
from torch import Tensor
from torch.nn import functional

from phoenix_pipeline.config import EXTRACTORS, EvaluationConfig
from phoenix_pipeline.config.base import AUTO
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.metrics.components import extractor_spaces
from phoenix_pipeline.metrics.feature_extractor import (
    FeatureExtractor,
    FeatureSpace,
    SpaceInputs,
    fingerprint_weights,
)
from phoenix_pipeline.metrics.label_judge import LabelJudge
from phoenix_pipeline.metrics.network_file import FileNetwork
from phoenix_pipeline.registry import look_up

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


def available_extractors(
    config: EvaluationConfig,
    channels: int,
    image_size: int,
    judge: LabelJudge | None,
    device: torch.device,
) -> tuple[list[FeatureExtractor], dict[str, str]]:
    """Return extractors that can be had, why others not; raises SettingsError, CheckpointError."""
    check_extractors(config)
    inputs = SpaceInputs(config, channels, image_size, judge, device)
    spaces = extractor_spaces()
    found: list[FeatureExtractor] = []
    skipped: dict[str, str] = {}
    for name in EXTRACTORS if config.extractors == AUTO else config.extractors:
        built = spaces[name].build(inputs)
        if isinstance(built, str):
            skipped[name] = built
        else:
            found.append(built)
    return found, skipped


def check_extractors(config: EvaluationConfig) -> None:
    """Raise SettingsError for extractors that are unknown or not installed; lists the others."""
    if config.extractors == AUTO:
        return
    spaces = extractor_spaces()
    for name in config.extractors:
        if missing := look_up(spaces, name, "evaluation.extractors").missing():
            rest = ", ".join(other for other, space in spaces.items() if not space.missing())
            raise SettingsError(
                f"evaluation.extractors has {name!r}, but {missing}; install it, or choose among "
                f"{rest}, or leave evaluation.extractors at {AUTO!r}, which takes what there is"
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
