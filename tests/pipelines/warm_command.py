"""`kedro run` in a process that has imported the libraries already: they take most of its seconds.

One server per test process imports them once and forks itself for each command. What runs in the
fork is the command as a user gives it, with its own folder, environment and output.
"""

import atexit
import gc
import json
import os
import runpy
import subprocess
import sys
import tempfile
import threading
import traceback
from functools import cache
from pathlib import Path

# None of ours: a command takes the package from its own project's folder.
_LIBRARIES = (
    "IPython",
    "PIL.PngImagePlugin",
    "alembic.command",
    "diffusers.models.unets.unet_2d",
    "diffusers.pipelines.ddpm.pipeline_ddpm",
    "flwr.serverapp",
    "fontTools.ttLib",
    "git",
    "kedro.config",
    "kedro.framework.cli.project",
    "kedro.framework.session",
    "kedro.validation",
    "kedro_datasets.json.json_dataset",
    "kedro_datasets.matplotlib.matplotlib_dataset",
    "kedro_datasets.pandas.parquet_dataset",
    "kedro_datasets.pillow.image_dataset",
    "matplotlib.backends.backend_pdf",
    "matplotlib.backends.backend_svg",
    "matplotlib.pyplot",
    "mlflow.pyfunc",
    "mlflow.store.tracking.sqlalchemy_workspace_store",
    "mlflow.tracking.client",
    "pandas",
    "pyarrow.parquet",
    "rich.progress",
    "scipy.stats",
    "sklearn.cluster",
    "torch.func",
)


def run_warm(
    project: Path, arguments: list[str], environment: dict[str, str], module: str
) -> subprocess.CompletedProcess[str]:
    """Return how ``python -m <module>`` with ``arguments`` ends in ``project``."""
    server = _server()
    assert server.stdin and server.stdout
    with tempfile.TemporaryDirectory() as folder:
        texts = [Path(folder, name) for name in ("out", "err")]
        order = [str(project), module, arguments, environment, list(map(str, texts))]
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
    # A fork that looked through what was here before would copy it.
    gc.freeze()
    for line in sys.stdin:
        project, module, arguments, environment, (out, err) = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(project, module, arguments, environment, out, err)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(status, flush=True)  # noqa: T201 - the answer


def _become(
    project: str,
    module: str,
    arguments: list[str],
    environment: dict[str, str],
    out: str,
    err: str,
) -> None:
    """Run the command in this process, and end."""
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(project)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [part for part in environment.get("PYTHONPATH", "").split(os.pathsep) if part]
    sys.argv = [module, *arguments]
    status: object = None
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        status = ended.code
    except BaseException:
        traceback.print_exc()
        status = 1
    _end(status)


def _end(status: object) -> None:
    """End as an interpreter does, but do not tear down the libraries, which takes seconds.

    That nothing is said in these seconds is seen by the tests of a process of its own.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))


if __name__ == "__main__":
    _serve()
