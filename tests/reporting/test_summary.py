"""What the sentences at the top of the report say, by hand."""

import pandas as pd
import pytest

from phoenix_pipeline.metrics.arm_metrics import ArmMetrics
from phoenix_pipeline.reporting.comparison import compare_arms
from phoenix_pipeline.reporting.summary import summarise
from tests.written import arm_audit, arm_metrics, scored_arms


def compare(rounds: pd.DataFrame, traffic: dict[str, float], **fids: float) -> pd.DataFrame:
    metrics = {arm: arm_metrics({"fid_classifier": fid}) for arm, fid in fids.items()}
    sent = {
        arm: rounds.assign(bytes_up=rounds["bytes_up"] * share, bytes_down=0)
        for arm, share in traffic.items()
    }
    return compare_arms(scored_arms(metrics, sent, pooled=["centralized"]), {"fid_classifier": 0.5})


def test_the_best_arm_its_share_of_the_gap_and_its_traffic_are_told(rounds: pd.DataFrame) -> None:
    fids = {"centralized": 10.0, "fedavg": 20.0, "personalization": 12.9, "dcgan": 40.0}
    table = compare(rounds, {"fedavg": 1.0, "personalization": 0.5}, **fids)
    assert summarise(table, ["centralized"]) == [
        "Of the arms that keep the images apart, personalization comes closest to the real images: "
        "FID (classifier) 12.9 against 20.0 of fedavg (centralized gets 10.0, real test images get "
        "0.500).",
        "It closes 71% of the gap between fedavg and centralized.",
        "Its traffic is 250 B, 50% less than that of fedavg.",
    ]


def test_fedavg_may_be_the_best_and_an_arm_alone(rounds: pd.DataFrame) -> None:
    table = compare(rounds, {}, centralized=10.0, fedavg=20.0, dcgan=40.0)
    (sentence,) = summarise(table, ["centralized"])
    assert "fedavg comes closest" in sentence and "against" not in sentence
    (of_two,) = summarise(compare(rounds, {}, mine=20.0, dcgan=40.0), [])
    assert "mine comes closest" in of_two and "against" not in of_two
    (alone,) = summarise(compare(rounds, {}, fedavg=20.0), [])
    assert alone == "fedavg reaches a FID (classifier) of 20 (real test images get 0.500)."


@pytest.mark.parametrize("metrics", [{}, {"fedavg": arm_metrics({})}])
def test_nothing_is_said_without_a_distance(metrics: dict) -> None:
    assert summarise(compare_arms(scored_arms(metrics)), []) == []


def test_an_attack_is_told_with_what_it_would_get_by_chance() -> None:
    metrics = {"fedavg": arm_metrics({"fid_classifier": 2.0})}
    privacy = {"fedavg": arm_audit({"membership_auc": 0.61})}
    *_, attacked = summarise(compare_arms(scored_arms(metrics, audits=privacy)), [])
    assert "AUC of 0.61 (0.5: none)" in attacked


def test_models_of_clients_are_told_from_one_model_for_all() -> None:
    def arm(fid: float, **conditions: int) -> ArmMetrics:
        return arm_metrics({"fid_classifier": fid}, conditions)

    metrics = {
        "fedavg": arm(20.5),
        "phoenix": arm(15.5),
        "personalization": arm(12.5, num_clients=10),
    }
    *_, single = summarise(compare_arms(scored_arms(metrics)), [])
    assert single == (
        "Its samples come from 10 models, one at each client; of the arms with one model for all, "
        "phoenix comes closest: 15.5."
    )
    assert not any(
        "one model" in told for told in summarise(compare_arms(scored_arms(metrics)).iloc[:2], [])
    )


def test_a_model_that_is_told_the_classes_is_told_from_those_that_are_not() -> None:
    told = arm_metrics({"fid_classifier": 1.9, "label_accuracy": 0.97})
    plain = {"fedavg": arm_metrics({"fid_classifier": 14.7})}
    plain["phoenix"] = arm_metrics({"fid_classifier": 3.7})
    first, *_, other = summarise(compare_arms(scored_arms({**plain, "with_labels": told})), [])
    assert "with_labels comes closest" in first
    assert other == (
        "It learns the labels of the images and is told how often to draw each class; of the arms "
        "that are not, phoenix comes closest: 3.70."
    )
    assert "learns the labels" not in " ".join(summarise(compare_arms(scored_arms(plain)), []))
    alone = summarise(compare_arms(scored_arms({"with_labels": told})), [])
    assert "learns the labels" not in " ".join(alone)


@pytest.mark.parametrize("metric", ["coverage", "recall"])
@pytest.mark.parametrize(("share", "learned"), [(0.069, False), (0.07, True)])
def test_no_arm_wins_before_one_draws_images_like_the_real_ones(
    metric: str, share: float, learned: bool
) -> None:
    name = f"{metric}_classifier"
    metrics = {
        arm: arm_metrics({"fid_classifier": fid, name: own})
        for arm, fid, own in (("centralized", 0.6, share), ("fedavg", 0.7, 0.0))
    }
    floor = {"fid_classifier": 0.01, name: 0.7}
    told = summarise(compare_arms(scored_arms(metrics), floor), ["centralized"])
    assert ("No arm draws images like the real ones yet" in told[0]) is not learned
    if not learned:
        assert f"{metric} is at most 0.069, and 0.700 for real test images." in told[0]
        assert len(told) == 2


def test_an_arm_as_near_as_fedavg_is_no_winner(rounds: pd.DataFrame) -> None:
    fids = {"centralized": 600.0, "fedavg": 773.4, "data_sharing": 772.9}
    first, *others = summarise(compare(rounds, {}, **fids), ["centralized"])
    assert "data_sharing comes closest" in first and "773, hardly less than 773 of fedavg" in first
    assert not any("closes" in sentence for sentence in others)
