"""Faults of TensorFlow that lowering avoids, see docs/upstream-faults.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from multiseg.backend import KnownFault

MAXIMUM = KnownFault("maximum-of-a-multiple", ends_process=False)
ONE_PIXEL = KnownFault("training-a-1x1-convolution", ends_process=True)
ONE_CHANNEL = KnownFault("one-channel-in-channels-last", ends_process=True)


def known(kind: str, parameters: Mapping[str, Any], input_shape: Sequence[int]) -> KnownFault | None:
    """Return the fault that ends a process which computes a layer without lowering, or makes its numbers wrong; None without one.

    ``kind`` and ``parameters`` are those of multiseg.topology.Layer; ``input_shape`` is that of its first input, without images.
    """
    if kind == "Max":
        return MAXIMUM
    if parameters.get("group", 1) != 1:
        return None
    strides = parameters.get("strides", [1])
    beyond = strides[0] == 1 < max(strides)
    if kind == "ConvTranspose":
        return ONE_CHANNEL if parameters["num_output"] == 1 and beyond else None
    if kind != "Conv":
        return None
    if set(parameters.get("kernel_shape", ())) == {1} and max(strides) > 1:
        return ONE_PIXEL
    return ONE_CHANNEL if input_shape[0] == 1 and beyond else None
