"""Find the layers that cannot be trained with a batch of one image: batch normalization over one value per channel."""

from __future__ import annotations

import math
from typing import Any

from multiseg_tensorflow.tensors import constant


def names(graph: Any) -> list[str]:
    """Return the scopes of the layers of a training graph that normalise a batch by its statistics, of one value per image.

    These are fused batch normalizations, and the moments of a batch (``tf.nn.moments``), of images of one pixel or of vectors.
    """
    found = []
    for op in graph.get_operations():
        scope, _, name = op.name.rpartition("/")
        if op.type.startswith("FusedBatchNorm") and not op.type.endswith(("Grad", "GradV2", "GradV3")):
            order = op.get_attr("data_format").decode()
            if op.get_attr("is_training") and _pixels(op.inputs[0], order) == 1:
                found.append(scope or op.name)
        elif op.type == "SquaredDifference" and scope.endswith("moments") and name.startswith("SquaredDifference"):
            axes = _reduced(op)
            if 0 in axes and _pixels(op.inputs[0], "NHWC") == 1:
                found.append(scope.rpartition("/")[0] or op.name)
    return list(dict.fromkeys(found))


def _pixels(tensor: Any, order: str) -> int | None:
    """Return the number of pixels of a tensor's images; None if it is not known."""
    shape = tensor.shape.as_list() if tensor.shape.rank else [None]
    sizes = shape[2:] if order == "NCHW" else shape[1:-1]
    return None if any(size is None for size in sizes) else math.prod(sizes)


def _reduced(op: Any) -> list[int]:
    """Return the axes over which the mean of a squared difference is computed."""
    for user in op.outputs[0].consumers():
        if user.type == "Mean":
            axes = constant(user.inputs[1])
            return [] if axes is None else [int(axis) for axis in axes.ravel()]
    return []
