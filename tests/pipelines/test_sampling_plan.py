"""How many samples come from whose model."""

import pytest

from phoenix_pipeline.arms.sampling import plan_samples
from phoenix_pipeline.errors import SettingsError


def test_clients_give_samples_in_proportion_to_their_data() -> None:
    metadata = {
        "clients": [0, 2, 7],
        "num_examples": {"0": 30, "1": 999, "2": 10, "7": 60},
        "has_global_model": False,
    }
    assert plan_samples(metadata, 100) == {0: 30, 2: 10, 7: 60}
    assert plan_samples(metadata, 1) == {7: 1}
    both = {**metadata, "has_global_model": True}
    assert plan_samples(both, 10) == {0: 3, 2: 1, 7: 6, -1: 10}


def test_a_global_model_gives_all() -> None:
    metadata = {"clients": [], "num_examples": {"0": 3}, "has_global_model": True}
    assert plan_samples(metadata, 50) == {-1: 50}


def test_without_a_complete_model_one_line_says_what_to_set() -> None:
    metadata = {"clients": [], "num_examples": {"0": 30}, "has_global_model": False}
    with pytest.raises(SettingsError, match="release-personal-layers=true"):
        plan_samples(metadata, 10)
