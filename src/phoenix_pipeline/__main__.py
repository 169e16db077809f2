"""``python -m phoenix_pipeline``: the same as ``kedro run`` in the project's folder."""

from pathlib import Path

from kedro.framework.startup import bootstrap_project
from kedro.utils import find_kedro_project


def main() -> None:
    """Run the pipelines that the command line names."""
    bootstrap_project((find_kedro_project(Path.cwd()) or Path.cwd()).resolve())
    from phoenix_pipeline.cli import run

    run.main(prog_name="python -m phoenix_pipeline")


if __name__ == "__main__":
    main()
