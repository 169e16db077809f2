"""The examples of docs/extending.md: one module outside of the project, and a run that uses all."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from phoenix_pipeline.checkpoints import read_json
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.registry import KINDS, _import, foreign_names, load_extensions, register

ROOT = Path(__file__).parents[1]
SETTINGS = {
    "run.extensions": "my_components",
    "partition.scheme": "blocks",
    "evaluation.extractors": "[fid_rows]",
    "fedavg.federation.strategies.slow_server.part": 0.7,
    "fedavg.federation.aggregation.rule": "plain_mean",
    "fedavg.federation.compression.up.codec": "bf16",
    "fedavg.federation.server_optimizer.name": "signs",
    "fedavg.sampling.sampler": "deis",
}


def test_the_page_runs_as_it_stands(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    (tmp_path / "my_components.py").write_text(code, encoding="utf-8")
    given = ",".join(f"{name}={value}" for name, value in SETTINGS.items())
    done = subprocess.run(
        [
            *(sys.executable, "-m", "phoenix_pipeline", "--env", "smoke"),
            *("--pipelines", "fedavg", "--params", f"{given},data_root={tmp_path / 'data'}"),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{tmp_path}", "PHOENIX_TRACKING": "0"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    metrics = read_json(tmp_path / "data/08_reporting/fedavg/metrics.json")
    assert metrics["scores"]["offset_rows"] >= 0.0
    assert metrics["scores"]["fid_rows"] > 0.0
    model = read_json(tmp_path / "data/06_models/fedavg/phoenix.json")
    said = json.dumps(model["trained_with"])
    assert all(name in said for name in ("slow_server", "plain_mean", "bf16", "signs"))
    rounds = pd.read_parquet(tmp_path / "data/06_models/fedavg/rounds.parquet")
    assert (rounds["status"] == "ok").all()
    # Half precision up, whole weights down.
    assert rounds["bytes_up"].sum() < 0.6 * rounds["bytes_down"].sum()
    clients = pd.read_parquet(tmp_path / "data/03_primary/partition.parquet")
    assert clients.sort_values("image_index")["client_id"].is_monotonic_increasing


def test_what_is_registered_is_known_at_once() -> None:
    register("codecs", "of_this_test", lambda config: None)
    assert "of_this_test" in foreign_names("codecs")
    with pytest.raises(SettingsError, match=f"of the kinds {', '.join(KINDS)}; got 'tarot'"):
        register("tarot", "x", None)


def test_a_module_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOENIX_EXTENSIONS", "")
    _import.cache_clear()
    with pytest.raises(SettingsError, match=r"run\.extensions names no_such_module, .*PYTHONPATH"):
        load_extensions(["no_such_module"])
