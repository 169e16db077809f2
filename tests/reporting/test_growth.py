"""Samples and scores by round, for arms whose rounds differ."""

import base64

import pandas as pd

from phoenix_pipeline.reporting.gallery import show_growth
from phoenix_pipeline.reporting.round_figures import draw_score_curves

FEDAVG = pd.DataFrame(
    {
        "round": [5, 10],
        "images_trained": [500, 1_000],
        "bytes_total": [1_000_000, 2_000_000],
        "num_samples": 200,
        "fid_pixels": [4.0, 1.0],
        "grid": [b"five", b"ten"],
    }
)
POOLED = FEDAVG.assign(round=[2, 4], bytes_total=0, fid_pixels=[2.0, 0.5])


def test_every_round_of_every_arm_once_in_order() -> None:
    growth = show_growth({"fedavg": FEDAVG, "centralized": POOLED, "dcgan": pd.DataFrame()})
    assert growth is not None
    assert growth.rounds == [2, 4, 5, 10]
    assert growth.without == ["dcgan"]
    assert growth.num_samples == 200
    assert [frame.round for frame in growth.frames["fedavg"]] == [5, 10]
    kind, _, text = growth.frames["fedavg"][1].image.partition(",")
    assert (kind, base64.b64decode(text)) == ("data:image/png;base64", b"ten")
    assert show_growth({"fedavg": pd.DataFrame()}) is None


def test_curves_against_training_images_and_against_traffic() -> None:
    figure = draw_score_curves({"fedavg": FEDAVG, "centralized": POOLED}, ["centralized"])
    assert figure is not None
    by_images, by_bytes = figure.axes
    # Equally many images, whatever a round of the arm is.
    assert [line.get_xydata().tolist() for line in by_images.lines] == [
        [[500, 4.0], [1000, 1.0]],
        [[500, 2.0], [1000, 0.5]],
    ]
    sent, ceiling = by_bytes.lines
    assert sent.get_xydata().tolist() == [[1e6, 4.0], [2e6, 1.0]]
    # It sends nothing: its last value is a line across.
    assert list(ceiling.get_ydata()) == [0.5, 0.5]
    assert draw_score_curves({}, []) is None
