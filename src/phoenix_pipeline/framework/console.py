"""How a command logs: as ``conf/logging.yml`` says, wherever it was started; rich on a terminal."""

import logging
import os
import sys
import tarfile
from pathlib import Path

import yaml
from kedro.framework.project import configure_logging, settings

from phoenix_pipeline.framework.project import project_folder

_FILE = "logging.yml"


def use_console(conf_source: str | None, verbose: bool) -> None:
    """Log through rich on a terminal, below its progress bars; plain lines elsewhere.

    Kedro itself looks for ``conf/logging.yml`` in the working directory only.
    """
    text = _logging_file(conf_source or str(project_folder() / settings.CONF_SOURCE))
    if text and not os.environ.get("KEDRO_LOGGING_CONFIG"):
        configure_logging(yaml.safe_load(text))
    root = logging.getLogger()
    logging.captureWarnings(True)
    if verbose:
        logging.getLogger("kedro").setLevel(logging.INFO)
        logging.getLogger("py.warnings").setLevel(logging.WARNING)
    if sys.stderr.isatty():
        from rich.logging import RichHandler

        root.handlers = [RichHandler(show_path=False, log_time_format="%X")]


def _logging_file(conf_source: str) -> str | None:
    """Return the file's text, from a folder or from the archive that ``kedro package`` makes."""
    path = Path(conf_source)
    if path.is_dir():
        file = path / _FILE
        return file.read_text(encoding="utf-8") if file.is_file() else None
    if path.is_file() and tarfile.is_tarfile(path):
        with tarfile.open(path) as archive:
            for member in archive:
                content = archive.extractfile(member) if Path(member.name).name == _FILE else None
                if content:
                    return content.read().decode("utf-8")
    return None
