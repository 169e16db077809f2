import pandas as pd
import pytest

from phoenix_pipeline.metrics.privacy.arm_audit import ArmAudit
from phoenix_pipeline.reporting.caveats import list_skipped, privacy_caveats
from phoenix_pipeline.reporting.comparison import compare_arms
from phoenix_pipeline.reporting.gallery import Gallery
from phoenix_pipeline.reporting.privacy import (
    draw_trade,
    format_privacy,
    privacy_rows,
    privacy_titles,
)
from phoenix_pipeline.reporting.report import render_report
from tests.written import arm_audit, arm_results, scored_arms

MISSING = "\N{EN DASH}"
NO_RUNS = pd.DataFrame(columns=["weights"])


@pytest.fixture
def privacy() -> dict[str, ArmAudit]:
    """Two of the three arms, audited by different attacks."""
    both = {"membership_auc_low": 0.55, "membership_auc_high": 0.65}
    both |= {"membership_tpr": 0.03, "membership_tpr_low": 0.0, "membership_tpr_high": 0.09}
    return {
        "fedavg": arm_audit(
            {
                **both,
                "membership_auc": 0.6,
                "membership_auc_loss": 0.58,
                "membership_auc_pia": 0.6,
                "clients_exposed": 2,
                "clients_attacked": 10,
                "copied_share": 0.02,
                "reconstruction_psnr_db": 55.7,
                "reconstruction_mean_image_psnr_db": 12.1,
            },
            blind={"auc": 0.51, "auc_p_value": 0.4},
            reconstruction={"scores": {}, "seen": "int4, difference", "images": []},
        ),
        "dcgan": arm_audit(
            {
                **both,
                "membership_auc": 0.61,
                "membership_auc_discriminator": 0.61,
                "clients_exposed": 0,
                "clients_attacked": 10,
            },
            blind={"auc": 0.51, "auc_p_value": 0.4},
            skipped={"reconstruction": "it is made for diffusion models"},
        ),
    }


def test_rows_stand_beside_fidelity(metrics, rounds, floor, privacy) -> None:
    table = compare_arms(scored_arms(metrics, {"fedavg": rounds}, audits=privacy), floor)
    assert privacy_titles(table)[:3] == ["Arm", "FID pixels ↓", "Strongest attack"]
    interval = f"(0.55{MISSING}0.65)"
    tpr = f"0.030 (0.00{MISSING}0.09)"
    assert privacy_rows(table) == [
        ["fedavg", "5.25", "PIA", f"0.600 {interval}", tpr, "2 of 10", "0.020",
         "56 dB (mean image 12 dB) from int4, difference"],
        ["dcgan", "31.50", "discriminator", f"0.610 {interval}", tpr, "0 of 10", MISSING, MISSING],
    ]  # fmt: skip


def test_the_table_is_the_same_from_the_csv(metrics, rounds, floor, privacy, tmp_path) -> None:
    table = compare_arms(scored_arms(metrics, {"fedavg": rounds}, audits=privacy), floor)
    table.to_csv(tmp_path / "comparison.csv", index=False)
    again = format_privacy(pd.read_csv(tmp_path / "comparison.csv"))
    assert again == format_privacy(table)
    lines = again.splitlines()
    assert len(lines) == 4
    assert lines[1] == f"|{' --- |' * 8}"
    assert {line.count("|") for line in lines} == {9}


def test_without_an_audit_there_is_nothing_and_the_command_is_named(metrics, rounds, floor) -> None:
    table = compare_arms(scored_arms(metrics, dict.fromkeys(metrics, rounds)), floor)
    assert not any(name.startswith("membership") for name in table)
    assert (privacy_rows(table), format_privacy(table), draw_trade(table)) == ([], "", None)
    assert privacy_caveats([]) == []
    arms = [arm_results(arm, own) for arm, own in metrics.items()]
    html = render_report(table, arms, figures={}, gallery=Gallery({}), runs=NO_RUNS)
    assert "kedro run --pipelines privacy_audit,comparison" in html
    assert "Fidelity against privacy" not in html


def test_the_report_shows_the_trade_and_what_was_not_attacked(
    metrics, rounds, floor, privacy
) -> None:
    table = compare_arms(
        scored_arms(metrics, dict.fromkeys(metrics, rounds), audits=privacy), floor
    )
    arms = [arm_results(arm, own, audit=privacy.get(arm)) for arm, own in metrics.items()]
    trade = {"trade": draw_trade(table)}
    html = render_report(table, arms, figures=trade, gallery=Gallery({}), runs=NO_RUNS)
    for text in (
        "Fidelity against privacy",
        "Fidelity of every arm against the success of attacks on it",
        "2 of 10",
        "reconstruction: it is made for diffusion models (dcgan)",
        "proves nothing",
    ):
        assert text in html
    assert "No attack on these models was made" not in html


def test_the_figure_has_a_point_and_an_interval_per_audited_arm(
    metrics, rounds, floor, privacy
) -> None:
    figure = draw_trade(
        compare_arms(scored_arms(metrics, {"fedavg": rounds}, audits=privacy), floor)
    )
    auc, tpr = figure.axes
    (first, *_), (second, *_) = auc.containers
    assert (first.get_xdata()[0], first.get_ydata()[0]) == (0.6, 5.25)
    assert (second.get_xdata()[0], second.get_ydata()[0]) == (0.61, 31.5)
    (bar,) = tpr.containers[0][2]
    assert bar.get_segments()[0][:, 0] == pytest.approx([0.0, 0.09])


def test_caveats_name_what_makes_attacks_worthless(privacy) -> None:
    assert "without any model" not in " ".join(privacy_caveats(list(privacy.values())))
    privacy["fedavg"]["blind"] = {"auc": 0.71, "auc_p_value": 1e-9}
    privacy["dcgan"]["conditions"]["num_held_out"] = 90
    text = " ".join(privacy_caveats(list(privacy.values())))
    assert "without any model (AUC 0.71)" in text
    assert "With 90 held-out images" in text


def test_what_was_skipped_names_its_arms(metrics, privacy) -> None:
    privacy["fedavg"]["skipped"] = {"client_models 3": "too few"}
    arms = [arm_results(arm, metrics[arm], audit=audit) for arm, audit in privacy.items()]
    assert list_skipped(arms) == {
        "fid_inception_v3: no weights file": ["fedavg", "dcgan"],
        "client models 3: too few": ["fedavg"],
        "reconstruction: it is made for diffusion models": ["dcgan"],
    }
