"""Faults of TensorFlow that end its process, see docs/upstream-faults.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def fatal(kind: str, parameters: Mapping[str, Any]) -> str | None:
    """Return the fault that may end a process which trains a layer without lowering, None if there is none.

    ``kind`` and ``parameters`` are those of multiseg.topology.Layer.
    """
    if kind != "Conv" or parameters.get("group", 1) != 1:
        return None
    one_pixel = set(parameters.get("kernel_shape", ())) == {1}
    return "training-a-1x1-convolution" if one_pixel and max(parameters.get("strides", [1])) > 1 else None
