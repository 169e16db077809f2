"""One arm of ``cifar10_h200`` in a few short rounds, killed once if asked to, sampled and scored.

Usage, by ``benchmarks.gpu_check``: ``python -m benchmarks.gpu_check.arms fedavg --findings FILE``.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.project import ENVIRONMENT, ROUNDS, make_project
from benchmarks.gpu_check.report import Findings
from phoenix_pipeline.config import ModelConfig
from phoenix_pipeline.federated.run_state import checkpoints
from phoenix_pipeline.framework.project import open_config


def main() -> None:
    """Run the arm; raise RuntimeError for what is not as it has to be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("arm")
    parser.add_argument("--findings", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--kill", action="store_true", help="after the first checkpoint")
    asked = parser.parse_args()
    findings = Findings(asked.findings)
    with tempfile.TemporaryDirectory(prefix="gpu_check_") as temporary:
        project = make_project(Path(temporary) / "project", asked.device, asked.tiny)
        started = time.perf_counter()
        if asked.kill:
            findings.add("killed", value=_run_and_kill(project, asked.arm))
        said = _run(project, asked.arm)
        findings.add("seconds", value=time.perf_counter() - started)
        for name, value in outcome(project / "data", asked.arm).items():
            findings.add(name, value=value)
        check_log(said, asked.kill, is_stacked(project, asked.arm))


def outcome(data: Path, arm: str) -> dict[str, Any]:
    """Return what the arm left: rounds, loss, samples, scores.

    Raises RuntimeError where a client failed, rounds are missing, or a score is not finite.
    """
    import pandas as pd
    import pyarrow.parquet as pq

    rounds = pd.read_parquet(data / "06_models" / arm / "rounds.parquet")
    trained = rounds[rounds["round"] > 0]
    failed = trained[trained["status"] != "ok"]
    if len(failed):
        row = failed.iloc[0]
        raise RuntimeError(f"round {row['round']}: client {row['client_id']}: {row['reason']}")
    if trained["round"].max() != ROUNDS:
        raise RuntimeError(f"{trained['round'].max()} rounds; {ROUNDS} were asked for")
    metrics = json.loads((data / "08_reporting" / arm / "metrics.json").read_text("utf-8"))
    wrong = [name for name, score in metrics["scores"].items() if not math.isfinite(score)]
    if wrong:
        raise RuntimeError(f"scores that are not finite: {', '.join(wrong)}")
    samples = pq.read_metadata(data / "07_model_output" / arm / "samples.parquet").num_rows
    last = trained[trained["round"] == ROUNDS]
    return {
        "loss": float(last["loss"].mean()),
        "samples": samples,
        "scores": len(metrics["scores"]),
        "skipped": metrics["skipped"],
    }


def is_stacked(project: Path, arm: str) -> bool:
    """Return whether the arm has several clients of a kind that can be stacked."""
    settings = open_config(project, ENVIRONMENT)["parameters"][arm]
    family = ModelConfig.model_validate(settings["model"]).family
    return family == "diffusion" and not settings["federation"].get("pooled", False)


def check_log(said: str, killed: bool, stacked: bool) -> None:
    """Raise RuntimeError if the log tells that a path was not taken that was to be tried."""
    lines = said.splitlines()
    for line in lines:
        if "kernel by kernel" in line:
            raise RuntimeError(line.partition("WARNING ")[2] or line)
    if stacked and not any("train as one program" in line for line in lines):
        raise RuntimeError("clients were not stacked")
    if killed and not any("continuing after round" in line for line in lines):
        raise RuntimeError("the killed run was not continued from its checkpoint")


def _run(project: Path, arm: str) -> str:
    """Run the arm to its end; return what it logged."""
    done = subprocess.run(
        _command(arm),
        check=False,
        cwd=project,
        env=_environment(project),
        stderr=subprocess.PIPE,
        text=True,
    )
    sys.stderr.write(done.stderr)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise RuntimeError(lines[-1] if lines else f"exit status {done.returncode}")
    return done.stderr


def _run_and_kill(project: Path, arm: str) -> bool:
    """Kill the arm once its first checkpoint is there; return False if it ended before."""
    server = project / "data" / "06_models" / "checkpoints" / arm / "server"
    process = subprocess.Popen(
        _command(arm), cwd=project, env=_environment(project), stderr=subprocess.DEVNULL
    )
    while process.poll() is None:
        if checkpoints(server):
            process.kill()
            break
        time.sleep(0.02)
    return process.wait() < 0


def _command(arm: str) -> list[str]:
    return [sys.executable, "-m", "kedro", "run", "--env", ENVIRONMENT, "--pipelines", arm]


def _environment(project: Path) -> dict[str, str]:
    paths = [str(project / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PHOENIX_TRACKING": "0"}


if __name__ == "__main__":
    main()
