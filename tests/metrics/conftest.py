"""Real digits and one label judge, shared by the tests of this folder."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from phoenix_pipeline.config import ClassifierConfig
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.metrics.judge_training import train_classifier
from phoenix_pipeline.metrics.label_judge import LabelJudge


@pytest.fixture(scope="session")
def digits() -> tuple[ImageSet, ImageSet]:
    """Training (1437 or so) and test images, uint8 [N, 1, 8, 8]."""
    data = load_digits()
    images = np.round(data.images * 255 / 16).astype(np.uint8)[:, None]
    names = tuple(str(name) for name in data.target_names)
    everything = ImageSet(images, data.target.astype(np.int64), names)
    order = np.random.default_rng(0).permutation(everything.num_images)
    return everything.subset(order[360:]), everything.subset(order[:360])


@pytest.fixture(scope="session")
def judge(digits: tuple[ImageSet, ImageSet]) -> LabelJudge:
    """A label judge trained for less than the default epochs, half as wide."""
    config = ClassifierConfig(channels=16, epochs=6, batch_size=64)
    return train_classifier(*digits, config, torch.device("cpu"))
