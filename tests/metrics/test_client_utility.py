"""What clients gain: the classes that they lack, where samples are real images of all classes."""

import numpy as np
import pytest

from phoenix_pipeline.config import ClassifierConfig
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.metrics import client_utility
from phoenix_pipeline.metrics.client_utility import ClientUtility, client_utilities, summarise
from phoenix_pipeline.metrics.label_judge import LabelJudge

Digits = tuple[ImageSet, ImageSet]


def rows_of(train: ImageSet, *classes: int) -> np.ndarray:
    assert train.labels is not None
    return np.flatnonzero(np.isin(train.labels, classes))


def test_a_client_of_two_classes_learns_the_others_from_samples(
    digits: Digits, judge: LabelJudge
) -> None:
    train, test = digits
    assert test.labels is not None
    holdings = {4: rows_of(train, 0, 1)}
    origin = np.full(test.num_images, -1)
    # The held-out images themselves as samples.
    found = client_utilities(test.images, origin, holdings, judge, train, test)[4]
    assert found.num_images == len(holdings[4])
    assert found.num_samples == test.num_images
    assert found.alone == pytest.approx(np.isin(test.labels, (0, 1)).mean(), abs=0.05)
    assert found.with_samples > found.alone + 0.6
    assert found.gain == found.with_samples - found.alone


def test_a_client_with_a_model_of_its_own_gets_its_samples(
    digits: Digits, judge: LabelJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test = digits
    seen: list[tuple[int, list[int]]] = []

    def compare(own: ImageSet, drawn: ImageSet, *_: object) -> ClientUtility:
        assert drawn.labels is not None
        seen.append((own.num_images, drawn.labels.tolist()))
        return ClientUtility(1, 1, 0.5, 0.25)

    monkeypatch.setattr(client_utility, "_compare", compare)
    samples, origin = train.images[:4], np.array([0, 7, 0, -1])
    asked = np.array([1, 2, 3, 4])
    holdings = {0: np.arange(5), 7: np.arange(6), 8: np.arange(7)}
    done: list[int] = []
    found = client_utilities(
        samples, origin, holdings, judge, train, test, asked=asked, progress=done.append
    )
    assert seen == [(5, [1, 3]), (6, [2]), (7, [4])]
    assert done == [1, 1, 1]
    assert summarise(found) == {
        "client_utility_alone": 0.5,
        "client_utility": 0.25,
        "client_utility_least_gain": -0.25,
    }


@pytest.mark.parametrize(
    ("few", "many", "epochs"),
    [
        # 20 epochs of 10 steps; alone 2 steps each.
        (130, 1200, 100),
        (128, 128, 20),
        # 20 epochs of 3 steps are 30 of 2.
        (200, 300, 30),
    ],
)
def test_both_classifiers_make_as_many_steps(few: int, many: int, epochs: int) -> None:
    config = ClassifierConfig(epochs=20, batch_size=128)
    assert client_utility._epochs_of_as_many_steps(config, few, many).epochs == epochs
