"""Write ``src/phoenix_pipeline/config/defaults.yml`` from ``conf/base``.

The installed package has no ``conf``; its Python interface reads this file.
Usage: ``python scripts/make_default_settings.py [file]``; run it after every change of conf/base.
"""

import sys
from pathlib import Path
from typing import Any

import yaml

from phoenix_pipeline.config import ARM_GROUPS, SHARED_GROUPS, deep_merge

PROJECT = Path(__file__).parents[1]
DEFAULT_FILE = PROJECT / "src" / "phoenix_pipeline" / "config" / "defaults.yml"
CONF = PROJECT / "conf" / "base"
HEAD = "# Made by `python scripts/make_default_settings.py` from conf/base; change that instead.\n"


def read_settings() -> dict[str, Any]:
    """Return the groups and arms of all parameter files; paths are the project's own affair."""
    merged: dict[str, Any] = {}
    for path in sorted(CONF.glob("parameters*.yml")):
        merged = deep_merge(merged, yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    return {name: merged[name] for name in (*SHARED_GROUPS, *ARM_GROUPS, "arms") if name in merged}


def main(target: Path = DEFAULT_FILE) -> None:
    """Write the file."""
    text = yaml.safe_dump(read_settings(), sort_keys=False, default_flow_style=False)
    target.write_text(HEAD + text, encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
