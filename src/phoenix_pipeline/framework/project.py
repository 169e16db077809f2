"""The project that a command works in, and its configuration outside of a Kedro session."""

import os
from pathlib import Path
from typing import Any

from kedro.framework.project import settings
from kedro.utils import find_kedro_project

from phoenix_pipeline.framework.config_loader import PhoenixConfigLoader


def project_folder() -> Path:
    """Return the Kedro project around the working directory, or that directory."""
    return Path(find_kedro_project(Path.cwd()) or Path.cwd()).resolve()


def open_config(
    project: Path,
    env: str | None = None,
    params: dict[str, Any] | None = None,
    conf_source: str | Path | None = None,
) -> PhoenixConfigLoader:
    """Return the configuration that a Kedro session with these options has.

    Raises SettingsError for an unknown environment and for a path that cannot be.
    """
    return PhoenixConfigLoader(
        conf_source or project / settings.CONF_SOURCE,
        env or os.environ.get("KEDRO_ENV"),
        params,
        **settings.CONFIG_LOADER_ARGS,
    )
