"""Which backends are installed, and what is missing where one is not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from multiseg import backend as registry
from multiseg.errors import MultisegError
from multiseg.worker.client import Worker


@dataclass(frozen=True)
class BackendStatus:
    """One backend: ``available`` after its framework really loaded, else ``problem`` says what is missing and the mend."""

    name: str
    title: str
    available: bool
    version: str | None
    device: str | None
    python: str | None
    learning_rate: float
    batch_size: int
    data_order: str
    channel_order: str
    formats: tuple[str, ...]
    install: str
    problem: str | None

    def to_json(self) -> dict[str, object]:
        """Plain dict."""
        return asdict(self)


def backends() -> list[BackendStatus]:
    """Status of every installed backend, by loading each framework in a process of its own."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(_status, registry.names()))


def _status(name: str) -> BackendStatus:
    backend = registry.get(name)
    found: dict[str, str] = {}
    problem = None
    try:
        with Worker(backend) as worker:
            found = worker.found
    except MultisegError as error:
        problem = str(error)
    return BackendStatus(
        name=name,
        title=backend.title,
        available=problem is None,
        version=found.get("version"),
        device=found.get("device"),
        python=found.get("executable"),
        learning_rate=backend.learning_rate,
        batch_size=backend.batch_size,
        data_order=backend.data_order,
        channel_order=backend.channel_order,
        formats=backend.formats,
        install=backend.install,
        problem=problem,
    )
