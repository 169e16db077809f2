"""How the variants of the fine-tuning benchmark are read."""

import pytest

from benchmarks.fine_tuning import settings_of
from phoenix_pipeline.config import LoraConfig


def test_whole_weights_have_a_rate_alone() -> None:
    assert settings_of("full 2e-3") == {"training": {"learning_rate": 0.002}}


def test_adapters_have_targets_a_rank_and_what_is_trained_whole() -> None:
    plain = settings_of("conv r2 4e-3")
    assert plain["training"] == {"learning_rate": 0.004}
    expected = LoraConfig(rank=2, target_modules=("conv1", "conv2"))
    assert LoraConfig.model_validate(plain["model"]["lora"]) == expected
    much = settings_of("all and ends r16 A at rest 1e-2")["model"]["lora"]
    assert (much["rank"], much["freeze_a"], much["modules_to_save"]) == (16, True, [])
    assert {"conv_in", "conv_out", "to_q", "conv"} < set(much["target_modules"])
    whole = settings_of("all r1 with ends and norms 1e-2")["model"]["lora"]["modules_to_save"]
    assert set(whole) == {"conv_in", "conv_out", "norm1", "norm2", "group_norm", "conv_norm_out"}


@pytest.mark.parametrize("text", ["full", "all r8", "convolutions r8 1e-2", "full r8 1e-2"])
def test_another_text_says_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="allowed are such as 'full 2e-3'"):
        settings_of(text)
