"""Features, and scores from given ones, against torch-fidelity and torchmetrics, and equal."""

from dataclasses import replace

import numpy as np
import torch

from benchmarks.harness import Options, Row, compare
from phoenix_pipeline.metrics.efficientnet import efficientnet_lite0_extractor
from phoenix_pipeline.metrics.feature_extractor import extract_features
from phoenix_pipeline.metrics.frechet import frechet_distance, gaussian_statistics
from phoenix_pipeline.metrics.manifold import manifold_scores
from phoenix_pipeline.seeding import numpy_generator

# Half of the 10,000 that scores are made of, and few pairs: a root of the peers' takes 20 seconds.
_SHAPE = (5_000, 2048)
_FRECHET_PAIRS = 2
_QUICK_SHAPE = (400, 64)
_IMAGES = 512
_QUICK_IMAGES = 16
_BATCH = 64
_LARGEST_DIFFERENCE = 1e-3
_NEAREST = 5


def run(options: Options) -> list[Row]:
    """Compare Frechet distance, precision and recall on the same random features, and features."""
    shape = _QUICK_SHAPE if options.quick else _SHAPE
    samples, reference = _features(*shape)
    return [
        *_frechet(samples, reference, options),
        _precision_recall(samples, reference, options),
        _extraction(options),
    ]


def _frechet(samples: np.ndarray, reference: np.ndarray, options: Options) -> list[Row]:
    from torch_fidelity.metric_fid import (
        KEY_METRIC_FID,
        fid_features_to_statistics,
        fid_statistics_to_metric,
    )
    from torchmetrics.image.fid import _compute_fid

    def ours() -> float:
        return frechet_distance(gaussian_statistics(samples), gaussian_statistics(reference))

    def fidelity() -> float:
        sides = (fid_features_to_statistics(torch.from_numpy(x)) for x in (samples, reference))
        return float(fid_statistics_to_metric(*sides, verbose=False)[KEY_METRIC_FID])

    def metrics() -> float:
        moments = []
        for features in (samples, reference):
            values = torch.from_numpy(features).double()
            moments += [values.mean(0), values.T.cov()]
        return float(_compute_fid(*moments))

    few = replace(options, repetitions=min(options.repetitions, _FRECHET_PAIRS))
    return [
        compare(
            f"frechet_distance_{peer}",
            f"two sets of {samples.shape[0]} x {samples.shape[1]} features against {peer}",
            ours,
            theirs,
            few,
            1.0,
            warm=True,
            relative_difference=_difference(ours(), theirs()),
        )
        for peer, theirs in (("torch-fidelity", fidelity), ("torchmetrics", metrics))
    ]


def _precision_recall(samples: np.ndarray, reference: np.ndarray, options: Options) -> Row:
    from torch_fidelity.metric_prc import (
        KEY_METRIC_PRECISION,
        KEY_METRIC_RECALL,
        prc_features_to_metric,
    )

    def ours() -> tuple[float, float]:
        scores = manifold_scores(samples, reference, _NEAREST)
        return scores.precision, scores.recall

    def fidelity() -> tuple[float, float]:
        found = prc_features_to_metric(
            torch.from_numpy(samples),
            torch.from_numpy(reference),
            prc_neighborhood=_NEAREST,
            prc_batch_size=10_000,
            save_cpu_ram=False,
            verbose=False,
        )
        return found[KEY_METRIC_PRECISION], found[KEY_METRIC_RECALL]

    return compare(
        "precision_recall_torch-fidelity",
        f"{samples.shape[0]} x {samples.shape[1]} features; ours gives density and coverage too",
        ours,
        fidelity,
        options,
        1.0,
        warm=True,
        relative_difference=max(map(_difference, ours(), fidelity())),
    )


def _extraction(options: Options) -> Row:
    """Compare with batches of 64, one after another on all threads: torch-fidelity's loop."""
    count = _QUICK_IMAGES if options.quick else _IMAGES
    pixels = numpy_generator(0, "benchmark_images").integers(0, 256, (count, 3, 32, 32), "uint8")
    extractor = efficientnet_lite0_extractor(torch.device("cpu"))

    def ours() -> np.ndarray:
        return extract_features(extractor, pixels, _BATCH)

    def batches() -> np.ndarray:
        parts = [torch.from_numpy(pixels[i : i + _BATCH]) for i in range(0, count, _BATCH)]
        return np.concatenate([extractor(part).numpy() for part in parts])

    expected = batches()
    difference = np.linalg.norm(ours() - expected) / np.linalg.norm(expected)
    return compare(
        "features_efficientnet-lite0",
        f"{count} images of 32x32, divided among the cores, against batches of {_BATCH} in turn",
        ours,
        batches,
        options,
        1.0,
        warm=True,
        relative_difference=float(difference),
    )


def _difference(value: float, expected: float) -> float:
    """Return the relative difference; raises RuntimeError above what the scores may differ by."""
    difference = abs(value - expected) / abs(expected)
    if difference > _LARGEST_DIFFERENCE:
        raise RuntimeError(
            f"{value} against {expected}: they differ by {difference:.1e}, more than "
            f"{_LARGEST_DIFFERENCE:.0e}; a faster wrong score is no score"
        )
    return difference


def _features(count: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two correlated float32 sets [count, width] whose manifolds overlap in part."""
    generator = numpy_generator(0, "benchmark_features")
    hidden = max(2, width // 8)
    mixing = generator.normal(size=(hidden, width))

    def draw(offset: float) -> np.ndarray:
        inner = generator.normal(offset, 1.0, (count, hidden)) @ mixing
        outer = generator.normal(size=(count, width))
        return np.asarray(inner / hidden**0.5 + 0.3 * outer, dtype=np.float32)

    return draw(0.0), draw(0.1)
