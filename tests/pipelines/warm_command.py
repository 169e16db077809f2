"""`kedro run` in a process that has imported the libraries already: they take most of its seconds.

One server per test process imports them once and forks itself for each command. What runs in the
fork is the command as a user gives it, with its own folder, environment and output.
"""

import atexit
import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

# None of ours: a command takes the package from its own project's folder.
_LIBRARIES = (
    "diffusers.models.unets.unet_2d",
    "flwr.serverapp",
    "kedro.framework.cli.project",
    "kedro.framework.session",
    "matplotlib.pyplot",
    "mlflow.tracking.client",
    "pandas",
    "rich.progress",
    "scipy.stats",
    "sklearn.cluster",
    "torch.func",
)


def run_warm(
    project: Path, arguments: list[str], environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Return how ``python -m phoenix_pipeline`` with ``arguments`` ends in ``project``."""
    server = _server()
    assert server.stdin and server.stdout
    with tempfile.TemporaryDirectory() as folder:
        texts = [Path(folder, name) for name in ("out", "err")]
        order = [str(project), arguments, environment, [str(path) for path in texts]]
        server.stdin.write(json.dumps(order) + "\n")
        server.stdin.flush()
        status = int(server.stdout.readline())
        said, errors = (path.read_text(encoding="utf-8") for path in texts)
    return subprocess.CompletedProcess(arguments, status, said, errors)


@cache
def _server() -> "subprocess.Popen[str]":
    server = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(server.kill)
    return server


def _serve() -> None:
    for name in _LIBRARIES:
        __import__(name)
    for line in sys.stdin:
        project, arguments, environment, (out, err) = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(project, arguments, environment, out, err)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(status, flush=True)  # noqa: T201 - the answer


def _become(
    project: str, arguments: list[str], environment: dict[str, str], out: str, err: str
) -> None:
    """Run the command in this process, and end."""
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(project)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [part for part in environment.get("PYTHONPATH", "").split(os.pathsep) if part]
    sys.argv = ["phoenix_pipeline", *arguments]
    from phoenix_pipeline.__main__ import main

    main()


if __name__ == "__main__":
    _serve()
