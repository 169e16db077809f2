"""The packaged defaults at the size of the smoke run, and small images."""

from pathlib import Path

import numpy as np
import pytest
import yaml

import phoenix_pipeline as phoenix
from phoenix_pipeline.api import settings
from phoenix_pipeline.config import deep_merge
from tests.federated.tiny import make_images

SMOKE = Path(__file__).parents[2] / "conf/smoke/parameters_smoke.yml"


@pytest.fixture
def smoke_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let arms be as small as in ``kedro run --env smoke``."""
    smoke = yaml.safe_load(SMOKE.read_text(encoding="utf-8"))
    arms = {name: smoke[name] for name in settings.ARM_NAMES if name in smoke}
    small = deep_merge(settings._DEFAULTS, {**smoke, "arms": arms})
    monkeypatch.setattr(settings, "_DEFAULTS", small)


@pytest.fixture
def images() -> phoenix.Images:
    """40 unlabelled training images of 8 pixels, and 60 others."""
    return phoenix.Images(make_images(40), make_images(60))


@pytest.fixture
def labelled(images: phoenix.Images) -> phoenix.Images:
    """The same with two classes."""
    names = ("even", "odd")
    train, test = (
        phoenix.ImageSet(part.images, np.arange(part.num_images) % 2, names)
        for part in (images.train, images.test)
    )
    return phoenix.Images(train, test)
