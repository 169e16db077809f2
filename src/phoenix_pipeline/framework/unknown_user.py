"""A user whom the system does not know, as in a container with a random uid and no HOME.

MLflow, Matplotlib and PyTorch ask for the home folder or the user's name, and fail without one.
"""

import atexit
import getpass
import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "phoenix-home-"


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
