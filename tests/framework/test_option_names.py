"""Unknown nodes and datasets are answered by the names that come nearest, not by all hundred."""

import pytest

from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.framework.option_names import check_names
from phoenix_pipeline.pipeline_registry import build_pipelines

PIPELINES = build_pipelines(("fedavg", "dcgan"))


def answer_to(**options: object) -> str:
    with pytest.raises(SettingsError) as error:
        check_names(options, PIPELINES)
    return str(error.value)


def test_a_node_without_its_namespace_is_found_in_it() -> None:
    assert answer_to(to_nodes=["train_label_judge"]) == (
        "--to-nodes train_label_judge: there is no such node in what is run; did you mean "
        "references.train_label_judge? `kedro registry describe` lists them"
    )
    assert "did you mean dcgan.sample or fedavg.sample?" in answer_to(node_names=["sample"])


def test_a_dataset_is_looked_for_among_those_of_the_pipelines_that_run() -> None:
    assert "did you mean fedavg.model" in answer_to(to_outputs=["fedavg.modle"])
    assert "did you mean partition?" in answer_to(from_inputs=["partitoin"])
    told = answer_to(pipelines=["dcgan"], to_outputs=["fedavg.samples"])
    assert "did you mean dcgan.samples" in told


def test_known_names_of_every_kind_pass() -> None:
    check_names(
        {
            "pipelines": ["fedavg"],
            "tags": ["arm.fedavg"],
            "namespaces": ["references"],
            "node_names": ["fedavg.train"],
            "from_nodes": ["fedavg.set_up"],
            "to_nodes": ["references.train_label_judge"],
            "from_inputs": ["params:run", "partition"],
            "to_outputs": ["fedavg.model"],
        },
        PIPELINES,
    )
