"""Measure what replies cost a SuperLink that keeps them until the ServerApp fetches them.

A real SuperLink and one SuperNode on loopback, and an app of this file's own, without any model:
the node answers ``--replies`` messages, each by one array of ``--megabytes``; only when all have
come they are fetched, one by one. Resident memory is read at each step. Usage::

    python benchmarks/superlink_memory.py --megabytes 4.4 --replies 20
    python benchmarks/superlink_memory.py --megabytes 4.4 --replies 20 --database
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

LIMIT_S = 480.0
PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "superlink-memory"
version = "0.1.0"
description = "Replies of a known size."
license = "Apache-2.0"
dependencies = []
[tool.flwr.app]
publisher = "phoenix"
[tool.flwr.app.components]
serverapp = "superlink_app:server"
clientapp = "superlink_app:client"
[tool.flwr.app.config]
folder = ""
"""
APP = """
import json, time
from pathlib import Path
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

client = ClientApp()
server = ServerApp()


@client.train()
def reply(message, context):
    config = message.content["config"]
    values = np.random.default_rng(int(config["number"])).random(int(config["bytes"]) // 8)
    arrays = ArrayRecord({"a": Array(values)})
    return Message(RecordDict({"arrays": arrays}), reply_to=message)


def resident(pid, name="VmRSS"):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024


@server.main()
def main(grid, context):
    folder = Path(context.run_config["folder"])
    asked = json.loads((folder / "asked.json").read_text())
    pid = asked["pid"]
    while not (nodes := list(grid.get_node_ids())):
        time.sleep(0.2)
    found = {"before": resident(pid)}
    configs = [
        ConfigRecord({"bytes": asked["bytes"], "number": number})
        for number in range(asked["replies"])
    ]
    sent = list(
        grid.push_messages([Message(RecordDict({"config": c}), nodes[0], "train") for c in configs])
    )
    while not (folder / "go").exists():
        time.sleep(0.2)
    found["all_kept"] = resident(pid)
    for message_id in sent:
        while not list(grid.pull_messages([message_id])):
            time.sleep(0.2)
    found |= {"all_fetched": resident(pid), "peak": resident(pid, "VmHWM")}
    (folder / "found.partial").write_text(json.dumps(found))
    (folder / "found.partial").rename(folder / "found.json")
"""


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=4.4)
    parser.add_argument("--replies", type=int, default=20)
    parser.add_argument("--database", action="store_true", help="a SQLite file, not memory")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), asked.megabytes, asked.replies, asked.database)))


def measure(folder: Path, megabytes: float, replies: int, database: bool) -> dict[str, float]:
    """Return resident megabytes of the SuperLink before, with all replies, and after them."""
    from phoenix_pipeline.config import DeploymentConfig
    from phoenix_pipeline.federated.engines.superlink import SuperLink

    app, address = folder / "app", f"127.0.0.1:{free_port()}"
    app.mkdir()
    (app / "pyproject.toml").write_text(PROJECT)
    (app / "superlink_app.py").write_text(APP)
    file = ("--database", str(folder / "superlink.db")) if database else ()
    kept = ("--insecure", "--disable-runtime-dependency-installation")
    superlink = start(folder, "superlink", *kept, "--port", address.rpartition(":")[2], *file)
    node = None
    try:
        connection = SuperLink(DeploymentConfig(address=address, app_folder=str(app)), folder)
        wait_for(lambda: connects(address))
        node = start(
            folder, "supernode", "--insecure", "--superlink", address, "--port", str(free_port())
        )
        told = {"pid": superlink.pid, "replies": replies, "bytes": int(1e6 * megabytes)}
        (folder / "asked.json").write_text(json.dumps(told))
        connection.submit({"folder": str(folder)})
        log = folder / "supernode.log"
        wait_for(lambda: log.read_text(errors="replace").count("Sent successfully") == replies)
        (folder / "go").touch()
        wait_for((folder / "found.json").exists)
    finally:
        for process in (node, superlink):
            if process:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    found = json.loads((folder / "found.json").read_text())
    sizes = {f"{name}_mb": round(value / 1e6) for name, value in found.items()}
    grown = (found["all_kept"] - found["before"]) / 1e6 / replies
    disk = sum(part.stat().st_size for part in folder.glob("superlink.db*")) / 1e6
    return {
        "megabytes": megabytes,
        "replies": replies,
        **sizes,
        "grown_mb_per_reply": round(grown, 2),
        "database_mb": round(disk),
    }


def start(folder: Path, name: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start one of Flower's programs in a process group of its own, with a log in ``folder``."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(folder / f"{name}-home"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [str(Path(sys.executable).parent / f"flower-{name}"), *arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until ``condition`` holds; raises TimeoutError after :data:`LIMIT_S`."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing came within {LIMIT_S:.0f} s")
        time.sleep(0.5)


def connects(address: str) -> bool:
    """Return whether somebody listens at ``address``."""
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def free_port() -> int:
    """Return a port of this machine that nobody listens at."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


if __name__ == "__main__":
    main()
