"""The label judge on real digits: accuracy, determinism, storage, refusals."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from phoenix_pipeline.config import ClassifierConfig
from phoenix_pipeline.errors import DataError, SettingsError
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.metrics.judge_training import train_classifier
from phoenix_pipeline.metrics.label_judge import LabelJudge, load_judge, save_judge

CPU = torch.device("cpu")
SMALL = ClassifierConfig(channels=4, epochs=1, batch_size=32)


def colour_squares(side: int, count: int = 24) -> ImageSet:
    labels = np.arange(count, dtype=np.int64) % 2
    images = np.zeros((count, 3, side, side), dtype=np.uint8)
    images[labels == 1, 0] = 255
    return ImageSet(images, labels, ("black", "red"))


def test_judges_held_out_digits(digits: tuple[ImageSet, ImageSet], judge: LabelJudge):
    _, test = digits
    probabilities = judge.probabilities(test.images)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    accuracy = (probabilities.argmax(axis=1) == test.labels).mean()
    assert judge.test_accuracy == pytest.approx(accuracy)
    assert accuracy >= 0.975
    assert judge.num_test_images == 360
    assert judge.class_counts == tuple(np.bincount(digits[0].labels).tolist())


def test_probabilities_are_those_of_the_last_layer_on_the_features(
    digits: tuple[ImageSet, ImageSet], judge: LabelJudge
):
    images = digits[1].images[:300]
    with torch.no_grad():
        features = judge.network.features(torch.from_numpy(images))
        assert features.shape == (300, 64)
        expected = judge.network.head(features).softmax(dim=1).numpy()
    np.testing.assert_allclose(judge.probabilities(images), expected, atol=1e-6)


def test_same_seed_same_weights_and_the_global_generator_is_untouched():
    images = colour_squares(8)
    before = torch.random.get_rng_state()
    configs = (SMALL.model_copy(update={"seed": seed}) for seed in (0, 0, 1))
    first, again, other = (train_classifier(images, images, c, CPU) for c in configs)
    assert torch.equal(before, torch.random.get_rng_state())
    weights = [j.network.head.weight for j in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("side", "network", "precision"),
    [
        (9, "residual", "auto"),
        (32, "residual", "bf16"),
        (64, "residual", "fp32"),
        (8, "pooled", "auto"),
        (33, "pooled", "bf16"),
    ],
)
def test_learns_colours_at_any_size(side: int, network: str, precision: str):
    images = colour_squares(side, count=16)
    config = ClassifierConfig(
        network=network,
        precision=precision,
        channels=4,
        epochs=15,
        batch_size=8,
        learning_rate=0.02,
        horizontal_flip=True,
    )
    ticks: list[int] = []
    judge = train_classifier(images, images, config, CPU, progress=ticks.append)
    assert judge.test_accuracy == 1.0
    assert sum(ticks) == 15


def test_a_judge_that_saw_mirrored_images_asks_both_views():
    images = colour_squares(8).images.copy()
    images[:, :, :, :3] = 90
    config = SMALL.model_copy(update={"horizontal_flip": True, "cutout": 0.25})
    train = ImageSet(images, np.arange(24) % 2, ("black", "red"))
    judge = train_classifier(train, train, config, CPU)
    mirrored = np.ascontiguousarray(images[..., ::-1])
    found = judge.probabilities(images)
    np.testing.assert_allclose(found, judge.probabilities(mirrored), atol=1e-6)
    with torch.no_grad():
        views = [judge.network(torch.from_numpy(x)) for x in (images, mirrored)]
    assert (views[0] - views[1]).abs().max() > 1e-4
    np.testing.assert_allclose(found, (sum(views) / 2).softmax(1), atol=1e-6)
    assert judge.test_accuracy == pytest.approx((found.argmax(1) == train.labels).mean())


def test_a_stored_judge_is_the_same_judge(
    tmp_path: Path, digits: tuple[ImageSet, ImageSet], judge: LabelJudge
):
    save_judge(tmp_path, judge)
    stored = load_judge(tmp_path, *digits, judge.config, CPU)
    assert stored is not None
    images = digits[1].images
    assert np.array_equal(stored.probabilities(images), judge.probabilities(images))
    assert (stored.test_accuracy, stored.class_names) == (judge.test_accuracy, judge.class_names)
    assert (stored.class_counts, stored.config) == (judge.class_counts, judge.config)


def test_a_judge_of_other_data_settings_or_a_broken_file_does_not_match(
    tmp_path: Path, digits: tuple[ImageSet, ImageSet], judge: LabelJudge
):
    train, test = digits
    path = tmp_path / "label_judge.safetensors"
    assert load_judge(tmp_path, *digits, judge.config, CPU) is None
    save_judge(tmp_path, judge)
    config = judge.config
    others = [
        (train.subset(slice(0, 900)), test, config),
        (train, test.subset(slice(0, 90)), config),
        (train, test, config.model_copy(update={"epochs": 11})),
        (train, test, config.model_copy(update={"seed": 1})),
    ]
    assert load_judge(tmp_path, train, test, config, CPU) is not None
    assert all(load_judge(tmp_path, *other, CPU) is None for other in others)
    path.write_bytes(path.read_bytes()[:-100])
    assert load_judge(tmp_path, *digits, config, CPU) is None


def test_refuses_what_cannot_be_judged(judge: LabelJudge):
    images = colour_squares(8)
    unlabelled = ImageSet(images.images)
    one_class = ImageSet(images.images, np.zeros(24, dtype=np.int64), ("only",))
    renamed = ImageSet(images.images, images.labels, ("red", "black"))
    for bad in (unlabelled, one_class):
        with pytest.raises(SettingsError, match="at least two classes"):
            train_classifier(bad, bad, SMALL, CPU)
    with pytest.raises(DataError, match="same names"):
        train_classifier(images, renamed, SMALL, CPU)
    with pytest.raises(DataError, match="1, 8, 8"):
        judge.probabilities(images.images)


@pytest.mark.parametrize(("right", "refused"), [(28, True), (29, False)])
def test_a_judge_knows_more_only_beyond_chance(right: int, refused: bool):
    """A ninth of 180 images, 20, is of the commonest class; two standard errors are 8.4 images.

    sqrt(1/9 * 8/9 / 180) = 0.02342, times 2 * 180.
    """
    judge = train_classifier(colour_squares(8), colour_squares(8), SMALL, CPU)
    judged = replace(judge, test_accuracy=right / 180, majority_share=20 / 180, num_test_images=180)
    assert bool(judged.refusal) is refused
