"""The neutral description of networks: layers, shapes, comparison and drawing.

Each name is imported when it is first used: a worker that only builds a network needs none of the comparison.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from multiseg.topology.difference import Difference
    from multiseg.topology.layer import Layer, Shape
    from multiseg.topology.topology import Topology

_WHERE = {"Difference": "difference", "Layer": "layer", "Shape": "layer", "Topology": "topology"}

__all__ = ["Difference", "Layer", "Shape", "Topology"]


def __getattr__(name: str) -> "Any":
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
