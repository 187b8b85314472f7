"""Every error multiseg raises on purpose.

One tree, so that ``except multiseg.MultisegError`` catches them all. A message names the file, key or value at fault
and what to do about it. The command line turns any of them into one line and exit status 2.
"""

from __future__ import annotations


class MultisegError(Exception):
    """Base of all errors that multiseg raises on purpose."""


class SettingsError(MultisegError, ValueError):
    """A setting of a job or an argument of a call is wrong."""


class ImageError(MultisegError, ValueError):
    """An image file is missing, unreadable, or of a kind that is not supported."""


class DatasetError(MultisegError, ValueError):
    """A dataset, or what it is to be made of, is missing or wrong."""


class ModelError(MultisegError, ValueError):
    """A network file is wrong, or the network cannot take what it is given."""


class RunError(MultisegError, ValueError):
    """A run folder is missing, incomplete, or in use."""


class TrainingError(MultisegError, RuntimeError):
    """Training cannot go on, e.g. because the loss is not a number any more."""


class TrainingStopped(MultisegError, KeyboardInterrupt):
    """Training was asked to stop (Ctrl-C, SIGTERM) and left a snapshot to go on from.

    ``signal`` is the number of the signal that asked, or None.
    """

    def __init__(self, message: str, signal: int | None = None) -> None:
        super().__init__(message)
        self.signal = signal


class BackendUnavailable(MultisegError, ImportError):
    """A backend is unknown, or its framework cannot be loaded."""


class WorkerError(MultisegError, RuntimeError):
    """A backend's process died or could not be started."""


class ClusterError(MultisegError, RuntimeError):
    """A cluster cannot be reached, or has nobody who can do what is asked."""


class InstallError(MultisegError, RuntimeError):
    """A framework could not be built or installed."""
