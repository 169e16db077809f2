"""What kedro-viz and `--tags` go by: layers from top to bottom, tags of arms and stages."""

from pathlib import Path

import yaml
from kedro.pipeline import Pipeline

from phoenix_pipeline.pipeline_registry import build_pipelines

REPOSITORY = Path(__file__).parents[2]
ARMS = ("fedavg", "dcgan")
LAYERS = (
    "raw",
    "images",
    "partition",
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
        arm = {f"arm.{node.namespace}"} if node.namespace else set()
        assert {tag for tag in node.tags if tag.startswith("arm.")} == arm


def test_tags_select_nodes() -> None:
    every = build_pipelines(ARMS)["__default__"]
    assert {node.name for node in every.only_nodes_with_tags("arm.dcgan").nodes} == {
        f"dcgan.{name}" for name in ("set_up", "plot_clients", "train", "sample", "draw_grid")
    } | {"dcgan.evaluate", "dcgan.score_rounds"}
    trained = every.only_nodes_with_tags("stage.federated_training").nodes
    assert {node.name for node in trained} == {"fedavg.train", "dcgan.train"}
