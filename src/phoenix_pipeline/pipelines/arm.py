"""How a stage becomes one arm's: its namespace, and what all arms share outside of it."""

from collections.abc import Iterable

from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

SHARED_INPUTS = {
    "raw_images",
    "train_images",
    "test_images",
    "partition",
    "label_judge",
    "reference_folder",
    "reference_scores",
    "all_checkpoints",
}
SHARED_PARAMETERS = {
    "params:run",
    "params:images",
    "params:partition",
    "params:evaluation",
    "params:privacy_audit",
}
# What nodes call the block of their own arm's groups, a ``config.ArmSettings``.
ARM_SETTINGS = "params:arm"


_ARM_TAG = "arm."


def in_stage(nodes: Iterable[Node], stage: str, group: str | None = None) -> Pipeline:
    """Return ``nodes`` with the tag that ``kedro run --tags stage.<stage>`` takes.

    kedro-viz folds them into one box called ``group``; the datasets keep their names.
    """
    return Pipeline(
        nodes, tags=f"stage.{stage}", namespace=group, prefix_datasets_with_namespace=False
    )


def in_namespace(nodes: Iterable[Node], arm: str, stage: str) -> Pipeline:
    """Return ``nodes`` as the namespace ``arm``; shared inputs keep their names.

    Each has the tags ``arm.<arm>`` and ``stage.<stage>``; Kedro allows no colon in a tag.
    """
    part = in_stage(nodes, stage)
    return Pipeline(
        part,
        namespace=arm,
        inputs=SHARED_INPUTS & part.inputs(),
        parameters=_parameters(part, arm),
        tags=f"{_ARM_TAG}{arm}",
    )


def beside_arm(nodes: Iterable[Node], arm: str, stage: str) -> Pipeline:
    """Return ``nodes`` that read what ``arm`` has left, in its box, without its tag and lock."""
    return Pipeline(in_stage(nodes, stage), namespace=arm)


def arm_of(node: Node) -> str:
    """Return the arm that ``node`` makes a part of; "" for what all arms share or compares them."""
    return next((t.removeprefix(_ARM_TAG) for t in node.tags if t.startswith(_ARM_TAG)), "")


def _parameters(stage: Pipeline, arm: str) -> dict[str, str]:
    names = {name: name for name in SHARED_PARAMETERS} | {ARM_SETTINGS: f"params:{arm}"}
    return {name: names[name] for name in names.keys() & stage.inputs()}
