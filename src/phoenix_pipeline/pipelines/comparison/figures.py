"""Which figures the comparison shows."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from phoenix_pipeline.metrics.arm_metrics import Histogram
from phoenix_pipeline.pipelines.comparison.results import ArmResults
from phoenix_pipeline.reporting.partition_figure import draw_client_images, draw_partition
from phoenix_pipeline.reporting.privacy import draw_trade
from phoenix_pipeline.reporting.round_figures import (
    draw_filter_decisions,
    draw_round_curves,
    draw_score_curves,
)
from phoenix_pipeline.reporting.sample_figures import draw_class_histograms
from phoenix_pipeline.reporting.score_figures import draw_scores


def figures_of_all(table: pd.DataFrame, results: Sequence[ArmResults]) -> dict[str, Figure]:
    """Return the figures over all arms, by name; the first three are always there."""
    metrics = {r.arm: r.metrics for r in results}
    histograms = histograms_of(results)
    shares = histograms[0]["training_shares"] if histograms else None
    figures = {
        "scores": draw_scores(table),
        "rounds": draw_round_curves({r.arm: r.rounds for r in results if len(r.rounds)}),
        "class_histograms": draw_class_histograms(metrics, shares),
    }
    pooled = [r.arm for r in results if r.is_pooled]
    curves = draw_score_curves({r.arm: r.by_round for r in results if len(r.by_round)}, pooled)
    more = {"trade": draw_trade(table), "by_round": curves}
    return {**figures, **{name: figure for name, figure in more.items() if figure is not None}}


def histograms_of(results: Sequence[ArmResults]) -> list[Histogram]:
    """Return the class shares of the arms whose samples were judged."""
    return [found for r in results if (found := r.metrics["class_histogram"])]


def figures_of_arms(results: Sequence[ArmResults], class_names: Sequence[str]) -> dict[str, Figure]:
    """Return who holds what, and what single arms have to show: pool images, filter decisions.

    Arms whose clients held the same images share one figure.
    """
    figures: dict[str, Figure] = {}
    divisions: dict[str, list[ArmResults]] = {}
    for result in results:
        if result.trained_images.empty or result.is_pooled:
            continue
        if result.trained_images["shared"].any():
            key = f"partition: {result.arm}, with what each client received"
            figures[key] = draw_client_images(result.trained_images, class_names)
        else:
            digest = result.description["data"]["client_images"]
            divisions.setdefault(digest, []).append(result)
    for same in divisions.values():
        name = ", ".join(result.arm for result in same)
        key = "partition" if len(divisions) == 1 else f"partition: {name}"
        figures[key] = draw_partition(same[0].trained_images, class_names)
    checked = [r for r in results if len(r.rounds) and r.rounds["score"].notna().any()]
    for result in checked:
        key = f"rounds: {result.arm}, checks of the threshold filter"
        figures[key] = draw_filter_decisions(result.rounds)
    return dict(sorted(figures.items(), key=lambda item: ":" in item[0]))


def shown_figures(figures: dict[str, Figure], class_names: Sequence[str]) -> dict[str, Figure]:
    """Return the figures of the page; without classes, that of classes says so in a file only."""
    return {name: f for name, f in figures.items() if class_names or name != "class_histograms"}
