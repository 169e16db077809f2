"""What a site says of its failures: a code and a sentence from a fixed list, never its own texts.

Texts of errors name paths, files and values. They stay in the site's own log.
"""

import logging
from collections.abc import Callable

import torch
from flwr.app import Context, Error, Message
from flwr.common.constant import ErrorCode
from pydantic import ValidationError

from phoenix_pipeline.errors import (
    CheckpointError,
    DataError,
    FederationError,
    SettingsError,
    StorageError,
    TrainingError,
)

logger = logging.getLogger(__name__)

SENTENCES = {
    "images-unreadable": "its images could not be read",
    "state-unreadable": "its state of earlier rounds could not be read",
    "state-unwritable": "its state could not be written",
    "training-diverged": "its training gave values that are not finite",
    "settings-unusable": "its configuration, or the settings of the run, cannot be used",
    "message-unusable": "the message is not one that it acts on",
    "out-of-memory": "its memory was not enough",
    "fault": "its program failed",
    "not-released": "it does not release its personal layers",
    "noise-too-small": "the run offers less noise than it accepts",
    "noise-not-secret": "the run's noise follows a seed, and it accepts secret noise only",
    "epsilon-spent": "the round would spend more epsilon than it accepts",
    "layers-not-kept": "the run asks for layers that it keeps to itself",
    "too-much-work": "the round asks for more work than it accepts",
    "too-much-memory": "the run would take more memory than it gives",
}
_CODES: tuple[tuple[type[BaseException], str], ...] = (
    (DataError, "images-unreadable"),
    (CheckpointError, "state-unreadable"),
    (StorageError, "state-unwritable"),
    (TrainingError, "training-diverged"),
    (SettingsError, "settings-unusable"),
    (ValidationError, "settings-unusable"),
    (FederationError, "message-unusable"),
    (MemoryError, "out-of-memory"),
    (torch.OutOfMemoryError, "out-of-memory"),
)


class SiteRefusal(FederationError):
    """A site's own configuration does not allow what the server asks; ``code`` says what."""

    def __init__(self, code: str, details: str) -> None:
        super().__init__(f"{SENTENCES[code]}: {details}")
        self.code = code


def answer_with_code(
    message: Message, context: Context, call_next: Callable[[Message, Context], Message]
) -> Message:
    """Reply with a code and its sentence where this site cannot, or will not, do what is asked."""
    try:
        return call_next(message, context)
    except Exception as error:
        code = code_of(error)
        logger.exception("%s: %s", code, SENTENCES[code])
        reason = f"{code}: {SENTENCES[code]}; details are in the site's own log"
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)


def code_of(error: Exception) -> str:
    """Return the code of an error; whatever the list does not name is a ``fault``."""
    if isinstance(error, SiteRefusal):
        return error.code
    return next((code for kind, code in _CODES if isinstance(error, kind)), "fault")
