"""Wiring of stage ``comparison`` over the given arms."""

from kedro.pipeline import Pipeline, node

from phoenix_pipeline.pipelines.arm import beside_arm, in_stage
from phoenix_pipeline.pipelines.comparison.nodes import PARTS, announce, collect, compare

_STAGE = "comparison"


def create_pipeline(arms: tuple[str, ...]) -> Pipeline:
    """Return the stage: a node for each arm that collects what it left, and those that compare."""
    collected = Pipeline([])
    for arm in arms:
        collects = node(collect(arm), dict(PARTS), "results", name="collect")
        collected += beside_arm([collects], arm, _STAGE)
    return collected + in_stage(
        [
            node(
                compare,
                {
                    "parameters": "parameters",
                    "floor": "reference_scores",
                    "test_images": "test_images",
                    "audits": "audits",
                    "earlier_runs": "earlier_runs",
                    **{arm: f"{arm}.results" for arm in arms},
                },
                ["comparison", "report", "figures", "kept_runs"],
                name="compare_arms",
            ),
            node(announce, ["comparison", "parameters"], None, name="announce"),
        ],
        _STAGE,
        group="comparing",
    )
