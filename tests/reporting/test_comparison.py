import io

import pandas as pd
import pytest

from phoenix_pipeline.reporting.comparison import (
    FLOOR_NAME,
    compare_arms,
    format_table,
    headline_columns,
    run_totals,
)
from tests.written import scored_arms


def test_totals_are_those_added_up_by_hand(rounds) -> None:
    assert run_totals(rounds) == {
        "rounds": 3,
        "clients": 2,
        "images_trained": 220,
        "bytes_up": 500,
        "bytes_down": 660,
        "bytes_total": 1160,
        "bytes_per_round": pytest.approx(1160 / 3),
        "train_seconds": 8.0,
        "images_per_second": 27.5,
    }


def test_a_warm_up_is_work_but_no_round(rounds) -> None:
    warm_up = rounds.iloc[[0]].assign(round=0, client_id=-1, bytes_up=float("nan"))
    totals = run_totals(pd.concat([warm_up, rounds]))
    assert (totals["rounds"], totals["clients"], totals["images_trained"]) == (3, 2, 280)


def test_a_round_on_the_link_lasts_as_long_as_its_slowest_client(metrics, rounds) -> None:
    timed = rounds.assign(link_seconds=[1.0, 4.0, 2.0, 0.5, 3.0, 3.5])
    assert run_totals(timed)["link_seconds"] == 4.0 + 2.0 + 3.5
    assert "link_seconds" not in run_totals(rounds.assign(link_seconds=float("nan")))
    table = compare_arms(scored_arms(metrics, {"fedavg": timed, "dcgan": rounds}, pooled=["dcgan"]))
    assert "link_seconds" in headline_columns(table)
    assert "on the link" in format_table(table)
    assert table["link_seconds"].isna().tolist() == [False, True, True]


def test_what_was_not_counted_is_missing_rather_than_zero(rounds) -> None:
    totals = run_totals(rounds.assign(bytes_up=float("nan"), bytes_down=float("nan")))
    assert not {"bytes_up", "bytes_total", "bytes_per_round"} & set(totals)
    assert totals["images_trained"] == 220


def test_rows_keep_their_order_and_the_floor_is_last(metrics, rounds, floor) -> None:
    table = compare_arms(scored_arms(metrics, {"fedavg": rounds}), floor)
    assert list(table["arm"]) == ["fedavg", "centralized", "dcgan", FLOOR_NAME]
    by_arm = table.set_index("arm")
    assert by_arm.at["dcgan", "fid_pixels"] == 31.5
    assert by_arm.at["fedavg", "images_trained"] == 220
    assert by_arm.at["centralized", "class_kl"] == 0.01
    assert by_arm.at["fedavg", "classifier_test_accuracy"] == 0.986
    assert by_arm.at[FLOOR_NAME, "coverage_pixels"] == 0.96
    assert list(by_arm["num_samples"].dropna()) == [200, 200, 200, 100]
    assert pd.isna(by_arm.at["dcgan", "rounds"])
    assert not table.columns.duplicated().any()


def test_an_arm_that_pools_its_images_has_no_traffic_but_its_work(metrics, rounds) -> None:
    none = rounds.assign(bytes_up=0, bytes_down=0)
    table = compare_arms(
        scored_arms(metrics, {"centralized": none, "fedavg": rounds}, pooled=["centralized"])
    ).set_index("arm")
    assert table.loc["centralized", ["bytes_up", "bytes_total", "bytes_per_round"]].isna().all()
    assert table.at["centralized", "images_trained"] == 220
    assert table.at["fedavg", "bytes_total"] == 1160


def test_the_averaged_model_is_no_headline(metrics) -> None:
    metrics["dcgan"]["scores"] |= {
        "final_average.fid_pixels": 9.0,
        "final_average.kid_pixels": 1.0,
        "final_average.coverage_pixels": 0.1,
    }
    table = compare_arms(scored_arms(metrics))
    assert table.set_index("arm").at["dcgan", "final_average.fid_pixels"] == 9.0
    headline = ["fid_pixels", "gap_closed_pixels", "coverage_pixels", "class_kl"]
    assert headline_columns(table) == headline


def test_missing_values_stay_empty_in_the_csv(metrics, rounds, floor) -> None:
    metrics["dcgan"]["scores"]["coverage_pixels"] = float("nan")
    text = compare_arms(scored_arms(metrics, {"fedavg": rounds}), floor).to_csv(index=False)
    assert "nan" not in text.lower() and "<na>" not in text.lower() and "None" not in text
    again = pd.read_csv(io.StringIO(text)).set_index("arm")
    assert pd.isna(again.at["dcgan", "coverage_pixels"])
    assert ",220,500,660,1160," in text


def test_the_classifier_accuracy_is_one_column(metrics) -> None:
    metrics["fedavg"]["scores"]["classifier_test_accuracy"] = 0.9
    table = compare_arms(scored_arms(metrics))
    assert list(table.columns).count("classifier_test_accuracy") == 1
    assert list(table["classifier_test_accuracy"]) == [0.9, 0.986, 0.986]


def test_headline_takes_the_most_telling_space_and_skips_empty_columns() -> None:
    names = ["recall_pixels", "recall_classifier", "fid_pixels", "fid_inception_v3", "class_kl"]
    table = pd.DataFrame([{"arm": "a", **dict.fromkeys(names, 0.5), "coverage_pixels": None}])
    assert headline_columns(table) == [
        "fid_inception_v3",
        "fid_pixels",
        "recall_classifier",
        "class_kl",
    ]


def test_terminal_table_shows_numbers_under_arrows(metrics, rounds, floor) -> None:
    lines = format_table(compare_arms(scored_arms(metrics, {"fedavg": rounds}), floor)).splitlines()
    assert lines[1].split() == [
        "arm", "pixels", "↓", *["pixels", "↑"] * 2, "KL", "↓", "trained", "Traffic", "↓",
    ]  # fmt: skip
    dash = "\N{EN DASH}"
    assert lines[3].split() == ["fedavg", "5.25", dash, "0.500", dash, "220", "1.16", "kB"]
    assert lines[5].split() == ["dcgan", "31.50", "-9.55?", *[dash] * 4]
    assert lines[-1].startswith("? behind a number: not credible")
    assert lines[-2].split() == ["real", "test", "images", "0.75", dash, "0.960", *[dash] * 3]


def test_terminal_table_explains_no_mark_that_is_in_none_of_its_columns(
    metrics, rounds, floor
) -> None:
    table = compare_arms(scored_arms(metrics, {"fedavg": rounds}), floor)
    narrow = format_table(table, width=50)
    assert "-9.55?" not in narrow and "not credible" not in narrow


def test_terminal_table_drops_precision_first_where_it_is_narrow() -> None:
    names = ["fid_pixels", "precision_pixels", "recall_pixels", "coverage_pixels"]
    table = pd.DataFrame([{"arm": "fedavg", **dict.fromkeys(names, 0.5)}])
    full = format_table(table)
    narrow = format_table(table, width=len(full.splitlines()[2]) - 1)
    assert "Precision" in full
    assert "Precision" not in narrow and "Recall" in narrow and "Coverage" in narrow


def test_terminal_table_fits_with_everything_measured() -> None:
    spaces = ("classifier", "efficientnet_lite0", "inception_v3", "pixels")
    families = ("fid", "kid", "precision", "recall", "density", "coverage")
    row = {f"{family}_{space}": 123.456 for family in families for space in spaces}
    row |= {"class_entropy": 0.99, "class_kl": 0.1, "classes_covered": 10, "memorized_share": 0.1}
    row |= {"images_trained": 123_456_789, "bytes_total": 1e9}
    text = format_table(pd.DataFrame([{"arm": "personalization", **row}]))
    assert max(map(len, text.splitlines())) <= 110
    assert "trained" in text and "Traffic" in text
