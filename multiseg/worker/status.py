"""Which backends are installed, and what is missing where one is not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from multiseg import backend as registry
from multiseg.errors import MultisegError
from multiseg.worker import pool


@dataclass(frozen=True)
class BackendStatus:
    """One backend: ``available`` after its framework really loaded, else ``problem`` says what is missing and the mend."""

    name: str
    title: str
    available: bool = False
    version: str | None = None
    device: str | None = None
    python: str | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    data_order: str = ""
    channel_order: str = ""
    formats: tuple[str, ...] = ()
    install: str | None = None
    problem: str | None = None

    def to_json(self) -> dict[str, object]:
        """Plain dict."""
        return asdict(self)


def backends() -> list[BackendStatus]:
    """Status of every installed backend, by loading each framework in a process of its own."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(_status, registry.names()))


def _status(name: str) -> BackendStatus:
    found: dict[str, str] = {}
    try:
        backend = registry.get(name)
    except MultisegError as error:  # one broken package must not hide the others
        return BackendStatus(name=name, title=name, problem=str(error))
    problem = None
    try:
        with pool.start(backend) as worker:
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
