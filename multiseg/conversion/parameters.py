"""The parameters of one network, as the matcher compares them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from multiseg.topology import Shape, Topology

MAX_LISTED = 8


@dataclass(frozen=True)
class ParameterSet:
    """Names and shapes of a network's parameters, in order.

    ``title`` names the network or its file in messages. ``description`` is the network's topology if it is known, or a function
    that returns it (or raises ModelError) and is called only if names do not settle the matching. ``exported``: the network file
    was written by multiseg from the other side's network, so that its names are the other side's as far as the format allows.
    """

    title: str
    shapes: Mapping[str, Shape]
    description: Topology | Callable[[], Topology] | None = None
    exported: bool = False

    @cached_property
    def topology(self) -> Topology | None:
        """The network's topology, None if it is unknown. Raises ModelError if the network cannot be described."""
        return self.description() if callable(self.description) else self.description

    @cached_property
    def layers(self) -> dict[str, dict[str, Shape]]:
        """Shapes by layer and part, e.g. ``{"conv1": {"weight": (8, 3, 3, 3), "bias": (8,)}}``."""
        return by_layer(self.shapes)


def by_layer(shapes: Mapping[str, Shape]) -> dict[str, dict[str, Shape]]:
    """Group shapes of parameters (``layer.part``) by layer and part."""
    layers: dict[str, dict[str, Shape]] = defaultdict(dict)
    for name, shape in shapes.items():
        layer, _, part = name.rpartition(".")
        layers[layer][part] = shape
    return dict(layers)


def parameter_name(layer: str, part: str) -> str:
    """Return ``layer.part``, or the part alone for a parameter without a layer."""
    return f"{layer}.{part}" if layer else part


def listed(names: Iterable[str]) -> str:
    """Return the names for a message, at most MAX_LISTED of them."""
    all_names = list(names)
    more = len(all_names) - MAX_LISTED
    return ", ".join(all_names[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
