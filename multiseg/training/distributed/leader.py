"""Rank 0 of a training in several processes: it sends the other ranks the position to start from, and how training ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from multiseg.dataset import Dataset
from multiseg.errors import MultisegError, TrainingStopped, WorkerError
from multiseg.model_files import copies
from multiseg.settings.loaded import LoadedSettings
from multiseg.settings.resolved import OF_MACHINE
from multiseg.training.ranks import Ranks
from multiseg.worker.client import Worker

# settings that may differ between ranks: the machine's, those that only rank 0 reads, and those that it sends
FREE = (*OF_MACHINE, "weights", "solver_state", "seed")


def common(settings: LoadedSettings, dataset: Dataset) -> dict[str, Any]:
    """Return the values that must be equal on all ranks, by the names that messages use."""
    model = settings.model
    values: dict[str, Any] = {
        **{key: value for key, value in settings.to_json().items() if key not in FREE},
        "content of the model file": copies.fingerprint(model),
        "content of the dataset": dataset.content_hash,
    }
    plain: dict[str, Any] = json.loads(json.dumps(values))  # as the other ranks receive it: tuples become lists
    return plain


class Leader:
    """Sends messages to the other ranks; does nothing if there is only one rank."""

    def __init__(self, ranks: Ranks, worker: Worker) -> None:
        self.ranks, self.worker = ranks, worker

    def begin(self, settings: LoadedSettings, dataset: Dataset, iteration: int) -> None:
        """Start all ranks from ``iteration`` with this network's weights. Raises WorkerError if a rank fails."""
        if self.ranks.size > 1:
            start = {"seed": settings.seed, "iteration": iteration, "common": common(settings, dataset)}
            self.worker.call("share", message=start)
            self.worker.call("align")

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Report to the other ranks how the block ended, if they can still be reached."""
        try:
            yield
        except TrainingStopped as error:
            self._end("stopped", error, error.signal)
            raise
        except WorkerError:  # the other ranks detect this themselves
            raise
        except (MultisegError, OSError) as error:
            self._end("failed", error)
            raise
        else:
            self._end("finished")

    def _end(self, how: str, error: Exception | None = None, signal: int | None = None) -> None:
        if self.ranks.size == 1 or self.worker.closed:
            return
        with suppress(MultisegError):
            self.worker.drain()
        message = {"end": how, "message": str(error or ""), "signal": signal}
        with suppress(MultisegError):
            self.worker.call("share", message=message)


def resumes(ranks: Ranks, folder: Path) -> bool:
    """Return whether torchrun has restarted the processes and ``folder`` has a run to resume."""
    return ranks.restarts > 0 and folder.is_dir() and any(folder.iterdir())
