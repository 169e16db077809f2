"""The check for cards, as far as a CPU can tell: its pieces, and a tiny run of it."""

import json
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks.gpu_check.__main__ import main
from benchmarks.gpu_check.arms import check_log, is_stacked, outcome
from benchmarks.gpu_check.children import NO_TIME, Part, run_parts
from benchmarks.gpu_check.project import ENVIRONMENT, make_project
from benchmarks.gpu_check.report import SPEEDS, Findings, Goal, PartResult, Report
from benchmarks.presets import read_preset
from phoenix_pipeline.config import ImagesConfig
from phoenix_pipeline.framework.project import open_config
from phoenix_pipeline.images import read_images

MODULES = {
    "part_that_ends": "found('a.uncompiled', value=2.5)",
    "part_that_fails": "found('b', value=1); raise RuntimeError('this card is tired')",
    "part_that_hangs": "found('c', value=3); import time; time.sleep(60)",
}
HEAD = """
import sys
from pathlib import Path
from benchmarks.gpu_check.report import Findings
found = Findings(Path(sys.argv[-1])).add
"""


def parts(folder: Path, monkeypatch: pytest.MonkeyPatch, limit_s: float) -> list[Part]:
    for name, body in MODULES.items():
        (folder / f"{name}.py").write_text(HEAD + body, encoding="utf-8")
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{root}:{root / 'src'}")
    return [Part(name, name, (), limit_s) for name in MODULES]


def test_a_part_that_fails_or_hangs_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results: dict[str, PartResult] = {}
    run_parts(
        parts(tmp_path, monkeypatch, 8.0), tmp_path, 3, time.monotonic() + 60, results.__setitem__
    )
    ended, failed, hung = (results[name] for name in MODULES)
    assert (ended.status, ended.reason, ended.findings) == ("ok", "", {"a.uncompiled": 2.5})
    assert (failed.status, failed.reason) == ("failed", "this card is tired")
    assert (hung.status, hung.reason) == ("failed", "did not end within 8 s")
    assert (failed.findings, hung.findings) == ({"b": 1}, {"c": 3}), "what was found is kept"


def test_nothing_begins_when_no_time_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results: dict[str, PartResult] = {}
    run_parts(parts(tmp_path, monkeypatch, 9.0), tmp_path, 1, time.monotonic(), results.__setitem__)
    assert {(result.status, result.reason) for result in results.values()} == {("skipped", NO_TIME)}


def test_a_finding_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    findings = Findings(tmp_path / "f")
    assert findings.read() == {}
    findings.add("a", value=1.0)
    with (tmp_path / "f").open("a") as file:
        file.write('{"name": "b", "val')
    assert findings.read() == {"a": 1.0}


@pytest.mark.parametrize(
    ("goal", "lower", "measured", "expected"),
    [
        (10.0, False, {"uncompiled": 4.0, "compiled": 10.0}, True),
        (10.0, False, {"uncompiled": 9.9}, False),
        (60.0, True, {"uncompiled": 326.0, "compiled": 59.0}, True),
        (60.0, True, {"uncompiled": 61.0}, False),
        (10.0, False, {}, None),
        (None, False, {"uncompiled": 4.0}, None),
    ],
)
def test_the_best_variant_is_held_against_the_goal(
    goal: float | None, lower: bool, measured: dict[str, float], expected: bool | None
) -> None:
    assert Goal("k", "t", "u", None, goal, lower).met_by(measured) is expected


@pytest.mark.parametrize(("judged", "verdict"), [(True, ": met"), (False, "")])
def test_the_report_has_goals_figures_and_reasons(
    judged: bool, verdict: str, tmp_path: Path
) -> None:
    found = {"training_large.uncompiled": 2123.0, "training_large.compiled": 6600.0}
    parts = {"one": PartResult("ok", findings=found), "two": PartResult("failed", "no memory")}
    report = Report(tmp_path / "r.json", judged, {"device": "cuda"}, parts)
    report.write()
    lines = report.table()
    [row] = [line for line in lines if line.startswith("training 35.7 M")]
    assert row.endswith(f"2,123    6,500  uncompiled 2,123, compiled 6,600 images/s{verdict}")
    assert any("two" in line and "failed" in line and "no memory" in line for line in lines)
    assert report.failed() == ["two"]
    read = json.loads((tmp_path / "r.json").read_text())
    [speed] = [row for row in read["speed"] if row["key"] == "training_large"]
    assert speed["measured"] == {"uncompiled": 2123.0, "compiled": 6600.0}
    assert speed["met"] is (True if judged else None)
    assert len(read["speed"]) == len(SPEEDS)


@pytest.mark.parametrize("tiny", [False, True])
def test_every_arm_of_the_preset_is_made_short(tiny: bool, tmp_path: Path) -> None:
    project = make_project(tmp_path / "p", "cuda", tiny=tiny)
    assert read_images(project / "raw" / "train.parquet", ImagesConfig()).image_size == (
        8 if tiny else 32
    )
    loader = open_config(project, ENVIRONMENT)
    assert loader["globals"]["data_root"] == "data", "results of a user's own runs are left alone"
    assert len(loader.arms) >= 5
    for arm in loader.arms:
        settings = loader["parameters"][arm]
        training = settings["training"]
        assert settings["federation"]["num_rounds"] == 3
        assert training["optimizer_state"] == "keep"
        assert training["channels_last"] is True
        assert training["compile"] is False
        assert training["precision"] == ("fp32" if arm == "dcgan" else "bf16")
        whole = 128 if arm in ("centralized", "dcgan") else 16
        assert training["batch_size"] == (5 if tiny else whole)


def test_the_small_network_has_8_9_million_weights() -> None:
    network = read_preset("small", "cifar10_h200", 3, 32, 1).network("cpu")
    assert sum(p.numel() for p in network.parameters()) == 8_952_067


def leave(data: Path, **changes: Any) -> None:
    """Write what an arm of three rounds and two clients leaves."""
    rows = {"round": [0, 1, 1, 2, 2, 3, 3], "client_id": [-1, 0, 1, 0, 1, 0, 1]}
    told = {"status": "ok", "reason": "", "loss": 0.5, **changes}
    scores = {"fid_pixels": told.pop("score", 1.0)}
    models, report = data / "06_models" / "fedavg", data / "08_reporting" / "fedavg"
    samples = data / "07_model_output" / "fedavg"
    for folder in (models, report, samples):
        folder.mkdir(parents=True)
    frame = pd.DataFrame(rows).assign(**told)
    frame[frame["round"] <= changes.get("round", 3)].to_parquet(models / "rounds.parquet")
    (report / "metrics.json").write_text(json.dumps({"scores": scores, "skipped": {}}))
    pd.DataFrame({"seed": range(7)}).to_parquet(samples / "samples.parquet")


def test_what_an_arm_leaves(tmp_path: Path) -> None:
    leave(tmp_path)
    expected = {"loss": 0.5, "samples": 7, "scores": 1, "skipped": {}}
    assert outcome(tmp_path, "fedavg") == expected


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": "failed", "reason": "RuntimeError: same dtype"}, "client 0: RuntimeError"),
        ({"score": float("nan")}, "not finite: fid_pixels"),
    ],
)
def test_an_arm_that_is_not_well_says_why(
    changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    leave(tmp_path, **changes)
    with pytest.raises(RuntimeError, match=reason):
        outcome(tmp_path, "fedavg")


@pytest.mark.parametrize(
    ("log", "killed", "stacked", "reason"),
    [
        ("clients train one after another: x", False, True, "not stacked"),
        ("10:00 WARNING a step is launched kernel by kernel", False, False, "^a step is launched"),
        ("round 1/3", True, False, "not continued"),
    ],
)
def test_a_path_that_was_not_taken_is_a_failure(
    log: str, killed: bool, stacked: bool, reason: str
) -> None:
    with pytest.raises(RuntimeError, match=reason):
        check_log(log, killed=killed, stacked=stacked)


def test_arms_with_several_clients_of_diffusion_are_stacked(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p", "cuda", tiny=True)
    arms = open_config(project, ENVIRONMENT).arms
    others = {arm for arm in arms if not is_stacked(project, arm)}
    assert others == {"centralized", "dcgan"}


def test_a_log_of_all_paths_passes() -> None:
    log = "up to 4 clients train as one program\ncontinuing after round 1 of 3\nwhatever"
    check_log(log, killed=True, stacked=True)


@pytest.mark.parametrize("name", ["nothing", "cuda:99"])
def test_a_device_that_is_not_there_is_one_line(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--device", name])
    assert left.value.code == 2
    assert "--device" in capsys.readouterr().err


@pytest.mark.slow
def test_the_whole_check_runs_tiny_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{root}:{root / 'src'}")
    limits = ["--seconds", "1500", "--part-seconds", "600"]
    output = tmp_path / "check.json"
    assert main(["--device", "cpu", *limits, "--output", str(output)]) == 0
    report = json.loads(output.read_text())
    assert {part["status"] for part in report["parts"].values()} == {"ok"}
    assert report["parts"]["arm_personalization"]["findings"]["killed"] is True
    assert all(row["measured"]["uncompiled"] > 0.0 for row in report["speed"])
    assert "compiling" in report["conditions"]["skipped"]
    assert "federated round against one batch program" in capsys.readouterr().out
