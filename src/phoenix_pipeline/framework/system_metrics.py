"""CPU, memory, disk, network and GPU of this machine over time, in a run of MLflow."""

from collections.abc import Callable
from importlib.util import find_spec

from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.extras import how_to_install

EXTRA = "system-metrics"


def watch_machine(tracking_uri: str, run_id: str) -> Callable[[], None]:
    """Log to the run every 10 s, from a thread; return what ends that.

    MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL sets other seconds.
    Raises SettingsError: psutil is not installed.
    """
    if find_spec("psutil") is None:
        raise SettingsError(
            f"mlflow.yml has system_metrics: true, which needs psutil, the extra {EXTRA} "
            f"({how_to_install(EXTRA)}); install it, or set system_metrics: false"
        )
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(run_id, tracking_uri=tracking_uri)
    monitor.start()
    return monitor.finish
