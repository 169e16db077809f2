"""What each column of the comparison means: its label and which way is better.

Scores are described beside the functions that measure them (``metrics.components``), what is
computed from the table beside that computation. Unknown names are shown as they are.
"""

from phoenix_pipeline.metrics.components import describe
from phoenix_pipeline.metrics.metric import FIDELITY, Headline, Metric
from phoenix_pipeline.reporting.run_totals import RUN_METRICS

# Named by its beginning; see `derived_columns`.
GAP_CLOSED = Metric(
    "gap_closed_",
    "Gap closed",
    "share of FID's distance from fedavg to centralized that an arm closes: 0 is as good as "
    "fedavg, 1 as good as training in one place; chance where that gap is small",
    "higher",
    FIDELITY,
    headline=Headline(10, keep=1),
    # Beyond, a share says that the gap is small or the features blind, not how good the arm is.
    credible=(-1.0, 1.5),
)

# Named by its beginning; see `derived_columns`.
LEFT_OF_START = Metric(
    "left_of_start_",
    "Left of start",
    "FID after the last round over that of the given weights that round 1 began with, both of the "
    "few samples of the scores by round: below 1 the training added something",
    "lower",
    FIDELITY,
    headline=Headline(11, keep=1),
)


def describe_metric(name: str) -> Metric:
    """Return what is known about a column of the comparison; unknown names get no direction."""
    known = describe(name, (*RUN_METRICS, GAP_CLOSED, LEFT_OF_START))
    return known or Metric(name, name.replace("_", " "), "")
