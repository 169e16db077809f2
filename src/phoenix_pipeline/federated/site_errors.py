"""What a site says of its failures: a code and a sentence from a fixed list, never its own texts.

Texts of errors name paths, files and values. They stay in the site's own log. Flower itself answers
for a site whose program did not run, with texts of its own; the coordinator reads none of them.
"""

import logging
from collections.abc import Callable

from flwr.app import Context, Error, Message
from flwr.common.constant import ErrorCode
from pydantic import ValidationError

from phoenix_pipeline.errors import (
    BusyError,
    CheckpointError,
    DataError,
    FederationError,
    SettingsError,
    StorageError,
    TrainingError,
)
from phoenix_pipeline.hardware import out_of_memory

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
    "no-base": "the run trains adapters, and it was given no base-model",
    "other-base": "its base model has other weights than the server's",
    "no-autoencoder": "the run learns latents, and it was given no autoencoder",
    "other-autoencoder": "its autoencoder has other weights than the server's",
    "too-much-work": "the round asks for more work than it accepts",
    "too-much-memory": "the run would take more memory than it gives",
}
# Flower's own errors, of a site or of the SuperLink in its place.
_FLOWERS = {
    ErrorCode.LOAD_CLIENT_APP_EXCEPTION: "its program could not be loaded",
    ErrorCode.CLIENT_APP_RAISED_EXCEPTION: "Flower failed at the site before its program ran",
    ErrorCode.MESSAGE_UNAVAILABLE: "the message had expired",
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE: "its reply did not arrive whole or in time",
    ErrorCode.NODE_UNAVAILABLE: "its node is not connected",
    ErrorCode.INVALID_FAB: "it does not trust the app that was submitted",
    ErrorCode.CLIENT_APP_CRASHED: "its program ended without an answer",
}
_CODES: tuple[tuple[type[BaseException], str], ...] = (
    (DataError, "images-unreadable"),
    (CheckpointError, "state-unreadable"),
    (StorageError, "state-unwritable"),
    (BusyError, "state-unwritable"),
    (TrainingError, "training-diverged"),
    (SettingsError, "settings-unusable"),
    (ValidationError, "settings-unusable"),
    (FederationError, "message-unusable"),
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
    except Exception as raised:
        code = code_of(raised)
        logger.exception("%s: %s", code, SENTENCES[code])
        error = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, _reason(code))
        return Message(error, reply_to=message)


def reason_of(error: Error) -> str:
    """Return the reason for an error that came from a site, in words of this module alone."""
    code, _, _ = (error.reason or "").partition(":")
    if code in SENTENCES:
        return _reason(code)
    meaning = _FLOWERS.get(error.code, "no error that this program knows")
    return f"{meaning} (Flower's error {error.code})"


def code_of(error: Exception) -> str:
    """Return the code of an error; whatever the list does not name is a ``fault``."""
    if isinstance(error, SiteRefusal):
        return error.code
    if out_of_memory(error):
        return "out-of-memory"
    return next((code for kind, code in _CODES if isinstance(error, kind)), "fault")


def _reason(code: str) -> str:
    return f"{code}: {SENTENCES[code]}; details are in the site's own log"
