"""Support for users' tests: a contract suite for backends (:class:`BackendContract`) and the pytest plugin.

Every pytest in an environment with multiseg loads the plugin, so importing this package imports nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiseg.testing.contract import BackendContract

__all__ = ["BackendContract"]


def __getattr__(name: str) -> Any:
    if name != "BackendContract":
        raise AttributeError(f"module 'multiseg.testing' has no attribute {name!r}")
    from multiseg.testing.contract import BackendContract

    globals()[name] = BackendContract
    return BackendContract
