"""Rank 0's side of a training over several processes: it tells the others where to begin, and how it ended."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from multiseg.dataset import Dataset
from multiseg.errors import MultisegError, TrainingStopped, WorkerError
from multiseg.settings.loaded import LoadedSettings
from multiseg.training.ranks import Ranks
from multiseg.worker.client import Worker

# what may differ from process to process: the machine's, what rank 0 alone reads, and what it tells
FREE = ("threads", "weights", "solver_state", "seed")


def common(settings: LoadedSettings, dataset: Dataset) -> dict[str, Any]:
    """What must be the same for all ranks, by names for messages."""
    model = settings.model
    found: dict[str, Any] = {
        **{key: value for key, value in settings.to_json().items() if key not in FREE},
        "content of the model file": hashlib.sha256(model.read_bytes()).hexdigest() if model.is_file() else None,
        "content of the dataset": dataset.content_hash,
    }
    plain: dict[str, Any] = json.loads(json.dumps(found))  # as it comes to the others
    return plain


class Leader:
    """Tells the other ranks; nothing where there are none."""

    def __init__(self, ranks: Ranks, worker: Worker) -> None:
        self.ranks, self.worker = ranks, worker

    def begin(self, settings: LoadedSettings, dataset: Dataset, iteration: int) -> None:
        """All go on from here, with this network's weights. Raises WorkerError where one of them cannot."""
        if self.ranks.size > 1:
            start = {"seed": settings.seed, "iteration": iteration, "common": common(settings, dataset)}
            self.worker.call("share", message=start)
            self.worker.call("align")

    @contextmanager
    def telling(self) -> Iterator[None]:
        """However the block ends, the others are told, if they can still be reached."""
        try:
            yield
        except TrainingStopped as error:
            self._end("stopped", error, error.signal)
            raise
        except WorkerError:  # they notice that by themselves
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
    """Whether torchrun has started the processes anew, and there is something to go on from."""
    return ranks.restarts > 0 and folder.is_dir() and any(folder.iterdir())
