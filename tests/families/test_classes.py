"""Which classes are drawn, by hand."""

import numpy as np
import pytest

from phoenix_pipeline.config import ModelConfig, SamplingConfig
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.families.classes import (
    check_classes,
    class_shares,
    labels_by_number,
    spread_labels,
)

NAMES = ("cat", "dog", "owl")
LABELS = ModelConfig(conditioning="labels")
COUNTS = {"0": [6, 0, 2], "1": [0, 4, 0]}


def metadata(
    layers: tuple[str, ...] = (), counts: dict | None = COUNTS, family: str = "diffusion"
) -> dict:
    model = {"family": family}
    settings = {"class_names": list(NAMES), "personal_layers": list(layers), "model": model}
    return {"settings": settings} | ({"class_counts": counts} if counts else {})


def shares(
    distribution: object,
    client: int = -1,
    layers: tuple[str, ...] = (),
    family: str = "diffusion",
) -> list[float]:
    sampling = SamplingConfig(class_distribution=distribution)
    return class_shares(metadata(layers, family=family), sampling, client).tolist()


def test_the_first_labels_follow_the_golden_ratio() -> None:
    # u = 0.309, 0.927, 0.545, 0.163: of two equal classes 0, 1, 1, 0.
    assert spread_labels(np.array([1.0, 1.0]), 4).tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("count", [10, 97, 1000])
def test_any_beginning_has_the_shares_as_nearly_as_can_be(count: int) -> None:
    wanted = np.array([0.5, 0.0, 0.2, 0.3])
    labels = spread_labels(wanted, count)
    assert labels.tolist() == spread_labels(wanted, 2000)[:count].tolist()
    found = np.bincount(labels, minlength=4)
    assert found[1] == 0
    assert np.abs(found - wanted * count).max() < 3


def test_a_place_at_the_very_end_is_of_the_last_class_with_a_share() -> None:
    # 0.1 + 0.2 + 0.7 and products with it round as they like.
    labels = spread_labels(np.array([0.1, 0.2, 0.7, 0.0]), 100_000)
    assert labels.max() == 2


def test_a_model_draws_the_classes_that_it_was_trained_on() -> None:
    assert shares("as_training") == [6, 4, 2]
    assert shares("as_training", client=1) == [0, 4, 0]
    assert shares("uniform", client=1) == [1, 1, 1]
    assert shares((3.0, 0.0, 1.0)) == [3, 0, 1]


def test_own_embeddings_draw_no_class_that_the_client_never_saw() -> None:
    own = ("class_embedding",)
    assert shares("uniform", client=0, layers=own) == [1, 0, 1]
    assert shares("uniform", client=-1, layers=own) == [1, 1, 1]
    # A GAN draws with its generator's embedding, not with its discriminator's.
    for kept in ("generator.class_embedding", "generator"):
        assert shares("uniform", client=0, layers=(kept,), family="dcgan") == [1, 0, 1]
    judged = ("discriminator.class_embedding",)
    assert shares("uniform", client=0, layers=judged, family="dcgan") == [1, 1, 1]
    # Nothing of what is asked for was learnt.
    assert shares((0.0, 1.0, 0.0), client=0, layers=own) == [6, 0, 2]


def test_classes_of_a_deployment_are_not_known() -> None:
    with pytest.raises(SettingsError, match=r"as_training.*uniform or to shares"):
        class_shares(metadata(counts=None), SamplingConfig())
    uniform = SamplingConfig(class_distribution="uniform")
    assert class_shares(metadata(counts=None), uniform).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("model", "sampling", "line"),
    [
        ({}, {"guidance_scale": 2.0}, r"guidance_scale is 2.0, but the model has no classes"),
        ({}, {"class_distribution": "uniform"}, r"class_distribution is uniform, but the model"),
        (
            {"conditioning": "labels", "label_dropout": 0.0},
            {"guidance_scale": 2.0},
            r"label_dropout is 0",
        ),
        (
            {"conditioning": "labels"},
            {"class_distribution": [1.0, 2.0]},
            r"has 2 shares, but there are 3 classes \(cat, dog, owl\)",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(model: dict, sampling: dict, line: str) -> None:
    with pytest.raises(SettingsError, match=line):
        check_classes(ModelConfig(**model), SamplingConfig(**sampling), NAMES)


def test_settings_refuse_what_can_be_seen_without_images() -> None:
    with pytest.raises(ValueError, match=r"label_dropout is 0.3, but conditioning is none"):
        ModelConfig(label_dropout=0.3)
    with pytest.raises(ValueError, match=r"a share above 0"):
        SamplingConfig(class_distribution=(0.0, 0.0))


def test_labels_go_by_name_or_number() -> None:
    assert labels_by_number(["owl", 0, "dog"], NAMES) == [2, 0, 1]
    for wrong in (3, -1, "cow"):
        with pytest.raises(SettingsError, match=r"none of the model's classes; allowed are 0 to 2"):
            labels_by_number([wrong], NAMES)
    with pytest.raises(SettingsError, match="the model has no classes"):
        labels_by_number([0], ())
