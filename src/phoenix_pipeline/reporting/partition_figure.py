"""Draw what each client holds: classes x clients, totals, and private against shared images."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from phoenix_pipeline.reporting.figure_style import (
    INK,
    MUTED,
    RULE,
    new_figure,
    set_name_ticks,
    style_axes,
)

THE_SITES_ARE_THE_CLIENTS = "The sites are the clients; the report shows those that took part."
_MAX_WRITTEN_CLIENTS = 20
_MAX_NAMED_CLASSES = 30
_MAX_CLIENTS_IN_ORDER = 100
_WIDTH_INCHES = 10.0
_PRIVATE, _SHARED = "#0072B2", "#E69F00"
# Starts where blue can be told from the white of an empty cell.
_COUNT_COLORS = ListedColormap(colormaps["Blues"](np.linspace(0.12, 1.0, 256)))


def draw_partition(training: pd.DataFrame, class_names: Sequence[str] = ()) -> Figure:
    """Draw client totals above a map of image counts, classes x clients.

    ``training``: client_id and label (-1 unlabelled, then only totals are drawn). Ids may have
    gaps: nobody is drawn there. Counts are written into the cells while there is room; very many
    clients are ordered by their largest classes, because in the order of their ids they would look
    like noise.
    """
    return _draw(training, class_names, "{0:,} images held by {2} clients")


def draw_client_images(training: pd.DataFrame, class_names: Sequence[str] = ()) -> Figure:
    """Draw private and shared images by client, above classes x clients of both together."""
    title = "{0:,} private and {1:,} shared images at {2} clients"
    return _draw(training, class_names, title, training["shared"].to_numpy(dtype=bool))


def _draw(
    training: pd.DataFrame,
    class_names: Sequence[str],
    title: str,
    received: np.ndarray | None = None,
) -> Figure:
    """Draw a bar per client above the map; ``received``: which images are shared, if told apart."""
    ids, training = _without_gaps(training)
    counts = _count(training, class_names)
    order = _order_clients(counts, training)
    counts = counts[:, order]
    shared = np.zeros(len(training), dtype=bool) if received is None else received
    own, more = (_totals(training[part], len(order))[order] for part in (~shared, shared))
    heights = [2.4, 1.3] if received is None else [2.8, 2.0]
    if not len(counts):
        figure, (top,) = _make_figure(heights[:1], len(order))
    else:
        figure, (top, bottom) = _make_figure([heights[1], _map_height(len(counts))], len(order))
        _draw_counts(figure, bottom, counts, class_names)
    _draw_bars(top, np.zeros_like(own), own, _PRIVATE, "" if received is None else "private")
    if received is not None:
        _draw_bars(top, own, own + more, _SHARED, "from the shared pool")
        figure.legend(loc="outside upper right", ncols=2, frameon=False, fontsize=8, labelcolor=INK)
    _finish(top, own + more, title.format(own.sum(), more.sum(), len(order)))
    if len(ids) <= _MAX_WRITTEN_CLIENTS:
        top.set_xticks(range(len(ids)), [str(client) for client in ids])
    return figure


def _without_gaps(training: pd.DataFrame) -> tuple[np.ndarray, pd.DataFrame]:
    """Return the ids of the clients, and the table with their places among these instead."""
    ids, places = np.unique(training["client_id"].to_numpy(), return_inverse=True)
    return ids, training.assign(client_id=places)


def _count(training: pd.DataFrame, class_names: Sequence[str]) -> np.ndarray:
    """Return int64 [classes, clients]; no rows when unlabelled."""
    labels, clients = training["label"].to_numpy(), training["client_id"].to_numpy()
    if (labels < 0).any():
        return np.zeros((0, int(clients.max()) + 1), dtype=np.int64)
    num_classes = max(len(class_names), int(labels.max()) + 1)
    counts = np.zeros((num_classes, int(clients.max()) + 1), dtype=np.int64)
    np.add.at(counts, (labels, clients), 1)
    return counts


def _order_clients(counts: np.ndarray, training: pd.DataFrame) -> np.ndarray:
    """Return client positions from left to right."""
    num_classes, num_clients = counts.shape
    if num_clients <= _MAX_CLIENTS_IN_ORDER:
        return np.arange(num_clients)
    if num_classes == 0:
        return np.argsort(-_totals(training, num_clients), kind="stable")
    largest = np.argsort(-counts, axis=0, kind="stable")[:2]
    return np.lexsort(largest[::-1])


def _totals(training: pd.DataFrame, num_clients: int) -> np.ndarray:
    return np.bincount(training["client_id"], minlength=num_clients)


def _map_height(num_classes: int) -> float:
    return min(max(0.32 * num_classes, 1.6), 9.0)


def _make_figure(heights: list[float], num_clients: int) -> tuple[Figure, list[Axes]]:
    figure = new_figure(_WIDTH_INCHES, sum(heights) + 0.9)
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)
    ordered_by = "their largest classes" if len(heights) > 1 else "size"
    many = num_clients > _MAX_CLIENTS_IN_ORDER
    axes[-1, 0].set_xlabel(f"clients, ordered by {ordered_by}" if many else "client", color=MUTED)
    return figure, list(axes[:, 0])


def _draw_bars(axes: Axes, low: np.ndarray, high: np.ndarray, color: str, label: str) -> None:
    """Draw one bar per client; gaps only where there is room for them."""
    if len(high) <= _MAX_WRITTEN_CLIENTS:
        axes.bar(np.arange(len(high)), high - low, bottom=low, width=0.8, color=color, label=label)
        return
    edges = np.arange(len(high) + 1) - 0.5
    axes.stairs(high, edges, baseline=low, fill=True, color=color, label=label)


def _finish(axes: Axes, totals: np.ndarray, title: str) -> None:
    style_axes(axes, title)
    axes.set_ylabel("images")
    axes.set_xlim(-0.5, len(totals) - 0.5)
    axes.set_ylim(0, totals.max() * (1.18 if len(totals) <= _MAX_WRITTEN_CLIENTS else 1.05))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=_MAX_WRITTEN_CLIENTS, integer=True))
    if len(totals) <= _MAX_WRITTEN_CLIENTS:
        for client, total in enumerate(totals):
            number = f"{total:,}"
            axes.text(client, total, number, ha="center", va="bottom", fontsize=8, color=INK)


def _draw_counts(
    figure: Figure, axes: Axes, counts: np.ndarray, class_names: Sequence[str]
) -> None:
    masked = np.ma.masked_equal(counts, 0)
    image = axes.imshow(
        masked, aspect="auto", cmap=_COUNT_COLORS, vmin=0, vmax=counts.max(),
        interpolation="nearest",
    )  # fmt: skip
    axes.set_ylabel("class", color=MUTED)
    axes.tick_params(colors=MUTED)
    for spine in axes.spines.values():
        spine.set_color(RULE)
    if len(counts) <= _MAX_NAMED_CLASSES:
        names = list(class_names) or [str(label) for label in range(len(counts))]
        set_name_ticks(axes, "y", range(len(counts)), names)
    bar = figure.colorbar(image, ax=axes, pad=0.01)
    bar.set_label("images", color=MUTED)
    bar.ax.tick_params(colors=MUTED)
    bar.outline.set_visible(False)
    if counts.shape[1] > _MAX_WRITTEN_CLIENTS or len(counts) > _MAX_NAMED_CLASSES:
        return
    for label, client in zip(*np.nonzero(counts), strict=True):
        dark = counts[label, client] > 0.55 * counts.max()
        axes.text(
            client, label, str(counts[label, client]), ha="center", va="center", fontsize=8,
            color="white" if dark else "black",
        )  # fmt: skip
