"""One training over several processes: which of them this one is, what its share is, and what can train so at all.

torchrun starts the processes and tells each its place in variables of its environment (its page in PyTorch's documentation lists
them). Each is a whole multiseg program with a worker of its own; rank 0 leads,
see multiseg.training.distributed.
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
    """Process ``rank`` of ``size``, of which ``local_size`` are on this machine; started anew ``restarts`` times."""

    rank: int = 0
    size: int = 1
    local_size: int = 1
    restarts: int = 0

    @property
    def leads(self) -> bool:
        """Whether it is the one that writes the run, validates, and decides when the training ends."""
        return self.rank == 0

    @property
    def threads(self) -> int:
        """This process's share of the cores that it may use."""
        return max(1, len(os.sched_getaffinity(0)) // self.local_size)

    def of(self, batch_size: int) -> int:
        """Its share of a batch."""
        return batch_size // self.size

    def network_module(self, backend: Backend) -> str | None:
        """The module of the network for one of several processes; None for the plain one.

        Raises SettingsError where there are several and the backend has no such network.
        """
        if self.size == 1 or backend.distributed:
            return backend.distributed if self.size > 1 else None
        able = ", ".join(each.name for each in registry.installed() if each.distributed) or "none"
        why = f": {backend.not_distributed}" if backend.not_distributed else ""
        raise SettingsError(
            f"backend {backend.name!r} does not train over several processes (WORLD_SIZE={self.size}){why}; backends that do: "
            f"{able}. Start it as one process; for more at a time, train several jobs (multiseg train JOBS --parallel N)"
        )

    def check_batch_size(self, batch_size: int | None) -> None:
        """Raise SettingsError where a batch, once it is known, cannot be shared out evenly."""
        if batch_size is not None and batch_size % self.size:
            below, above = (self.size * (batch_size // self.size + more) for more in (0, 1))
            choice = f"{below} or {above}" if below else f"{above}"
            raise SettingsError(
                f"{setting('batch_size', batch_size)}: is not to be shared out among {self.size} processes (WORLD_SIZE), "
                "as it counts the "
                f"images of all of them; choose e.g. {choice}, or another number of processes"
            )


def current() -> Ranks:
    """What torchrun's variables say; one process where they are not set. Raises SettingsError where they make no sense."""
    if "WORLD_SIZE" not in os.environ:
        return Ranks()
    size = _variable("WORLD_SIZE")
    rank = _variable("RANK")
    local_size = _variable("LOCAL_WORLD_SIZE", 1)
    if size < 1 or not 0 <= rank < size or not 1 <= local_size <= size:
        raise SettingsError(
            f"RANK={rank}, WORLD_SIZE={size}, LOCAL_WORLD_SIZE={local_size}: cannot be; start the processes by torchrun, or "
            "unset these variables"
        )
    return Ranks(rank, size, local_size, _variable("TORCHELASTIC_RESTART_COUNT", 0))


def _variable(name: str, default: Any = None) -> int:
    text = os.environ.get(name, default)
    try:
        return int(text)
    except (TypeError, ValueError):
        said = "is not set" if text is None else f"{text!r} is no whole number"
        raise SettingsError(
            f"{name}: {said}, beside WORLD_SIZE={os.environ['WORLD_SIZE']}; start the processes by torchrun, or unset that"
        ) from None
