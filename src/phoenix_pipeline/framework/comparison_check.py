"""Before anything runs: which arms a comparison will have, and what it lacks without the others."""

import logging
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline

from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.reporting.columns import CEILING_ARM, DEFAULT_ARM

logger = logging.getLogger(__name__)

_COMPARISON = "comparison"
_RESULTS = ".results"


class ComparisonCheckHook:
    """Says which arms a comparison leaves out; refuses one that would have none."""

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol[Any, Any]) -> None:
        """Look for the scores of each arm: made by this run, or there already.

        Raises SettingsError: no arm has any.
        """
        for node in pipeline.nodes:
            if _COMPARISON in node.outputs:
                arms = [n.removesuffix(_RESULTS) for n in node.inputs if n.endswith(_RESULTS)]
                made = pipeline.all_outputs()
                missing = [
                    arm
                    for arm in arms
                    if f"{arm}.metrics" not in made and not catalog.exists(f"{arm}.metrics")
                ]
                if len(missing) == len(arms):
                    raise SettingsError(
                        f"there is nothing to compare: no arm ({', '.join(missing)}) has scores, "
                        "and this run makes none; name an arm as well: kedro run --pipelines "
                        "fedavg,comparison"
                    )
                if missing:
                    lacks = sorted({DEFAULT_ARM, CEILING_ARM} & set(missing))
                    gap = f"; without {' and '.join(lacks)} there is no share of the gap closed"
                    logger.warning(
                        "the comparison leaves out %s, which have no results in this data root%s; "
                        "`kedro run --pipelines NAME,comparison` adds one",
                        ", ".join(missing),
                        gap if lacks else "",
                    )
