"""What tells one MLflow run from another: its command's options, its commit, its data folder."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phoenix_pipeline.config.base import flatten
from phoenix_pipeline.framework.secrets import shown_value

DATA_ROOT = "phoenix.data_root"
"""The tag with the absolute data folder and its host: who holds its lock knows which runs ended."""
ARMS = "phoenix.arms"
"""The tag of a session's run with the arms that it locked."""

_GIT_PATIENCE_S = 5.0
_OPTIONS = (
    "env",
    "pipeline_names",
    "tags",
    "node_names",
    "from_nodes",
    "to_nodes",
    "from_inputs",
    "to_outputs",
    "namespaces",
)


def option_tags(run_params: Mapping[str, Any]) -> dict[str, str]:
    """Return the options of ``kedro run`` that were given."""
    tags = {f"kedro.{name}": str(run_params[name]) for name in _OPTIONS if run_params.get(name)}
    runtime = dict(flatten(run_params.get("runtime_params") or {}))
    if runtime:
        tags["kedro.params"] = ",".join(f"{n}={shown_value(n, v)}" for n, v in runtime.items())
    return tags


def commit_tags(project: Path) -> dict[str, str]:
    """Return the commit of the project, and whether files differ from it; empty without git."""
    commit = _git(project, "rev-parse", "HEAD")
    if not commit:
        return {}
    changed = _git(project, "status", "--porcelain", "--untracked-files=no")
    tags = {"mlflow.source.git.commit": commit}
    return tags if changed is None else tags | {"git.dirty": str(bool(changed)).lower()}


def _git(project: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(project), *arguments],
            capture_output=True,
            text=True,
            timeout=_GIT_PATIENCE_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
