"""List the installed backends, and for each that is not available what is missing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from multiseg import backend as registry
from multiseg.errors import MultisegError
from multiseg.worker import pool


@dataclass(frozen=True)
class BackendStatus:
    """A backend's status: ``available`` if its framework was loaded, else ``problem`` says what is missing and how to fix it."""

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
        """Return the status as a plain dict."""
        return asdict(self)


def backends() -> list[BackendStatus]:
    """Return the status of every installed backend, loading each framework in a separate process."""
    with ThreadPoolExecutor() as executor:
        return list(executor.map(_status, registry.names()))


def _status(name: str) -> BackendStatus:
    framework: dict[str, str] = {}
    try:
        backend = registry.get(name)
    except MultisegError as error:  # one broken package must not hide the others
        return BackendStatus(name=name, title=name, problem=str(error))
    problem = None
    try:
        with pool.start(backend) as worker:
            framework = worker.probed
    except MultisegError as error:
        problem = str(error)
    return BackendStatus(
        name=name,
        title=backend.title,
        available=problem is None,
        version=framework.get("version"),
        device=framework.get("device"),
        python=framework.get("executable"),
        learning_rate=backend.learning_rate,
        batch_size=backend.batch_size,
        data_order=backend.data_order,
        channel_order=backend.channel_order,
        formats=backend.formats,
        install=backend.install,
        problem=problem,
    )
