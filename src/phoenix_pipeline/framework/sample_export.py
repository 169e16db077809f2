"""``kedro export-samples``: an arm's folders and settings from the configuration."""

from pathlib import Path
from typing import Any, cast

from kedro.framework.project import settings as kedro_settings

from phoenix_pipeline.checkpoints import read_json
from phoenix_pipeline.config import RunConfig, SamplingConfig
from phoenix_pipeline.framework.config_loader import PhoenixConfigLoader


def export_arm(
    project: Path,
    env: str | None,
    runtime: dict[str, Any],
    arm: str,
    target: Path,
    num_images: int,
    seed: int,
    layout: str,
    client_id: int | None,
) -> dict[str, Any]:
    """Export images of ``arm`` with its settings for sampling; return the data card.

    Raises:
        SettingsError: a setting is wrong, or the target exists.
        CheckpointError: the arm is not trained, or has no such client.
    """
    from phoenix_pipeline.pipelines.sampling.export import Layout, export_samples

    loader = PhoenixConfigLoader(
        project / "conf", env, runtime, **kedro_settings.CONFIG_LOADER_ARGS
    )
    parameters = loader["parameters"]
    data = project / runtime.get("data_root", loader["globals"]["data_root"])
    metrics = data / "08_reporting" / arm / "metrics.json"
    return export_samples(
        data / "06_models" / arm,
        target,
        num_images,
        seed,
        SamplingConfig.model_validate(parameters[arm]["sampling"]),
        device=RunConfig.model_validate(parameters["run"]).device,
        layout=cast(Layout, layout),
        client_id=client_id,
        scores=read_json(metrics)["scores"] if metrics.is_file() else None,
    )
