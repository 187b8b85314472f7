"""Faults of TensorFlow that lowering avoids, see docs/upstream-faults.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def known(kind: str, parameters: Mapping[str, Any], input_shape: Sequence[int]) -> str | None:
    """Return the fault that ends a process which computes a layer without lowering, or makes its numbers wrong; None without one.

    ``kind`` and ``parameters`` are those of multiseg.topology.Layer; ``input_shape`` is that of its first input, without images.
    """
    if parameters.get("group", 1) != 1:
        return None
    strides = parameters.get("strides", [1])
    beyond = strides[0] == 1 < max(strides)
    if kind == "ConvTranspose":
        return "one-channel-in-channels-last" if parameters["num_output"] == 1 and beyond else None
    if kind != "Conv":
        return None
    if set(parameters.get("kernel_shape", ())) == {1} and max(strides) > 1:
        return "training-a-1x1-convolution"
    return "one-channel-in-channels-last" if input_shape[0] == 1 and beyond else None
