"""Call a backend's reader or writer, in this process or in a worker."""

from __future__ import annotations

import importlib
from typing import Any

from multiseg.backend import Backend
from multiseg.worker import pool
from multiseg.worker.client import Worker


def ask(backend: Backend, function: str, worker: Worker | None = None, **arguments: Any) -> Any:
    """Call a function of a backend's reader and return its result."""
    return call(backend, backend.reader, function, backend.reader_needs_framework, worker, arguments)


def call(
    backend: Backend,
    module: str,
    function: str,
    needs_framework: bool,
    worker: Worker | None,
    arguments: dict[str, Any],
) -> Any:
    """Return the result of a backend's function, called here if it needs no framework, else in ``worker`` or a new worker."""
    if not needs_framework:
        return getattr(importlib.import_module(module), function)(**arguments)
    if worker is not None:
        return worker.call("read", module=module, function=function, arguments=arguments)

    with pool.start(backend) as started:
        return call(backend, module, function, needs_framework, started, arguments)
