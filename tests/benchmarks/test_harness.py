"""The arithmetic of ratios, the growth exponent, and what the table and its file hold."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.__main__ import main, merge, table_line
from benchmarks.harness import Options, Row, compare, growth_exponent, ratio_of_pairs, side_by_side


def test_ratio_is_the_median_over_pairs_not_of_the_sides() -> None:
    # A slow spell in the second pair hits both sides, and leaves the ratio alone.
    ratio, spread = ratio_of_pairs([1.0, 10.0, 2.0], [2.0, 20.0, 4.0])
    assert (ratio, spread) == (2.0, 0.0)


def test_spread_is_the_interquartile_range() -> None:
    ratio, spread = ratio_of_pairs([1.0] * 5, [1.0, 2.0, 3.0, 4.0, 5.0])
    assert (ratio, spread) == (3.0, 2.0)
    assert ratio_of_pairs([2.0], [1.0]) == (0.5, 0.0)


def test_sides_take_turns_and_the_first_run_of_each_is_not_counted() -> None:
    calls: list[str] = []
    row = compare(
        "x",
        "y",
        lambda: calls.append("a"),
        lambda: calls.append("b"),
        Options(repetitions=3),
        goal=1.0,
    )
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert row.details["repetitions"] == 3
    assert row.ratio is not None


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.5])
def test_exponent_of_a_power_law(exponent: float) -> None:
    sizes = [8, 16, 32, 64]
    costs = [3.0 * size**exponent for size in sizes]
    assert growth_exponent(sizes, costs) == pytest.approx(exponent, abs=1e-12)


def test_table_says_whether_a_goal_is_met() -> None:
    assert " met " in table_line(Row("a", "b", ratio=1.0, goal=1.0, spread=0.1))
    assert " no " in table_line(Row("a", "b", ratio=0.99, goal=1.0, spread=0.1))
    assert table_line(Row("a", "why not")).split() == ["a", "why", "not"]


def test_a_run_replaces_only_its_own_rows() -> None:
    before = [{"name": "a", "ratio": 1.0}, {"name": "c", "ratio": 3.0}]
    merged = merge(before, [Row("b", "", 2.0), Row("c", "", 4.0)])
    assert [(row["name"], row["ratio"]) for row in merged] == [("a", 1.0), ("b", 2.0), ("c", 4.0)]


def test_missing_images_are_said_and_not_an_error(tmp_path: Path) -> None:
    output = tmp_path / "latest.json"
    main(["reading", "--cifar10", str(tmp_path), "--output", str(output)])
    [row] = json.loads(output.read_text(encoding="utf-8"))
    assert row["ratio"] is None
    assert f"{tmp_path / 'train.parquet'} is not there" in row["compared"]


def test_a_device_that_is_not_there_is_refused_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--device", "cuda:99"])
    assert "allowed here: auto, cpu" in capsys.readouterr().err


def test_side_by_side_keeps_the_order_and_the_callers_threads() -> None:
    before = torch.get_num_threads()
    found = side_by_side(lambda item: (item, torch.get_num_threads()), range(5), workers=2)
    assert found == [(item, 1) for item in range(5)]
    assert torch.get_num_threads() == before
