"""How to install what only some settings need: the extras of ``pyproject.toml``."""

from importlib.metadata import version
from pathlib import Path

_CLONE = Path(__file__).parents[2]


def how_to_install(extra: str) -> str:
    """Return the command that installs ``extra``; no package index has this project.

    In a clone it is for the environment that ``make`` has made, started in the clone's folder.
    """
    if (_CLONE / "pyproject.toml").is_file():
        return f"`.venv/bin/uv pip install -e '.[{extra}]'` in the project's folder"
    wheel = f"phoenix_pipeline-{version('phoenix-pipeline')}-py3-none-any.whl"
    return f"`pip install '{wheel}[{extra}]'` with the wheel's file"
