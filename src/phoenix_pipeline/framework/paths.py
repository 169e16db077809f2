"""The paths that a user may set: where raw images are, and the folder of all that is computed.

The user may be one whom the system does not know, as in a container with a random uid and no HOME.
MLflow, Matplotlib and PyTorch ask for the home folder or the user's name, and fail without one.
"""

import atexit
import getpass
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from phoenix_pipeline.errors import SettingsError

DATA_ROOT = "data_root"
# Where the label judge and the reference statistics are kept, if not in the data root.
REFERENCES_ROOT = "references_root"
PATHS = ("train_images", "test_images", DATA_ROOT, REFERENCES_ROOT)
DEFAULT_DATA_ROOT = "data"
# Below conf: the files of sweeps; below the data root: what they made.
SWEEPS = "sweeps"
_PREFIX = "phoenix-home-"


def local_path(name: str, value: Any, origin: str = "") -> str:
    """Return the setting ``name`` as a path of this machine: text, with ``~`` expanded.

    A folder may be called ``2024``, which YAML reads as a number. Raises SettingsError for an
    address such as ``s3://...``, and for a home folder that is not known.
    """
    if isinstance(value, list | dict):
        raise SettingsError(f"{name}: got {value!r}, must be one path{origin}")
    text = str(value)
    if "://" in text:
        raise SettingsError(
            f"{name}: got {text}, must be a path of this machine{origin}; mount the storage, or "
            "copy its files to a local folder, and name that"
        )
    expanded = os.path.expanduser(text)
    if expanded.startswith("~") or (text.startswith("~") and not home_is_known()):
        user = text.partition("/")[0]
        raise SettingsError(
            f"{name}: got {text}, but the home folder of {user} is not known; "
            f"write the whole path, or ./{text} for a folder of that name{origin}"
        )
    return expanded


def local_paths(settings: dict[str, Any], origin: str = "") -> dict[str, Any]:
    """Return ``settings`` with every path that they name as :func:`local_path`; null stays null."""
    named = {name: settings[name] for name in PATHS if settings.get(name) is not None}
    return settings | {name: local_path(name, value, origin) for name, value in named.items()}


def home_is_known() -> bool:
    """Return whether ``~`` stands for a folder that outlives this process."""
    home = os.path.expanduser("~")
    return home != "~" and not Path(home).name.startswith(_PREFIX)


def ensure_user() -> None:
    """Give this process a passing home folder and a name where it has none."""
    if os.path.expanduser("~") == "~":
        os.environ["HOME"] = tempfile.mkdtemp(prefix=_PREFIX)
        atexit.register(shutil.rmtree, os.environ["HOME"], ignore_errors=True)
    try:
        getpass.getuser()
    except (KeyError, ImportError, OSError):
        os.environ["USER"] = f"uid-{os.getuid()}"
