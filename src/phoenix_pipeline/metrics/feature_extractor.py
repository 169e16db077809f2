"""What a feature extractor and its space are, and how a batch of images goes through one.

A module of ``metrics`` lists its feature spaces in ``FEATURE_SPACES``.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from phoenix_pipeline.config import EvaluationConfig
from phoenix_pipeline.errors import DataError, SettingsError
from phoenix_pipeline.threads import side_by_side

if TYPE_CHECKING:
    from phoenix_pipeline.metrics.label_judge import LabelJudge

Advance = Callable[[int], None]


@dataclass(frozen=True)
class FeatureExtractor:
    """A named map from uint8 images [N, C, H, W] to float32 features [N, num_features].

    ``fingerprint`` is the sha256 of weights and preprocessing: equal ones give equal features.
    ``largest_batch`` is the batch size beyond which a CPU only loses its caches.
    ``searches_copies``: copies are looked for even where the features of all training images have
    to be taken for that alone.
    """

    name: str
    num_features: int
    preprocessing: str
    fingerprint: str
    device: torch.device
    forward: Callable[[Tensor], Tensor]
    largest_batch: int = 1024
    searches_copies: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        """Return float32 features [N, num_features] of uint8 images [N, C, H, W], 0..255."""
        with torch.inference_mode():
            return self.forward(images.to(self.device)).float()


@dataclass(frozen=True)
class SpaceInputs:
    """What an extractor may be built from; images are uint8 [N, channels, size, size]."""

    config: EvaluationConfig
    channels: int
    image_size: int
    judge: "LabelJudge | None"
    device: torch.device


@dataclass(frozen=True)
class FeatureSpace:
    """A feature space; settings and its Frechet distance call it ``fid_<name>``.

    ``label``: in headers. ``rank``: the lower the more telling. ``build``: the extractor, or the
    reason in one line why there is none. ``keep``: see ``Headline.keep``; None: as the metric says.
    ``missing``: what must be installed first, in one line; "" where nothing is missing.
    """

    name: str
    label: str
    rank: int
    build: Callable[[SpaceInputs], FeatureExtractor | str]
    keep: int | None = None
    missing: Callable[[], str] = lambda: ""


def fingerprint_weights(weights: Mapping[str, Tensor], preprocessing: str) -> str:
    """Return the sha256 over the names, types, shapes and values of ``weights`` and the text."""
    digest = hashlib.sha256(preprocessing.encode())
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def as_rgb(images: Tensor) -> Tensor:
    """Return [N, 3, H, W]: grey images are repeated, RGB ones are passed on."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def extract_features(
    extractor: FeatureExtractor,
    images: np.ndarray,
    batch_size: int,
    progress: Advance | None = None,
) -> np.ndarray:
    """Return float32 features [N, D] of uint8 ``images`` [N, C, H, W], in order.

    ``progress`` gets the number of images just done. Raises DataError, SettingsError: there is no
    image, it is none, or a feature is not finite.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise DataError(
            f"{extractor.name} got {images.dtype} images of shape {images.shape}; allowed is uint8 "
            "[N, C, H, W] with 1 or 3 channels"
        )
    if not len(images):
        raise SettingsError(f"{extractor.name} got 0 images; allowed is 1 or more")
    if extractor.device.type == "cpu":
        batch_size = min(batch_size, extractor.largest_batch)
    features = np.empty((len(images), extractor.num_features), dtype=np.float32)

    def extract(indices: Sequence[int]) -> np.ndarray:
        batch = np.ascontiguousarray(images[indices[0] : indices[-1] + 1])
        return extractor(torch.from_numpy(batch)).cpu().numpy()

    at_once = batch_size * (torch.get_num_threads() if extractor.device.type == "cpu" else 1)
    with side_by_side(extract, extractor.device) as extract_parts:
        for start in range(0, len(images), at_once):
            rows = range(start, min(start + at_once, len(images)))
            features[rows.start : rows.stop] = extract_parts(rows)
            if progress is not None:
                progress(len(rows))
    if not np.isfinite(features).all():
        bad = int((~np.isfinite(features)).any(axis=1).sum())
        raise DataError(
            f"{extractor.name} gave non-finite features for {bad} of {len(images)} images"
        )
    return features
