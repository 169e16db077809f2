from typing import Any

import pytest

from phoenix_pipeline.config import (
    ArmSettings,
    DpSgdConfig,
    FederationConfig,
    PersonalLayersConfig,
    SharedPoolConfig,
    ThresholdFilterConfig,
    TrainingConfig,
)
from phoenix_pipeline.reporting import disclosure
from phoenix_pipeline.reporting.provenance import differing_settings, flatten_settings


def describe_disclosure(groups: dict[str, Any], epsilon: float | None = None) -> list[str]:
    """Return what is said of an arm with these ``groups``, the rest as by default."""
    return disclosure.describe_disclosure(ArmSettings.model_validate(groups), epsilon)


def test_default_federation_gives_weights_only() -> None:
    sentence, numbers = describe_disclosure({"federation": {"pooled": False}})
    assert "the weights of the whole model" in sentence
    assert "its own images never left it" in sentence
    for told in ("how many images it holds", "trained on", "training loss", "seconds"):
        assert told in numbers


def test_partial_and_compressed_updates_are_named() -> None:
    federation = {"compression": {"partial_update": "udec", "up": {"codec": "int8"}}}
    weights, _, part, codec, sampled = describe_disclosure({"federation": federation})
    assert "whole model" not in weights
    assert part == "The encoder and the bottleneck of its model stayed with it."
    assert "rounded to 8 bits" in codec
    assert "drawn from the layers that stayed" in sampled
    averaged = {"personal_layers": {"final_average": True}, "federation": federation}
    assert "until they were uploaded once" in describe_disclosure(averaged)[2]
    deployed = {"federation": {**federation, "engine": "deployment"}}
    said = describe_disclosure(deployed)
    assert "unless its own node released them" in said[2]
    assert "drawn at the coordinator" in said[-1] and "nodes released them" in said[-1]


def test_pooling_gives_everything() -> None:
    settings = {"federation": FederationConfig(pooled=True).model_dump()}
    (sentence,) = describe_disclosure(settings)
    assert "nothing stayed private" in sentence


@pytest.mark.parametrize(
    ("source", "said", "stays"),
    [
        ("clients", "these images did leave their owners", "the rest of its images"),
        ("held_out", "no client owned them", "its own images never left"),
    ],
)
def test_data_sharing_says_whose_images_were_shared(source: str, said: str, stays: str) -> None:
    pool = SharedPoolConfig(beta=0.1, alpha=0.25, source=source)
    shared, weights, _ = describe_disclosure({"shared_pool": pool.model_dump()})
    assert "10%" in shared and "25%" in shared and said in shared
    assert stays in weights


def test_personal_layers_stay_and_the_filter_sends_a_score() -> None:
    layers = PersonalLayersConfig(layers=("up_blocks.1", "conv_out"), final_average=True)
    rules = ThresholdFilterConfig(enabled=True, monitor_every=3)
    weights, _, score, sampled = describe_disclosure(
        {"personal_layers": layers.model_dump(), "threshold_filter": rules.model_dump()}
    )
    assert "(up_blocks.1, conv_out) stayed with it until" in weights
    assert score.startswith("Every 3 rounds") and "one number, its score" in score
    assert "this simulation has those of all clients in one place" in sampled


@pytest.mark.parametrize(
    ("federate", "said"),
    [("both", "generator and discriminator"), ("generator", "its discriminator stayed with it")],
)
def test_dcgan_says_which_network_was_sent(federate: str, said: str) -> None:
    sentence, _ = describe_disclosure(
        {"model": {"family": "dcgan", "dcgan": {"federate": federate}}}
    )
    assert said in sentence


def test_personal_layers_of_a_dcgan_are_told_too() -> None:
    layers = {"model": {"family": "dcgan"}, "personal_layers": {"layers": ["generator.0"]}}
    weights, _, sampled = describe_disclosure(layers)
    assert "its personal layers (generator.0) stayed with it" in weights
    assert "drawn from the layers that stayed" in sampled
    # A discriminator draws nothing.
    layers["personal_layers"]["layers"] = ["discriminator"]
    assert len(describe_disclosure(layers)) == 2


def test_settings_are_flattened_and_compared() -> None:
    first = {"training": {"lr": 0.1, "clip": None}, "sizes": (1, 2), "flag": True}
    second = {"training": {"lr": 0.2, "clip": None}, "sizes": (1, 2), "extra": {}}
    assert flatten_settings(first) == {
        "training.lr": "0.1",
        "training.clip": "null",
        "sizes": "[1, 2]",
        "flag": "true",
    }
    flat = {"a": flatten_settings(first), "b": flatten_settings(second)}
    assert differing_settings(flat) == {
        "training.lr": {"a": "0.1", "b": "0.2"},
        "flag": {"a": "true", "b": ""},
        "extra": {"a": "", "b": "{}"},
    }


def test_client_level_privacy_says_its_epsilon_and_from_whom_it_protects() -> None:
    config = FederationConfig(
        local_work={"unit": "steps", "amount": 5},
        differential_privacy={"enabled": True, "noise_multiplier": 1.0, "delta": 1e-3},
    )
    *_, central = describe_disclosure({"federation": config.model_dump()}, epsilon=4.321)
    assert "epsilon 4.32 at delta 0.001" in central
    assert "does not protect from the server" in central and "run's seed" in central
    local = config.model_dump()
    local["differential_privacy"]["placement"] = "local"
    local["secret_noise"] = True
    *_, said = describe_disclosure({"federation": local})
    assert "noise multiplier 1, delta 0.001" in said and "the server included" in said
    assert "run's seed" not in said


def test_example_level_privacy_does_not_cover_the_pool() -> None:
    private = DpSgdConfig(enabled=True, target_epsilon=3.0)
    settings = {
        "training": TrainingConfig(dp_sgd=private).model_dump(),
        "shared_pool": SharedPoolConfig(beta=0.1).model_dump(),
    }
    *_, said = describe_disclosure(settings)
    assert "(DP-SGD), epsilon 3 at delta 1e-05" in said and "shared pool are not covered" in said
    *_, silent = describe_disclosure(settings, epsilon=float("inf"))
    assert "without any guarantee" in silent


def conditional(**groups: Any) -> str:
    """Return all that is said of a conditional arm."""
    return " ".join(describe_disclosure({"model": {"conditioning": "labels"}, **groups}))


def test_who_learns_the_classes_of_a_client_is_said() -> None:
    assert "tells the server which classes it holds" in conditional()
    assert "whose numbers this simulation knows" in conditional()
    assert "this simulation" not in conditional(sampling={"class_distribution": "uniform"})
    own = conditional(personal_layers={"layers": "class_embedding"})
    assert "does not tell which ones it holds" in own
    assert "does not tell" in conditional(federation={"compression": {"partial_update": "udec"}})
    assert "moves the embeddings of all" in conditional(
        training={"dp_sgd": {"enabled": True, "noise_multiplier": 1.0}}
    )
    noise = {"enabled": True, "placement": "local", "noise_multiplier": 1.0}
    work = {"unit": "steps", "amount": 5}
    local = conditional(federation={"differential_privacy": noise, "local_work": work})
    assert "covered by its noise" in local
    assert "class" not in " ".join(describe_disclosure({"federation": {"pooled": False}}))


def test_a_given_start_is_no_part_of_any_promise() -> None:
    said = " ".join(describe_disclosure({"model": {"start_from": "folder/of/weights"}}))
    assert "began with given weights (folder/of/weights)" in said
