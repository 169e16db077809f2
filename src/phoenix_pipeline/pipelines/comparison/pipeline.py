"""Wiring of stage ``comparison`` over the given arms."""

from kedro.pipeline import Pipeline, node

from phoenix_pipeline.pipelines.comparison.nodes import announce, compare

_PARTS = ("metrics", "rounds", "samples")


def create_pipeline(arms: tuple[str, ...]) -> Pipeline:
    """Return the stage."""
    inputs = {f"{arm}__{part}": f"{arm}.{part}" for arm in arms for part in _PARTS}
    shared = {"parameters": "parameters", "floor": "reference_scores", "partition": "partition"}
    return Pipeline(
        [
            node(
                compare(arms),
                {**shared, **inputs},
                [
                    "comparison",
                    "report",
                    "scores_figure",
                    "rounds_figure",
                    "class_histograms_figure",
                    "grids_figure",
                ],
                name="compare_arms",
            ),
            node(announce, ["comparison", "report"], None, name="announce"),
        ]
    )
