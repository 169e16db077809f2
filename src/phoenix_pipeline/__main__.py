"""``python -m phoenix_pipeline``: ``kedro run``, in the project or from an installed wheel."""

import logging
from pathlib import Path

from phoenix_pipeline.offline import stay_offline


def main() -> None:
    """Run the pipelines that the command line names.

    Outside of this project's folder ``--conf-source`` names the configuration, and paths are
    relative to the working directory.
    """
    stay_offline()
    # Kedro announces a logging configuration that the command replaces.
    logging.disable(logging.INFO)
    from kedro.framework.project import configure_project

    logging.disable(logging.NOTSET)
    from kedro.framework.startup import bootstrap_project
    from kedro.utils import find_kedro_project

    project = find_kedro_project(Path.cwd())
    if not project or bootstrap_project(project.resolve()).package_name != __package__:
        configure_project(str(__package__))
    from phoenix_pipeline.cli import run

    run.main(prog_name="python -m phoenix_pipeline")


if __name__ == "__main__":
    main()
