"""Models by their names on the Hugging Face hub: from its local cache, or by a download if allowed.

Commands are offline (``offline.py``). A download is allowed by a setting alone, and is made by a
process of its own: the hub's library reads once, at its import, whether it may use the network.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from phoenix_pipeline.config import ModelConfig
from phoenix_pipeline.errors import SettingsError

_NAME = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
# Weights and configurations; nothing that would be unpickled or run.
_FILES = ("*.safetensors", "*.json")
_DOWNLOAD = (
    "import sys; from huggingface_hub import snapshot_download; "
    "snapshot_download(sys.argv[1], revision=sys.argv[2] or None, allow_patterns=sys.argv[3:])"
)


def find_folder(given: str, setting: str, *, allow_download: bool = False) -> Path:
    """Return the folder ``given``, a path or a name on the hub; raises SettingsError."""
    path = Path(given).expanduser()
    name = _NAME.fullmatch(given)
    if path.exists() or name is None:
        return path
    repository, revision = name["repository"], name["revision"]
    reason = _download(repository, revision) if allow_download else ""
    if (folder := _in_cache(repository, revision)) is not None:
        return folder
    if not allow_download:
        reason = "set model.allow_download: true to download it, or name a folder"
    raise SettingsError(
        f"{setting} is {given}, which is no folder here and not in the hub's local cache: {reason}"
    )


def _in_cache(repository: str, revision: str | None) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                repository, revision=revision, allow_patterns=list(_FILES), local_files_only=True
            )
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError):
        return None


def _download(repository: str, revision: str | None) -> str:
    """Bring the model into the cache; return why that failed, or ``""``."""
    ended = subprocess.run(
        [sys.executable, "-c", _DOWNLOAD, repository, revision or "", *_FILES],
        env={**os.environ, "HF_HUB_OFFLINE": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode == 0:
        return ""
    last = (ended.stderr.strip().splitlines() or ["no reason was given"])[-1]
    return f"the download failed ({last.strip()}); name a folder, or a model that there is"


def start_folder(model: ModelConfig) -> Path | None:
    """Return the folder of ``model.start_from``, if any; raises SettingsError if not cached."""
    if model.start_from is None:
        return None
    return find_folder(model.start_from, "model.start_from", allow_download=model.allow_download)
