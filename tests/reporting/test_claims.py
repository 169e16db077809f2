"""Claims on a table small enough to judge by hand."""

import io
import math

import numpy as np
import pandas as pd
import pytest

from phoenix_pipeline.errors import DataError
from phoenix_pipeline.reporting.claims import (
    CLAIMS,
    Claim,
    paired_differences,
    render_claims,
    verdict,
)
from phoenix_pipeline.reporting.formatting import markdown_table
from phoenix_pipeline.reporting.sample_figures import draw_sorted_classes, sorted_shares

CLAIM = Claim(
    "sharing helps",
    "data_sharing",
    "fedavg",
    ("fid_pixels", "recall_pixels"),
    ("fid_pixels",),
    True,
)


def rows(partition: str, arm: str, fids: list[float], recalls: list[float]) -> list[dict]:
    return [
        {
            "partition": partition,
            "run.seed": seed,
            "arm": arm,
            "fid_pixels": fid,
            "recall_pixels": recall,
            "bytes_total": 100.0 if arm == "fedavg" else 60.0,
            "bytes_per_round": 10.0 if arm == "fedavg" else 6.0,
            "num_samples": 1000,
        }
        for seed, (fid, recall) in enumerate(zip(fids, recalls, strict=True))
    ]


@pytest.fixture
def table() -> pd.DataFrame:
    """k1: sharing is better by 1, 2, 3; k2: better by 1, then worse by 1, then equal."""
    return pd.DataFrame(
        [
            *rows("iid", "fedavg", [1, 1, 1], [0.5, 0.5, 0.5]),
            *rows("iid", "data_sharing", [0, 0, 0], [0.5, 0.5, 0.5]),
            *rows("k1", "fedavg", [5, 6, 7], [0.5, 0.5, 0.5]),
            *rows("k1", "data_sharing", [4, 4, 4], [0.6, 0.6, 0.6]),
            *rows("k2", "fedavg", [3, 3, 3], [0.5, 0.5, 0.5]),
            *rows("k2", "data_sharing", [2, 4, 3], [0.4, 0.4, 0.4]),
        ]
    )


def compare(table: pd.DataFrame, claim: Claim = CLAIM) -> pd.DataFrame:
    return paired_differences(table, claim)


def test_differences_are_taken_seed_by_seed(table: pd.DataFrame) -> None:
    found = compare(table).set_index(["partition", "metric"])
    assert list(dict.fromkeys(found.index.get_level_values(0))) == ["k1", "k2"]
    row = found.loc[("k1", "fid_pixels")]
    assert (row["arm_mean"], row["baseline_mean"], row["difference"]) == (4, 6, -2)
    assert row["difference_std"] == pytest.approx(1.0)
    assert row["baseline_std"] == pytest.approx(1.0)
    assert row["seeds"] == 3


def test_what_holds_is_better_by_more_than_its_spread(table: pd.DataFrame) -> None:
    held = compare(table).set_index(["partition", "metric"])["held"]
    assert held.loc[("k1", "fid_pixels")]
    assert held.loc[("k1", "recall_pixels")]
    assert not held.loc[("k2", "fid_pixels")]
    assert not held.loc[("k2", "recall_pixels")]


def test_a_gain_below_its_spread_does_not_hold() -> None:
    noisy = pd.DataFrame(
        [
            *rows("k1", "fedavg", [5, 5], [0, 0]),
            *rows("k1", "data_sharing", [1, 6], [0, 0]),
        ]
    )
    row = compare(noisy).iloc[0]
    assert row["difference"] == -1.5
    assert row["difference_std"] == pytest.approx(5 / math.sqrt(2))
    assert not row["held"]


def test_one_seed_proves_nothing() -> None:
    single = pd.DataFrame(
        [*rows("k1", "fedavg", [5], [0.1]), *rows("k1", "data_sharing", [1], [0.9])]
    )
    assert not compare(single)["held"].any()


def test_a_seed_that_only_one_arm_has_does_not_count(table: pd.DataFrame) -> None:
    lost = table.drop(table[(table["arm"] == "fedavg") & (table["run.seed"] == 2)].index)
    assert set(compare(lost)["seeds"]) == {2}


def test_the_verdict_counts_deciding_rows_only(table: pd.DataFrame) -> None:
    found = compare(table)
    assert verdict(found) == "held in part (1 of 2)"
    assert verdict(found[found["partition"] == "k1"]) == "held"
    assert verdict(found[found["partition"] == "k2"]) == "not held"
    assert verdict(found[found["metric"] == "recall_pixels"]) == "not measured"


def test_a_missing_column_is_named(table: pd.DataFrame) -> None:
    with pytest.raises(DataError, match=r"column 'run\.seed'"):
        compare(table.drop(columns="run.seed"))


def test_the_papers_claims_name_known_arms() -> None:
    assert {claim.arm for claim in CLAIMS} == {"fedavg", "data_sharing", "personalization"}
    assert [claim.non_iid_only for claim in CLAIMS] == [False, True, True, False]


def test_the_document_states_verdicts_tables_and_figures(table: pd.DataFrame) -> None:
    text = render_claims(table, {"Sorted (Figure 4)": "a.png"})
    assert "Data sharing beats the default on non-IID data: held in part (1 of 2)" in text
    assert "The diffusion model beats the GAN: not measured" in text
    assert "| k1 | **FID pixels ↓** | 4 ± 0 | 6 ± 1 | -2 ± 1 | 3 | yes |" in text
    assert "| iid | fedavg | 10 B ± 0 B | 100 B ± 0 B |" in text
    assert "![Sorted (Figure 4)](a.png)" in text
    assert "num_samples 1000" in text
    assert "Seeds: 0, 1, 2." in text


def test_a_bar_in_a_cell_does_not_break_the_table() -> None:
    assert markdown_table(["a"], [["x|y"]]) == "| a |\n| --- |\n| x\\|y |"


def test_each_run_is_sorted_by_itself_before_the_mean() -> None:
    mean, spread = sorted_shares([[0.1, 0.7, 0.2], [0.5, 0.1, 0.4]])
    np.testing.assert_allclose(mean, [0.6, 0.3, 0.1])
    np.testing.assert_allclose(spread, [0.2 / math.sqrt(2), 0.2 / math.sqrt(2), 0], atol=1e-12)
    assert sorted_shares([[0.2, 0.8]])[1].tolist() == [0, 0]
    with pytest.raises(DataError, match=r"\[1, 2\]"):
        sorted_shares([[1.0], [0.5, 0.5]])


def test_the_figure_has_a_panel_per_partition_and_a_line_per_arm() -> None:
    runs = [[0.7, 0.3], [0.4, 0.6]]
    shares = {"iid": {"fedavg": runs, "dcgan": runs}, "k2": {"fedavg": runs}}
    shares["k1"] = {"dcgan": [[0.95, 0.05]]}
    figure = draw_sorted_classes(shares, training_shares=[0.5, 0.5])
    drawn = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title(loc="left") for axes in drawn] == ["iid", "k2", "k1"]
    assert [len(axes.lines) for axes in drawn] == [3, 2, 2]
    np.testing.assert_allclose(drawn[0].lines[0].get_ydata(), [0.65, 0.35])
    assert drawn[0].get_ylim()[0] == 0 and drawn[2].get_ylim()[1] > 0.95
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["fedavg", "dcgan", "training images"]
    figure.savefig(io.BytesIO(), format="png")
