"""Other settings than today's, or than those of the other arms, are found and told."""

from dataclasses import replace
from typing import Any

import pandas as pd

from phoenix_pipeline.reporting.arm_results import ArmResults
from phoenix_pipeline.reporting.provenance import deviations, disagreements, experiment_facts
from tests.written import arm_metrics, arm_results

PARTITION = {"scheme": "pathological", "classes_per_client": 2, "num_clients": 10}


def made(seed: int = 0, engine: str = "in_process", **partition: Any) -> dict[str, dict[str, Any]]:
    return {
        "run": {"seed": seed, "device": "cpu"},
        "partition": {**PARTITION, **partition},
        "federation": {"engine": engine, "workers": 2},
    }


def test_arms_of_the_same_deviation_are_told_together() -> None:
    then = {"fedavg": made(), "dcgan": made(), "late": made(7)}
    now = dict.fromkeys(then, made(7, num_clients=4))
    ignored = ("run.device", "federation.workers")
    first, second = deviations(then, now, ignored)
    assert first.arms == ("fedavg", "dcgan")
    assert dict(first.values) == {"run.seed": ("0", "7"), "partition.num_clients": ("10", "4")}
    assert "run.seed 0 (now 7); partition.num_clients 10 (now 4)" in first.sentence()
    assert second.arms == ("late",)
    assert deviations(then, then) == []


def test_what_changes_no_result_is_not_told() -> None:
    now = made() | {"federation": {"engine": "ray", "workers": 8}}
    assert deviations({"a": made()}, {"a": now}, ("federation.engine", "federation.workers")) == []
    assert len(deviations({"a": made()}, {"a": now}, ("federation.engine",))) == 1


def test_arms_of_two_experiments_are_told_apart() -> None:
    arms = {"fedavg": made(), "dcgan": made(7)}
    data = {"fedavg": {"train_images": "ab"}, "dcgan": {"train_images": "cd"}}
    assert disagreements(arms, data) == [
        "The arms do not share run.seed: 0 (fedavg); 7 (dcgan)",
        "The arms do not have the same train images (by their digests): ab (fedavg); cd (dcgan)",
    ]
    assert disagreements({"fedavg": made()}, {"fedavg": data["fedavg"]}) == []


def arm(name: str, settings: dict[str, dict[str, Any]], num_clients: int = 10) -> ArmResults:
    held = pd.DataFrame({"client_id": range(num_clients)})
    return arm_results(name, arm_metrics({}), trained_with=settings, trained_images=held)


def test_the_head_tells_what_the_arms_were_trained_on() -> None:
    pooled = replace(arm("centralized", made(), 1), is_pooled=True)
    facts = experiment_facts([arm("fedavg", made()), arm("dcgan", made(7)), pooled])
    assert facts["Seed"] == "0 (fedavg, centralized); 7 (dcgan)"
    assert facts["Clients"] == "10"
    assert facts["Partition"] == "pathological, 2 classes per client"
    alone = experiment_facts([arm("fedavg", made(classes_per_client=1))])
    assert alone["Partition"] == "pathological, 1 class per client"
    sites = experiment_facts([arm("fedavg", made(engine="deployment"), 3)])
    assert (sites["Clients"], sites["Partition"]) == ("3", "sites of a deployment")
