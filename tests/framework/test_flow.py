"""What kedro-viz and `--tags` go by: layers from top to bottom, tags of arms and stages."""

from pathlib import Path

import yaml
from kedro.pipeline import Pipeline

from phoenix_pipeline.framework.run_lock import arms_in
from phoenix_pipeline.pipeline_registry import build_pipelines

REPOSITORY = Path(__file__).parents[2]
ARMS = ("fedavg", "dcgan")
LAYERS = (
    "images",
    "references",
    "model input",
    "models",
    "samples",
    "scores",
    "report",
)


def layers() -> dict[str, int]:
    """Return dataset -> place of its layer, for every entry of the catalog."""
    catalog = yaml.safe_load((REPOSITORY / "conf/base/catalog.yml").read_text(encoding="utf-8"))
    return {
        name.replace("{arm}", arm): LAYERS.index(entry["metadata"]["kedro-viz"]["layer"])
        for name, entry in catalog.items()
        if not name.startswith("_")
        for arm in ARMS
    }


def everything() -> Pipeline:
    return sum(build_pipelines(ARMS).values(), Pipeline([]))


def test_data_flow_down_through_the_layers() -> None:
    """A way back up would leave kedro-viz without any layer."""
    place = layers()
    assert set(place.values()) == set(range(len(LAYERS)))
    for node in everything().nodes:
        sources = [place[name] for name in node.inputs if not name.startswith("param")]
        results = [place[name] for name in node.outputs]
        assert not results or max(sources) <= min(results), node.name


def test_every_node_has_the_tag_of_its_stage_and_of_its_arm() -> None:
    pipelines = build_pipelines(ARMS)
    for node in everything().nodes:
        stages = {tag for tag in node.tags if tag.startswith("stage.")}
        assert len(stages) == 1
        assert node in pipelines[stages.pop().removeprefix("stage.")].nodes
        makes_a_part = node.namespace in ARMS and not node.name.endswith(".collect")
        arm = {f"arm.{node.namespace}"} if makes_a_part else set()
        assert {tag for tag in node.tags if tag.startswith("arm.")} == arm


def test_what_is_refused_before_training_is_refused_by_nodes_before_it() -> None:
    """``train_label_judge`` refuses feature spaces that cannot be had, ``set_up`` an arm."""
    order = [node.name for node in build_pipelines(ARMS)["__default__"].nodes]
    trained = min(order.index(f"{arm}.train") for arm in ARMS)
    checks = ["references.train_label_judge", *(f"{arm}.set_up" for arm in ARMS)]
    assert max(order.index(name) for name in checks) < trained


def test_tags_select_nodes() -> None:
    every = build_pipelines(ARMS)["__default__"]
    assert {node.name for node in every.only_nodes_with_tags("arm.dcgan").nodes} == {
        f"dcgan.{name}"
        for name in (
            "find_checkpoints",
            "set_up",
            "plot_clients",
            "train",
            "describe_model",
            "sample",
            "draw_grid",
            "evaluate",
            "score_rounds",
            "write_cards",
        )
    }
    trained = every.only_nodes_with_tags("stage.federated_training").nodes
    assert {node.name for node in trained} == {
        f"{arm}.{name}" for arm in ARMS for name in ("train", "describe_model")
    }


def test_the_drawing_folds_each_arm_into_one_box_that_hands_on_one_thing() -> None:
    """What a box reads or leaves stands beside it: a picture per arm alone would halve the zoom."""
    every = build_pipelines(ARMS)["__default__"]
    arm = every.only_nodes_with_namespaces(["fedavg"])
    rest = every - arm
    handed_on = arm.outputs() | (arm.all_outputs() & rest.inputs())
    assert handed_on == {"fedavg.results"}
    own = {name for name in arm.inputs() if name.startswith("fedavg.")}
    assert own == set()
    assert {node.namespace for node in rest.nodes} == {
        "clients",
        "references",
        "comparing",
        "dcgan",
    }


def test_a_comparison_alone_makes_no_part_of_an_arm() -> None:
    """It takes no lock of an arm, and opens no run of it."""
    assert arms_in(build_pipelines(ARMS)["comparison"]) == ()
    assert arms_in(build_pipelines(ARMS)["sampling"]) == ("dcgan", "fedavg")
