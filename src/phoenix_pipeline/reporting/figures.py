"""Which figures the comparison shows, and a folder of all of them to take along."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from phoenix_pipeline.metrics.arm_metrics import Histogram
from phoenix_pipeline.reporting.arm_results import ArmResults
from phoenix_pipeline.reporting.figure_style import figure_pdf, figure_svg
from phoenix_pipeline.reporting.partition_figure import draw_client_images, draw_partition
from phoenix_pipeline.reporting.privacy import draw_trade
from phoenix_pipeline.reporting.round_figures import (
    draw_filter_decisions,
    draw_round_curves,
    draw_score_curves,
)
from phoenix_pipeline.reporting.sample_figures import draw_class_histograms
from phoenix_pipeline.reporting.score_figures import draw_scores


def figures_of_all(
    table: pd.DataFrame, results: Sequence[ArmResults], histogram: Histogram | None
) -> dict[str, Figure]:
    """Return the figures over all arms, by name; the first three are always there.

    ``histogram``: of any arm that was judged, for the shares of the training images.
    """
    metrics = {r.arm: r.metrics for r in results}
    shares = histogram["training_shares"] if histogram else None
    figures = {
        "scores": draw_scores(table),
        "rounds": draw_round_curves({r.arm: r.rounds for r in results if len(r.rounds)}),
        "class_histograms": draw_class_histograms(metrics, shares),
    }
    pooled = [r.arm for r in results if r.is_pooled]
    curves = draw_score_curves({r.arm: r.by_round for r in results if len(r.by_round)}, pooled)
    more = {"trade": draw_trade(table), "by_round": curves}
    return {**figures, **{name: figure for name, figure in more.items() if figure is not None}}


def figures_of_arms(results: Sequence[ArmResults], class_names: Sequence[str]) -> dict[str, Figure]:
    """Return who holds what, one figure for the same images; shared images; filter decisions."""
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


def write_figures(
    figures: Mapping[str, Figure], results: Sequence[ArmResults]
) -> Callable[[Path], None]:
    """Return a function that fills a folder: figures as SVG, PDF and PNG, pictures as PNG."""

    def write(folder: Path) -> None:
        for name, figure in figures.items():
            (folder / f"{name}.svg").write_text(figure_svg(figure), encoding="utf-8")
            (folder / f"{name}.pdf").write_bytes(figure_pdf(figure))
            figure.savefig(folder / f"{name}.png")
        for result in results:
            for name, picture in (("samples", result.grid), ("clients", result.clients_figure)):
                if picture.is_file():
                    shutil.copyfile(picture, folder / f"{result.arm}_{name}.png")

    return write
