"""The Frechet distance within each class, and its mean over the classes.

A model that draws every class well but mixes up their shares, or that draws one class in the manner
of another, differs here from what the distance over all images says.
"""

import numpy as np

from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.metrics.frechet import check_finite, frechet_distance, gaussian_statistics
from phoenix_pipeline.metrics.metric import FIDELITY, FeatureInputs, FeatureScores, Metric


def class_frechet_distance(
    features: np.ndarray, labels: np.ndarray, reference: np.ndarray, reference_labels: np.ndarray
) -> float:
    """Return the mean of the distances between ``features`` [N, D] and ``reference`` [M, D].

    Over the classes among ``reference_labels`` [M], each of which counts alike; ``labels`` [N]. The
    value falls with the number of images in a class: compare equal numbers only.

    Raises SettingsError: a class has fewer than two images on one side.
    Raises DataError: a feature is not finite.
    """
    check_finite(features)
    check_finite(reference)
    distances = []
    for label in np.unique(reference_labels):
        own, real = features[labels == label], reference[reference_labels == label]
        if min(len(own), len(real)) < 2:
            raise SettingsError(
                f"the class with the number {label} has {len(own)} samples and {len(real)} real "
                "images; allowed is 2 or more of each; raise sampling.num_images"
            )
        distances.append(_distance(own, real))
    return float(np.mean(distances))


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the Frechet distance between ``a`` [N, D] and ``b`` [M, D].

    With fewer images than features the trace of the root is the sum of the singular values of
    X Y^T, [N, M], where X and Y are the centred features over the roots of N - 1 and M - 1: no
    matrix is D x D.
    """
    if min(len(a), len(b)) >= a.shape[1]:
        return frechet_distance(gaussian_statistics(a), gaussian_statistics(b))
    x, y = _scaled(a), _scaled(b)
    offset = a.mean(axis=0, dtype=np.float64) - b.mean(axis=0, dtype=np.float64)
    trace_of_root = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    distance = offset @ offset + np.square(x).sum() + np.square(y).sum() - 2 * trace_of_root
    return float(max(distance, 0.0))


def _scaled(features: np.ndarray) -> np.ndarray:
    """Return X [N, D], float64, of which X^T X is the unbiased covariance."""
    centred = features - features.mean(axis=0, dtype=np.float64)
    return np.asarray(centred / np.sqrt(len(features) - 1))


def _measure(inputs: FeatureInputs) -> tuple[float]:
    if inputs.labels is None or inputs.reference_labels is None:
        which = "samples" if inputs.labels is None else "real images"
        raise SettingsError(f"the {which} have no labels")
    reference = inputs.reference.compared_features
    known = inputs.reference_labels[: len(reference)]
    return (class_frechet_distance(inputs.features, inputs.labels, reference, known),)


SCORES = (
    FeatureScores(
        (
            Metric(
                "class_fid_",
                "FID within class",
                "Fréchet distance between samples and real images of the same class, mean over the "
                "classes; the class of a sample is the one that was asked for or, of an "
                "unconditional model, the label classifier's guess",
                "lower",
                FIDELITY,
            ),
        ),
        _measure,
    ),
)
