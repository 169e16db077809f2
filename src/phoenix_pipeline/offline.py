"""What keeps the libraries of this project from asking anything of a network, or telling it.

Importing the package changes nothing: its host may want the hubs. The command line and the engines'
own processes call :func:`stay_offline` before they import these libraries.
"""

import os

VARIABLES = {
    "DO_NOT_TRACK": "1",
    "KEDRO_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Its warnings are about networks that this project does not use.
    "DIFFUSERS_VERBOSITY": "error",
}


def stay_offline() -> None:
    """Set :data:`VARIABLES` in this process's environment; a value that is there already stays."""
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
