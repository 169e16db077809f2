"""A row per model that was ever compared, and which of them a report shows."""

import io

import pandas as pd

from phoenix_pipeline.reporting.arm_results import ArmResults
from phoenix_pipeline.reporting.earlier_runs import add_runs, show_earlier
from tests.written import arm_metrics, arm_results

SETTINGS = {
    "run": {"seed": 3},
    "partition": {"scheme": "pathological", "classes_per_client": 2, "num_clients": 10},
    "federation": {"num_rounds": 60},
}


def model(arm: str, day: int, weights: str) -> ArmResults:
    scores = arm_metrics({}, {"weights_digest": weights})
    made = {"trained_with": SETTINGS, "weights_digest": weights, "written": f"2026-01-{day:02}"}
    return arm_results(arm, scores, **made)


def table(**fids: float) -> pd.DataFrame:
    return pd.DataFrame({"arm": list(fids), "fid_pixels": list(fids.values()), "num_samples": 100})


def as_read_back(runs: pd.DataFrame) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(runs.to_csv(index=False)))


def test_models_are_kept_once_and_shown_when_others_took_their_place() -> None:
    first = [model("fedavg", 1, "1e5"), model("dcgan", 1, "22")]
    runs = add_runs(pd.DataFrame(), table(fedavg=0.5, dcgan=2.0), first)
    assert show_earlier(runs, first) is None

    # The same models again, scored otherwise: nothing is added, and the newer score stands.
    runs = add_runs(as_read_back(runs), table(fedavg=0.75, dcgan=2.0), first)
    assert runs[["arm", "fid_pixels"]].to_numpy().tolist() == [["fedavg", 0.75], ["dcgan", 2.0]]

    second = [model("fedavg", 2, "33")]
    runs = add_runs(as_read_back(runs), table(fedavg=0.25), second)
    shown = show_earlier(as_read_back(runs), second)
    assert shown is not None
    head = ["arm", "trained", "seed", "scheme", "classes", "clients", "rounds"]
    assert shown.titles[: len(head)] == head
    settings = ["3", "pathological", "2", "10", "60"]
    assert [row[: len(head)] for row in shown.rows] == [
        ["dcgan", "2026-01-01", *settings],
        ["fedavg", "2026-01-01", *settings],
    ]
    assert [row[-1] for row in shown.rows] == ["2.000", "0.750"]


def test_scores_of_a_model_that_is_no_longer_there_make_no_row() -> None:
    late = arm_results("fedavg", arm_metrics({}), trained_with=SETTINGS, weights_digest="later")
    assert add_runs(pd.DataFrame(), table(fedavg=0.5), [late]).empty


def test_nothing_scored_keeps_what_there_was() -> None:
    assert add_runs(pd.DataFrame(), table(), []).empty
