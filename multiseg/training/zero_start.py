"""Layers whose weights all start at zero: Caffe's initialisation of a layer without a filler."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import numpy as np
import numpy.typing as npt

from multiseg.conversion.parameters import listed
from multiseg.errors import ModelError
from multiseg.topology import Topology


def layers_at_zero(
    weights: Mapping[str, npt.NDArray[np.float32]], trained: Collection[str], describe: Callable[[], Topology]
) -> list[str]:
    """Return the names of the trained layers whose weights are all zero, in the network's order.

    A network without other such layers learns if only its last layers are zero (as the deconvolution of the tutorial, or the
    scores of a pretrained network); these are left out. ``weights`` are neutral, ``trained`` names of parameters; ``describe``
    returns the network's description, and is called only if there are such layers.
    """
    kernels = [name for name, value in weights.items() if value.ndim >= 2 and name in trained]
    zero = [name.rpartition(".")[0] for name in kernels if not weights[name].any()]
    if not zero:
        return []
    try:
        # a layer that is not trained, such as a fixed upsampling, passes gradients on unless it is zero itself
        blocking = [name for name, value in weights.items() if value.ndim >= 2 and (name in trained or not value.any())]
        last = _last(describe(), {name.rpartition(".")[0] for name in blocking})
    except ModelError:  # a network that trains, but has no description
        last = {kernels[-1].rpartition(".")[0]}
    return [] if set(zero) <= last else zero


def _last(network: Topology, layers: Collection[str]) -> set[str]:
    """Return those of the ``layers`` that lead to an output without another of them in between."""
    sources = {output: layer for layer in network.layers for output in layer.outputs}
    found: set[str] = set()
    seen: set[str] = set()
    values = list(network.outputs)
    while values:
        value = values.pop()
        layer = sources.get(value)
        if layer is None or value in seen:
            continue
        seen.add(value)
        if layer.name in layers:
            found.add(layer.name)
        else:
            values.extend(layer.inputs)
    return found


def warning(layers: Iterable[str]) -> str | None:
    """Return a warning that names the layers and the fix; None without layers."""
    names = list(layers)
    if not names:
        return None
    which = "weight of the layer" if len(names) == 1 else f"weight of {len(names)} layers"
    return (
        f"every {which} {listed(names)} starts at zero, so that the network may never learn; start from trained weights "
        '(weights=), or initialise them: in a prototxt by weight_filler { type: "xavier" } (or "msra"), in any file by '
        "recipe=equal"
    )
