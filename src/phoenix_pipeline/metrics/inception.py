"""The published FID Inception network (torch-fidelity's port) and how its weights are found."""

import io
import logging
import pickle
from pathlib import Path

import torch
from torch import Tensor

from phoenix_pipeline.config import EvaluationConfig
from phoenix_pipeline.errors import CheckpointError, SettingsError
from phoenix_pipeline.metrics.feature_extractor import (
    FeatureExtractor,
    FeatureSpace,
    as_rgb,
    fingerprint_weights,
)

logger = logging.getLogger(__name__)

PREPROCESSING = "RGB, TensorFlow-1 bilinear to 299x299, (x - 128) / 128, 2048 pooled features"


def inception_v3_extractor(
    config: EvaluationConfig, device: torch.device
) -> FeatureExtractor | str:
    """Return ``fid_inception_v3``, or why not; raises SettingsError, CheckpointError."""
    if config.inception_weights is not None:
        return _build(_read_weights(Path(config.inception_weights)), device)
    if not config.allow_download:
        return (
            "no weights: set evaluation.inception_weights to the published file, or "
            "evaluation.allow_download to true"
        )
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    try:
        weights = torch.hub.load_state_dict_from_url(
            URL_INCEPTION_V3, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        logger.warning("The Inception weights could not be downloaded: %s", error)
        return (
            f"the weights could not be downloaded ({_first_line(error)}); set "
            "evaluation.inception_weights to the published file"
        )
    return _build(weights, device)


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise SettingsError(
            f"evaluation.inception_weights is {str(path)!r}, which is not a file; allowed is a "
            "file of the published FID Inception weights (.pth or .safetensors), or null"
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise a dozen types for a broken file
        raise CheckpointError(
            f"evaluation.inception_weights {str(path)!r} cannot be read as plain weights: "
            f"{_first_line(error)}; allowed is a PyTorch state dict or safetensors"
        ) from error
    if not isinstance(weights, dict):
        raise CheckpointError(
            f"evaluation.inception_weights {str(path)!r} holds a {type(weights).__name__}; allowed "
            "is a state dict"
        )
    return weights


def _build(weights: dict[str, Tensor], device: torch.device) -> FeatureExtractor:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    # The constructor only takes a file and unpickles it in full: it gets these checked weights,
    # written by us to memory, never the user's file.
    stream = io.BytesIO()
    torch.save(weights, stream)
    stream.seek(0)
    try:
        network = FeatureExtractorInceptionV3(
            "fid_inception_v3", ["2048"], feature_extractor_weights_path=stream
        )
    except RuntimeError as error:
        raise CheckpointError(
            "evaluation.inception_weights does not fit the FID Inception network: "
            f"{_first_line(error)}; allowed is torch-fidelity's weights-inception-2015-12-05"
        ) from error
    network.to(device)
    return FeatureExtractor(
        name="fid_inception_v3",
        num_features=2048,
        preprocessing=PREPROCESSING,
        fingerprint=fingerprint_weights(weights, PREPROCESSING),
        device=device,
        forward=lambda images: network(as_rgb(images))[0],
        largest_batch=16,
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


FEATURE_SPACES = (
    FeatureSpace(
        "inception_v3",
        "Inception-v3",
        rank=10,
        build=lambda inputs: inception_v3_extractor(inputs.config, inputs.device),
    ),
)
