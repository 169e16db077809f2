"""A running SuperLink, through Flower's command line: submit a run, ask about it, stop it."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from phoenix_pipeline.checkpoints import atomic_path
from phoenix_pipeline.config import DeploymentConfig
from phoenix_pipeline.errors import FederationError, SettingsError

logger = logging.getLogger(__name__)

_CONNECTION = "phoenix"
_COMMAND_LIMIT_S = 300.0
_LISTED_RUNS = 1000
# What `flwr` may see: nothing of the environment that could hold a secret of another tool.
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "PYTHONPATH", "SYSTEMROOT", "TMPDIR", "VIRTUAL_ENV")


class SuperLink:
    """The SuperLink at ``config.address``; raises SettingsError for plain text over a network."""

    def __init__(self, config: DeploymentConfig, folder: Path) -> None:
        self._config = config
        self._folder = folder.resolve()
        lines = [f"[superlink.{_CONNECTION}]", f"address = {json.dumps(config.address)}"]
        lines += [_transport(config)]
        with atomic_path(self._folder / "config.toml") as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def submit(self, run_config: Mapping[str, str]) -> int:
        """Submit the app, return the run's id; raises SettingsError, FederationError."""
        app = Path(self._config.app_folder).resolve()
        if not (app / "pyproject.toml").is_file():
            raise SettingsError(
                f"{app} holds no Flower app (pyproject.toml); set federation.deployment.app_folder"
            )
        values = " ".join(f"{key}={json.dumps(value)}" for key, value in run_config.items())
        return int(self._flwr("run", str(app), _CONNECTION, "--run-config", values)["run-id"])

    def status(self, run_id: int) -> tuple[str, str]:
        """Return a run's status (``pending``, ``running``, ``finished:failed``, ...) and details.

        A run that the SuperLink does not know, since it was restarted without its database, is
        ``finished:unknown``.
        Raises FederationError: the SuperLink cannot be reached.
        """
        answer = self._flwr("list", _CONNECTION, "--limit", str(_LISTED_RUNS))
        run = next((r for r in answer.get("runs", ()) if str(r["run-id"]) == str(run_id)), None)
        if run is None:
            return "finished:unknown", "the SuperLink does not know it"
        return str(run["status"]), str(run.get("status-details") or "")

    def stop(self, run_id: int) -> None:
        """End a run; a SuperLink that cannot be reached is only warned of."""
        try:
            self._flwr("stop", str(run_id), _CONNECTION)
        except FederationError as error:
            logger.warning("run %s was not stopped: %s", run_id, error)

    def _flwr(self, *arguments: str) -> dict[str, Any]:
        code = "from flwr.cli.app import app; app()"
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        environment |= {
            "FLWR_HOME": str(self._folder),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
        }
        try:
            done = subprocess.run(
                [sys.executable, "-c", code, *arguments, "--format", "json"],
                env=environment,
                capture_output=True,
                text=True,
                timeout=_COMMAND_LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise self._unreachable(f"no answer within {_COMMAND_LIMIT_S:.0f} s") from error
        answer = _last_json(done.stdout)
        if done.returncode or not answer.get("success", False):
            reason = answer.get("error-message") or f"{done.stderr}\n{done.stdout}".strip()
            lines = [line.strip() for line in str(reason).splitlines() if line.strip()]
            raise self._unreachable(" ".join(lines[-3:]) or f"exit status {done.returncode}")
        return answer

    def _unreachable(self, reason: str) -> FederationError:
        return FederationError(
            f"the SuperLink at {self._config.address} did not take the command: {reason}; see "
            "federation.deployment and docs/deployment.md"
        )


def _transport(config: DeploymentConfig) -> str:
    """Return the line that says how the connection is secured; TLS unless on loopback."""
    if config.insecure:
        return "insecure = true"
    if config.root_certificates is None:
        if not is_loopback(config.address):
            raise SettingsError(
                f"federation.deployment.address {config.address!r} is not on this machine and "
                "root_certificates is null; name the PEM file of your authority, or accept plain "
                "text by insecure: true"
            )
        return "insecure = true"
    path = Path(config.root_certificates).resolve()
    if not path.is_file():
        raise SettingsError(f"federation.deployment.root_certificates: there is no file {path}")
    return f"root-certificates = {json.dumps(str(path))}"


def is_loopback(address: str) -> bool:
    """Return whether ``host:port`` is this very machine."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _last_json(text: str) -> dict[str, Any]:
    """Return the JSON object in what a command printed; empty if there is none."""
    start = text.find("{")
    try:
        value = json.loads(text[start:]) if start >= 0 else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
