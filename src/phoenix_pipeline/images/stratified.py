"""Class-stratified subsets and splits of an :class:`ImageSet`, and the apportionment they need."""

import heapq
import math
from collections.abc import Sequence

import numpy as np

from phoenix_pipeline.errors import DataError, SettingsError
from phoenix_pipeline.images.image_set import ImageSet
from phoenix_pipeline.seeding import numpy_generator


def apportion(
    weights: Sequence[float] | np.ndarray,
    total: int,
    lower: Sequence[int] | np.ndarray | None = None,
    upper: Sequence[int] | np.ndarray | None = None,
) -> np.ndarray:
    """Divide ``total`` units in proportion to ``weights`` by Webster's divisor method.

    Returns int64 [K] that sums to ``total``, between ``lower`` (default 0) and ``upper`` (default
    unbounded); what one entry cannot take goes to the others in proportion. Ties go to the lower
    index. Raises ValueError when the bounds leave no solution.
    """
    counts = np.zeros(len(weights), dtype=np.int64) if lower is None else np.array(lower, np.int64)
    limits = np.full(len(weights), total) if upper is None else np.asarray(upper)
    remaining = total - int(counts.sum())
    if remaining < 0 or (counts > limits).any() or int(limits.sum()) < total:
        raise ValueError(f"{total} units do not fit between {counts.sum()} and {limits.sum()}")
    queue = [
        (-float(weight) / (2 * count + 1), index)
        for index, (weight, count, limit) in enumerate(zip(weights, counts, limits, strict=True))
        if count < limit
    ]
    heapq.heapify(queue)
    for _ in range(remaining):
        _, index = heapq.heappop(queue)
        counts[index] += 1
        if counts[index] < limits[index]:
            heapq.heappush(queue, (-float(weights[index]) / (2 * int(counts[index]) + 1), index))
    return counts


def take_stratified(images: ImageSet, n: int, seed: int) -> ImageSet:
    """Return ``n`` random images in their order, every class in proportion and at least once.

    Returns ``images`` itself when it has no more than ``n``. Raises SettingsError when ``n`` is
    smaller than the number of classes.
    """
    if n >= images.num_images:
        return images
    sizes = _class_sizes(images)
    present = np.minimum(sizes, 1)
    if n < present.sum():
        raise SettingsError(
            f"{n} images of {present.sum()} classes were asked for; at least {present.sum()} are "
            f"needed: raise images.max_train_images or images.max_test_images"
        )
    counts = apportion(sizes, n, lower=present, upper=sizes)
    return images.subset(_draw(images, counts, seed, "take_stratified"))


def split_held_out(images: ImageSet, fraction: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """Split into (kept, held out), stratified by class, for data without a test split.

    ceil(``fraction`` x N) images are held out, every class on both sides. Raises DataError when a
    class has a single image and SettingsError when a side has fewer images than classes.
    """
    sizes = _class_sizes(images)
    if (sizes == 1).any():
        name = images.class_names[int((sizes == 1).argmax())] if images.class_names else ""
        raise DataError(
            f"class {name!r} has one image, which cannot be in both splits; at least 2 are needed: "
            f"add one, leave the class out, or name the test images (test_images)"
        )
    present = np.minimum(sizes, 1)
    # Rounded first, so that 0.07 x 100 = 7.000000000000001 is 7.
    n = math.ceil(round(fraction * images.num_images, 6))
    if not present.sum() <= n <= images.num_images - present.sum():
        raise SettingsError(
            f"images.test_fraction {fraction} holds out {n} of {images.num_images} images; with "
            f"{present.sum()} classes {present.sum()} to {images.num_images - present.sum()} are "
            f"possible"
        )
    counts = apportion(sizes, n, lower=present, upper=np.maximum(sizes - 1, 0))
    held_out = np.zeros(images.num_images, dtype=bool)
    held_out[_draw(images, counts, seed, "split_held_out")] = True
    return images.subset(~held_out), images.subset(held_out)


def _class_sizes(images: ImageSet) -> np.ndarray:
    if images.labels is None:
        return np.array([images.num_images])
    return np.bincount(images.labels, minlength=images.num_classes)


def _draw(images: ImageSet, counts: np.ndarray, seed: int, role: str) -> np.ndarray:
    labels = np.zeros(images.num_images, np.int64) if images.labels is None else images.labels
    chosen = [
        numpy_generator(seed, role, label).permutation(np.flatnonzero(labels == label))[:count]
        for label, count in enumerate(counts)
    ]
    return np.sort(np.concatenate(chosen))
