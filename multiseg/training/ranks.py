"""Training in several processes: the rank of this process, its shard, and whether a backend supports it.

torchrun starts the processes and passes each its rank in environment variables (listed on its page in PyTorch's documentation).
Each process is a complete multiseg program with its own worker; rank 0 leads, see multiseg.training.distributed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from multiseg import backend as registry
from multiseg.backend import Backend
from multiseg.errors import SettingsError, setting


@dataclass(frozen=True)
class Ranks:
    """Process ``rank`` of ``size``, of which ``local_size`` run on this machine; restarted ``restarts`` times."""

    rank: int = 0
    size: int = 1
    local_size: int = 1
    restarts: int = 0

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which writes the run folder, validates, and decides when the training ends."""
        return self.rank == 0

    @property
    def threads(self) -> int:
        """Number of threads of this process: the available cores divided by the processes on this machine, at least 1."""
        return max(1, len(os.sched_getaffinity(0)) // self.local_size)

    def of(self, batch_size: int) -> int:
        """Return the number of images of a batch that this rank processes."""
        return batch_size // self.size

    def network_module(self, backend: Backend) -> str | None:
        """Return the backend's module for distributed training; None for a single process.

        Raises SettingsError if there are several processes and the backend does not support distributed training.
        """
        if self.size == 1 or backend.distributed:
            return backend.distributed if self.size > 1 else None
        supported = ", ".join(other.name for other in registry.installed() if other.distributed) or "none"
        reason = f": {backend.not_distributed}" if backend.not_distributed else ""
        raise SettingsError(
            f"backend {backend.name!r} does not train in several processes (WORLD_SIZE={self.size}){reason}; backends that do: "
            f"{supported}. Start it as one process, or train several jobs in parallel (multiseg train JOBS --parallel N)"
        )

    def check_batch_size(self, batch_size: int | None) -> None:
        """Raise SettingsError if the batch size is known and is not divisible by the number of processes."""
        if batch_size is not None and batch_size % self.size:
            below, above = (self.size * (batch_size // self.size + more) for more in (0, 1))
            choice = f"{below} or {above}" if below else f"{above}"
            raise SettingsError(
                f"{setting('batch_size', batch_size)}: is the number of images of all {self.size} processes (WORLD_SIZE) and "
                f"must be divisible by {self.size}; choose e.g. {choice}, or another number of processes"
            )


def current() -> Ranks:
    """Return the ranks from torchrun's environment variables, a single process if they are not set.

    Raises SettingsError if the variables are incomplete or inconsistent.
    """
    if "WORLD_SIZE" not in os.environ:
        return Ranks()
    size = _variable("WORLD_SIZE")
    rank = _variable("RANK")
    local_size = _variable("LOCAL_WORLD_SIZE", 1)
    if size < 1 or not 0 <= rank < size or not 1 <= local_size <= size:
        raise SettingsError(
            f"RANK={rank}, WORLD_SIZE={size}, LOCAL_WORLD_SIZE={local_size}: are inconsistent; start the processes with "
            "torchrun, or unset these variables"
        )
    return Ranks(rank, size, local_size, _variable("TORCHELASTIC_RESTART_COUNT", 0))


def _variable(name: str, default: Any = None) -> int:
    text = os.environ.get(name, default)
    try:
        return int(text)
    except (TypeError, ValueError):
        problem = "is not set" if text is None else f"{text!r} is not an integer"
        raise SettingsError(
            f"{name}: {problem}, but WORLD_SIZE={os.environ['WORLD_SIZE']} is set; start the processes with torchrun, "
            "or unset WORLD_SIZE"
        ) from None
