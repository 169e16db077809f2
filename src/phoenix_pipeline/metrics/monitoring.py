"""The score with which a client judges its own model's samples: no network, no real image needed.

The server describes real images once, by Gaussians in a small feature space; a client holds its
samples against that description and sends one number. Threshold Filtering decides over these.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from phoenix_pipeline.errors import CheckpointError, DataError, SettingsError
from phoenix_pipeline.images import ImageSet, to_model_range
from phoenix_pipeline.seeding import derive_seed, numpy_generator

MIN_REFERENCE_IMAGES = 50
_MAX_REFERENCE_IMAGES = 5000
_COARSE_SIDE = 8
# Variance of about one grey level on [-1, 1]: below it a band holds nothing but rounding.
_ENERGY_FLOOR = 1e-4
_BLOCK_IMAGES = 500
# Without any shrinkage a direction in which the reference does not vary has no finite score.
_SHRINKAGE_RANGE = (1e-3, 0.9)
_TRIMMED = 0.1
_MIN_IMAGES_PER_CLASS = 5
_MAX_CLUSTERS, _IMAGES_PER_CLUSTER = 10, 30


@dataclass(frozen=True)
class MonitorReference:
    """What the server hands out; float32, about 0.2 MB for 32x32 RGB images of ten classes.

    ``means`` [K, d]: mean features of each class, or of clusters where labels do not serve.
    ``whitening`` [d, d]: Mahalanobis distance = ||whitening @ (features - mean)||; its rows are
    principal directions. ``slack`` [d], > 0: the share of each direction's unit variance that is
    shrinkage, not data.
    """

    means: Tensor
    whitening: Tensor
    slack: Tensor

    def arrays(self) -> dict[str, Tensor]:
        """Return the parts by name, for the wire."""
        return {"means": self.means, "whitening": self.whitening, "slack": self.slack}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Tensor]) -> "MonitorReference":
        """Return the reference of :meth:`arrays`; raises CheckpointError for a broken part."""
        missing = {"means", "whitening", "slack"} - set(arrays)
        if missing:
            raise _broken(f"{', '.join(sorted(missing))} missing")
        reference = cls(arrays["means"], arrays["whitening"], arrays["slack"])
        reference._check()
        return reference

    def _check(self) -> None:
        width = self.means.shape[-1] if self.means.ndim == 2 else 0
        expected = {"whitening": (width, width), "slack": (width,)}
        if not (width and len(self.means)):
            raise _broken(f"means has shape {tuple(self.means.shape)}, [classes, features] needed")
        for name, part in self.arrays().items():
            shape = expected.get(name, tuple(self.means.shape))
            if tuple(part.shape) != shape or part.dtype != torch.float32:
                raise _broken(
                    f"{name} is {part.dtype} {tuple(part.shape)}, torch.float32 {shape} needed"
                )
            if not bool(torch.isfinite(part).all()):
                raise _broken(f"{name} holds values that are not finite")
        if not bool((self.slack > 0.0).all()):
            raise _broken("slack holds values that are not above 0")


def build_monitor_reference(images: ImageSet, seed: int) -> MonitorReference:
    """Describe real ``images`` by a Gaussian per class with one pooled within-class covariance.

    Clusters of k-means stand in for the classes of unlabelled images. The covariance is shrunk
    after Ledoit and Wolf (J. Multivariate Anal. 88, 2004). At most 5000 images are used, drawn with
    ``seed``.
    Raises DataError: fewer than 50 images, or all of them equal.
    """
    if images.num_images < MIN_REFERENCE_IMAGES:
        raise DataError(
            f"threshold filtering has {images.num_images} reference images; at least "
            f"{MIN_REFERENCE_IMAGES} are needed: give more test images or set "
            "threshold_filter.enabled: false"
        )
    order = numpy_generator(seed, "monitor_reference").permutation(images.num_images)
    chosen = images.subset(order[:_MAX_REFERENCE_IMAGES])
    features = _features(torch.from_numpy(chosen.images)).double().numpy()
    groups = _groups(features, chosen.labels, seed)
    means = np.stack([features[groups == group].mean(axis=0) for group in range(groups.max() + 1)])
    whitening, slack = _whiten(features - means[groups])
    return MonitorReference(*(torch.from_numpy(a).float() for a in (means, whitening, slack)))


def _groups(features: np.ndarray, labels: np.ndarray | None, seed: int) -> np.ndarray:
    """Return each row's group, int64 [N] in 0..K-1: its class, or else one of up to ten clusters.

    Labels with fewer than five images per class would leave too little variance within classes.
    """
    if labels is not None:
        present, groups = np.unique(labels, return_inverse=True)
        if len(groups) >= _MIN_IMAGES_PER_CLASS * len(present):
            return groups
    from sklearn.cluster import KMeans

    num_clusters = min(_MAX_CLUSTERS, max(1, len(features) // _IMAGES_PER_CLUSTER))
    state = derive_seed(seed, "monitor_clusters") % 2**32
    clusters = KMeans(num_clusters, n_init=3, random_state=state).fit_predict(features)
    return np.unique(clusters, return_inverse=True)[1]


def _whiten(residuals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the whitening [d, d] and the slack [d] of centred ``residuals`` [N, d].

    With shrinkage s, sample covariance S and mean variance m, the covariance (1-s) S + s m I has
    eigenvectors V and eigenvalues l: of the unit variance along each, s m / l is not data. The
    whitening sqrt((1-s) / l) V^T leaves 1 - s m / l to the residuals themselves.
    """
    from sklearn.covariance import ledoit_wolf_shrinkage

    covariance = residuals.T @ residuals / len(residuals)
    mean_variance = float(np.trace(covariance)) / len(covariance)
    if mean_variance < 1e-12:
        raise DataError(
            "the reference images of threshold filtering are all equal within each class; real "
            "images that differ are needed: check the test images"
        )
    shrinkage = float(np.clip(ledoit_wolf_shrinkage(residuals, True), *_SHRINKAGE_RANGE))
    eigenvalues, vectors = np.linalg.eigh(covariance)
    shrunk = (1.0 - shrinkage) * eigenvalues.clip(min=0.0) + shrinkage * mean_variance
    whitening = np.sqrt((1.0 - shrinkage) / shrunk)[:, None] * vectors.T
    return whitening, shrinkage * mean_variance / shrunk


@torch.no_grad()
def monitor_score(samples: np.ndarray | Tensor, reference: MonitorReference) -> float:
    """Return how far ``samples`` uint8 [N, C, H, W] are from real images: finite, at least 1.

    With r each sample's whitened residual to its nearest class mean and v_j the mean of r_j^2 over
    samples plus the slack, the score is mean_j (v_j - log v_j): 1 plus twice the Kullback-Leibler
    divergence, per dimension, of Gaussians with these variances. It is about 1 for real images of
    any mix of classes, and grows both for what real images never show (v_j > 1) and for what is
    missing (v_j < 1: blur, constants, one image repeated). A tenth of the samples, the farthest
    ones, is left out.
    Raises SettingsError: no samples, or not uint8 images of the reference's size and channels.
    """
    images = torch.as_tensor(samples)
    if images.ndim != 4 or images.dtype != torch.uint8 or not images.numel():
        raise SettingsError(
            f"samples to score are {images.dtype} {tuple(images.shape)}; uint8 [N, C, H, W] with "
            "N >= 1 is needed"
        )
    means, whitening, slack = (part.double() for part in reference.arrays().values())
    features = _features(images.cpu()).double()
    if features.shape[1] != means.shape[1]:
        raise SettingsError(
            f"samples of {tuple(images.shape[1:])} have {features.shape[1]} features, the monitor "
            f"reference has {means.shape[1]}; both need the same image size and channels"
        )
    whitened, centres = features @ whitening.T, means @ whitening.T
    distances, nearest = torch.cdist(
        whitened, centres, compute_mode="donot_use_mm_for_euclid_dist"
    ).min(dim=1)
    kept = distances.argsort(stable=True)[: len(distances) - int(_TRIMMED * len(distances))]
    spread = (whitened - centres[nearest])[kept].square().mean(dim=0) + slack
    return float((spread - spread.log()).mean())


def _features(images: Tensor) -> Tensor:
    """Return float32 [N, d] of uint8 ``images``, in blocks; see :func:`_block_features`."""
    return torch.cat([_block_features(block) for block in images.split(_BLOCK_IMAGES)])


def _block_features(images: Tensor) -> Tensor:
    """Return the coarse image, 8x8 per channel, and the log energy of each finer pyramid level.

    The levels are those of a Laplacian pyramid (Burt and Adelson 1983) by area averages; their
    energies show noise and blur that the coarse image averages away.
    """
    image, energies = to_model_range(images), []
    while image.shape[-1] > _COARSE_SIDE:
        side = image.shape[-1]
        coarse = functional.adaptive_avg_pool2d(image, max(_COARSE_SIDE, side // 2))
        detail = image - functional.interpolate(coarse, size=(side, side))
        energies.append(detail.square().mean(dim=(2, 3)).add(_ENERGY_FLOOR).log())
        image = coarse
    return torch.cat([image.flatten(1), *energies], dim=1)


def _broken(what: str) -> CheckpointError:
    return CheckpointError(
        f"the monitor reference is broken: {what}; server and clients need the same version and "
        "image size"
    )
