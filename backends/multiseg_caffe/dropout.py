"""Read what dropout multiplies by from a net in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from multiseg.network import Array

TYPES = ("Dropout", "SpatialDropout")


def forward(net: Any, blobs: Sequence[Any], index: int) -> Array:
    """Compute the dropout at a place in a net, and return what it multiplies by.

    It gets ones as its input, and its output is multiplied by the input that it would have had: pycaffe does not show a layer's
    own array of random numbers, which the backward pass uses.
    """
    (bottom,), (top,) = net._bottom_ids(index), net._top_ids(index)
    images = blobs[bottom].data.copy()
    blobs[bottom].data[...] = 1
    net._forward(index, index)
    factors: Array = blobs[top].data.copy()
    blobs[bottom].data[...] = images  # the same array if the layer computes in place
    blobs[top].data[...] = images * factors
    return factors
