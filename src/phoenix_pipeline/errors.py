"""The project's exceptions. Each message says what happened, what was got and what is allowed.

The command line prints a :class:`PhoenixError` as one line, without a traceback, and exits with
status 2.
"""


class PhoenixError(Exception):
    """Base of every error that a user, a file or a client can cause."""


class SettingsError(PhoenixError):
    """A parameter is unknown, out of range, or impossible for the data at hand."""


class DataError(PhoenixError):
    """An image file, folder or table is missing, broken or not what was declared."""


class StorageError(PhoenixError):
    """A file could not be written in full; nothing is left under its final name."""


class CheckpointError(PhoenixError):
    """A stored artifact is truncated, tampered with, or was made by other settings."""


class TrainingError(PhoenixError):
    """Training produced a non-finite loss or weight."""


class FederationError(PhoenixError):
    """Too few usable replies are left to go on."""


class BusyError(PhoenixError):
    """Another process works on the same files; two at once would spoil them for each other."""
