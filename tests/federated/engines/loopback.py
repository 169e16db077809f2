"""A consortium on this machine: a SuperLink with TLS and SuperNodes with keys, as deploy/ says."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from phoenix_pipeline.config import DeploymentConfig
from phoenix_pipeline.federated.engines.superlink import SuperLink
from phoenix_pipeline.images import ImageSet, write_images

ROOT = Path(__file__).parents[3]
BIN = Path(sys.executable).parent
START_S = 240.0


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


class Consortium:
    """Processes of one federation; use as a context manager.

    ``durable``: the SuperLink keeps registrations and runs in a database.
    """

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        self.folder = folder
        self.durable = durable
        self.keys = folder / "keys"
        self.port, self.gate_port = free_port(), free_port()
        # What Kedro talks to on the coordinator, and what sites reach.
        self.address = f"127.0.0.1:{self.port}"
        self.gate = f"127.0.0.1:{self.gate_port}"
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> "Consortium":
        self.folder.mkdir(exist_ok=True)
        run("deploy/make_certificates.sh", str(self.keys), "coordinator.example")
        self.start_superlink()
        self.start_gate()
        return self

    def start_superlink(self) -> None:
        """Start the SuperLink, or start it anew."""
        database = ("--database", str(self.folder / "superlink.db")) if self.durable else ()
        self.start(
            "superlink",
            "flower-superlink",
            *("--ssl-ca-certfile", str(self.keys / "ca.crt")),
            *("--ssl-certfile", str(self.keys / "superlink.pem")),
            *("--ssl-keyfile", str(self.keys / "superlink.key")),
            *("--enable-supernode-auth", "--disable-runtime-dependency-installation"),
            *("--port", str(self.port)),
            *database,
        )
        self._wait_for("superlink", self.port)

    def start_gate(self) -> None:
        """Start what stands between the sites and the SuperLink."""
        self.start(
            "gate",
            Path(sys.executable).name,
            *("-m", "phoenix_pipeline.federated.engines.gate", "--host", "127.0.0.1"),
            *("--port", str(self.gate_port), "--superlink", self.address),
            *("--certificate", str(self.keys / "superlink.pem")),
            *("--key", str(self.keys / "superlink.key")),
            *("--authority", str(self.keys / "ca.crt")),
        )
        self._wait_for("gate", self.gate_port)

    def _wait_for(self, name: str, port: int) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.5)
        raise TimeoutError(self.log(name))

    def __exit__(self, *_: object) -> None:
        for name in list(self.nodes):
            self.stop(name)
        self._stack.close()

    def config(self, **changes: object) -> DeploymentConfig:
        return DeploymentConfig(
            address=self.address,
            root_certificates=str(self.keys / "ca.crt"),
            app_folder=str(ROOT / "deploy" / "flower-app"),
            wait_for_nodes_s=START_S,
        ).model_copy(update=changes)

    def make_key(self, name: str, *, register: bool = True) -> None:
        run("deploy/make_node_key.sh", str(self.keys), name)
        if register:
            done = self.flwr("supernode", "register", str(self.keys / f"{name}.pub"))
            assert done.returncode == 0, done.stderr

    def flwr(self, *arguments: str, address: str | None = None) -> subprocess.CompletedProcess[str]:
        """Return what Flower's command line says to the SuperLink at ``address``; ours if None."""
        home = self.folder / ("flwr" if address is None else "stranger")
        # Writes the connection that `flwr` reads.
        SuperLink(self.config(address=address or self.address), home)
        return subprocess.run(
            [BIN / "flwr", *arguments, "phoenix"],
            env=os.environ | {"FLWR_HOME": str(home), "FLWR_TELEMETRY_ENABLED": "0"},
            check=False,
            capture_output=True,
            text=True,
        )

    def start_node(
        self,
        name: str,
        images: np.ndarray | ImageSet,
        client: int,
        authority: Path | None = None,
        **config: object,
    ) -> None:
        data = self.folder / name / "images.parquet"
        data.parent.mkdir(exist_ok=True)
        write_images(images if isinstance(images, ImageSet) else ImageSet(images), data)
        given = {
            "client-id": client,
            "data": f'"{data}"',
            "state-folder": f'"{self.folder / name / "state"}"',
            "device": '"cpu"',
            "threads": 1,
        } | {key.replace("_", "-"): value for key, value in config.items()}
        self.start(
            name,
            "flower-supernode",
            *("--root-certificates", str(authority or self.keys / "ca.crt")),
            *("--superlink", self.gate, "--port", str(free_port())),
            *("--auth-supernode-private-key", str(self.keys / name)),
            *("--node-config", " ".join(f"{k}={v}" for k, v in given.items())),
        )

    def restart_node(self, name: str, *arguments: Any, **config: object) -> None:
        """Start a node anew until it stays, as the unit file does.

        The SuperLink refuses one whose former self it has not missed yet, for about a minute.
        """
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            before = len(self.log(name))
            self.start_node(name, *arguments, **config)
            while self.nodes[name].poll() is None:
                if "SuperNode ID" in self.log(name)[before:]:
                    return
                time.sleep(0.5)
            time.sleep(5.0)
        raise TimeoutError(self.log(name))

    def start(self, name: str, program: str, *arguments: str) -> None:
        log = self._stack.enter_context((self.folder / f"{name}.log").open("ab"))
        path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": path.rstrip(os.pathsep),
            "FLWR_HOME": str(self.folder / f"{name}-home"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "OMP_NUM_THREADS": "1",
        }
        # Each message to a node starts a process: without bytecode it compiles PyTorch's sources.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self.nodes[name] = subprocess.Popen(
            [str(BIN / program), *arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )

    def stop(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        """End one process and its children."""
        process = self.nodes.pop(name)
        try:
            os.killpg(process.pid, how)
            process.wait(20.0)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        except ProcessLookupError:
            process.wait()

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")


def run(script: str, *arguments: str) -> None:
    subprocess.run([str(ROOT / script), *arguments], check=True, capture_output=True)
