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
    model = data / "06_models" / arm
    return export_samples(
        model,
        target,
        num_images,
        seed,
        SamplingConfig.model_validate(parameters[arm]["sampling"]),
        device=RunConfig.model_validate(parameters["run"]).device,
        layout=cast(Layout, layout),
        client_id=client_id,
        scores=_scores(data / "08_reporting" / arm / "metrics.json", model),
    )


def _scores(metrics_file: Path, model: Path) -> dict[str, float] | None:
    """Return the arm's scores; None where it has none, or has those of an earlier model."""
    from phoenix_pipeline.families.model_folder import read_metadata

    if not metrics_file.is_file():
        return None
    metrics = read_json(metrics_file)
    current = read_metadata(model)["weights_digest"]
    scored = metrics["conditions"].get("weights_digest")
    return dict(metrics["scores"]) if scored == current else None
