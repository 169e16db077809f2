"""The page's tables of the models that clients have of their own."""

from collections.abc import Mapping, Sequence
from typing import Any

from phoenix_pipeline.metrics.arm_metrics import ArmMetrics
from phoenix_pipeline.metrics.components import FINAL_AVERAGE
from phoenix_pipeline.reporting.arm_results import ArmResults
from phoenix_pipeline.reporting.columns import describe_metric
from phoenix_pipeline.reporting.formatting import MISSING, format_values

_NAMED_CLASSES = 5
_SMALLEST_NAMED_SHARE = 0.05


def describe_client_models(
    arms: Sequence[ArmResults], headline: Sequence[str]
) -> list[dict[str, Any]]:
    """Return what the report shows of every arm that has scores by client.

    ``headline``: the metrics that are compared with those of the averaged model. Each item has
    ``arm``; ``titles`` and ``clients``, a table with a row per client; ``averaged``, rows of
    metric, clients' own models, averaged model.
    """
    return [
        {
            "arm": arm.arm,
            "titles": ["Client", "Samples", describe_metric("fid_pixels").title, "Classes drawn"],
            "clients": _client_rows(arm.metrics),
            "averaged": _averaged_rows(arm.metrics["scores"], headline),
        }
        for arm in arms
        if arm.metrics["clients"]
    ]


def _client_rows(values: ArmMetrics) -> list[list[str]]:
    histogram = values["class_histogram"]
    names = histogram["class_names"] if histogram else []
    clients = sorted(values["clients"].items(), key=lambda item: int(item[0]))
    distances = format_values(
        [scores.get("fid_pixels") for _, scores in clients], describe_metric("fid_pixels")
    )
    return [
        [
            client,
            f"{scores['num_samples']:,}",
            distance or MISSING,
            _largest(scores.get("class_shares", []), names) or MISSING,
        ]
        for (client, scores), distance in zip(clients, distances, strict=True)
    ]


def _largest(shares: Sequence[float], names: Sequence[str]) -> str:
    """Name the classes that hold most of a client's samples."""
    ranked = sorted(zip(shares, names, strict=False), key=lambda pair: -pair[0])[:_NAMED_CLASSES]
    return ", ".join(
        f"{name} {share:.0%}" for share, name in ranked if share >= _SMALLEST_NAMED_SHARE
    )


def _averaged_rows(scores: Mapping[str, float], headline: Sequence[str]) -> list[list[str]]:
    rows = []
    for name in headline:
        pair = [scores.get(name), scores.get(f"{FINAL_AVERAGE}{name}")]
        if None not in pair:
            metric = describe_metric(name)
            rows.append([metric.title, *format_values(pair, metric)])
    return rows
