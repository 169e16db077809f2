"""``kedro export-samples`` and ``assemble``: an arm's folders and settings from ``conf``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from phoenix_pipeline.arms.arm_model import write_model_card
from phoenix_pipeline.config import RunConfig, SamplingConfig
from phoenix_pipeline.config.settings_errors import hint
from phoenix_pipeline.errors import SettingsError
from phoenix_pipeline.families.model_folder import assemble_client
from phoenix_pipeline.framework.project import open_config
from phoenix_pipeline.metrics.arm_metrics import read_metrics


def check_arm_name(arm: str, arms: Sequence[str]) -> None:
    """Raise SettingsError for an arm that is not in ``conf``."""
    if arm not in arms:
        raise SettingsError(f"there is no arm {arm}{hint(arm, arms)}")


def assemble_arm(
    project: Path, env: str | None, data_root: str | None, arm: str, client_id: int, target: Path
) -> None:
    """Write the complete model of one client of ``arm`` to ``target``.

    Raises SettingsError: there is no such arm.
    Raises CheckpointError: the arm is not trained, or has no such client.
    """
    loader = open_config(project, env, {"data_root": data_root})
    check_arm_name(arm, loader.arms)
    assemble_client(project / loader.data_root / "06_models" / arm, client_id, target)
    write_model_card(target)


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

    Raises SettingsError: a setting is wrong, or the target exists.
    Raises CheckpointError: the arm is not trained, or has no such client.
    """
    from phoenix_pipeline.pipelines.sampling.export import Layout, export_samples

    loader = open_config(project, env, runtime)
    check_arm_name(arm, loader.arms)
    parameters = loader["parameters"]
    data = project / loader.data_root
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
    from phoenix_pipeline.families.model_folder import read_description

    if not metrics_file.is_file():
        return None
    metrics = read_metrics(metrics_file)
    current = read_description(model)["weights_digest"]
    scored = metrics["conditions"]["weights_digest"]
    return metrics["scores"] if scored == current else None
