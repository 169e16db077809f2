"""The figures show the counts of the table that they are given."""

import io

import numpy as np
import pandas as pd
import pytest

from phoenix_pipeline.reporting.partition_figure import draw_client_images, draw_partition

TABLE = pd.DataFrame(
    {
        "client_id": [0, 0, 0, 1, 1, 3],
        "label": [0, 0, 2, 1, 1, 2],
        "shared": [False, False, True, False, False, True],
    }
)
# Nobody is client 2.
COUNTS = np.array([[2, 0, 0], [0, 2, 0], [1, 0, 1]])


def test_cells_and_totals_show_the_counts():
    figure = draw_partition(TABLE, ("ant", "bee", "cat"))
    top, cells, _ = figure.axes
    assert [bar.get_height() for bar in top.patches] == [3, 2, 1]
    assert np.array_equal(cells.images[0].get_array().filled(0), COUNTS)
    assert [label.get_text() for label in cells.get_yticklabels()] == ["ant", "bee", "cat"]
    written = {text.get_position(): text.get_text() for text in cells.texts}
    assert written == {(0, 0): "2", (1, 1): "2", (0, 2): "1", (2, 2): "1"}
    assert [label.get_text() for label in cells.get_xticklabels()] == ["0", "1", "3"]


def test_private_and_shared_are_stacked():
    top = draw_client_images(TABLE, ("ant", "bee", "cat")).axes[0]
    private, shared = top.containers
    assert [bar.get_height() for bar in private] == [2, 2, 0]
    assert [(bar.get_y(), bar.get_height()) for bar in shared] == [(2, 1), (2, 0), (0, 1)]


@pytest.mark.parametrize("draw", [draw_partition, draw_client_images])
def test_unlabelled_images_show_totals_only(draw):
    figure = draw(TABLE.assign(label=-1))
    assert len(figure.axes) == 1
    assert [text.get_text() for text in figure.axes[0].texts] == ["3", "2", "1"]


@pytest.mark.parametrize("draw", [draw_partition, draw_client_images])
def test_a_thousand_clients_are_ordered_and_drawn_to_a_file(draw):
    rng = np.random.default_rng(0)
    clients, labels = np.repeat(np.arange(1000), 20), np.repeat(rng.integers(0, 10, 2000), 10)
    training = pd.DataFrame({"client_id": clients, "label": labels, "shared": labels > 5})
    figure = draw(training)
    cells = figure.axes[1].images[0].get_array().filled(0)
    assert cells.shape == (10, 1000) and (cells.sum(axis=0) == 20).all()
    assert (np.diff(cells.argmax(axis=0)) >= 0).all()
    assert not figure.axes[1].texts
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=40)
    assert buffer.getvalue().startswith(b"\x89PNG")
