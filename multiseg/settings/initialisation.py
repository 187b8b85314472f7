"""The initialisation of the recipe `equal`: one for all backends, made by the core.

Names of layers differ between frameworks' files of one network, so it goes by position: the n-th layer of weights in the
file's order gets the n-th array, drawn from the job's seed and n.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from multiseg.backend import ChannelOrder

Array = npt.NDArray[np.float32]
Shape = Sequence[int]


def initial_weights(
    parameters: Mapping[str, Shape], seed: int, order: ChannelOrder, channels: tuple[int, int]
) -> dict[str, Array]:
    """Start values for a network's neutral parameters, given their shapes in the file's order.

    Weights of two or more axes are uniform within sqrt(6 / (fan in + fan out)) (Glorot and Bengio, 2010, formula 16), biases
    are 0. What else a layer has, e.g. batch normalisation's scale and averages or PReLU's slope, is left out: the frameworks
    agree on these.

    They are drawn for images in RGB. For a backend that is fed images in another ``order`` the first weights' input channels
    and the last weights' output channels are reversed, if the dataset's images and labels have three ``channels``: so the
    network computes the same of the same image.
    """
    found: dict[str, Array] = {}
    weights = [name for name, shape in parameters.items() if len(shape) >= 2]
    for index, name in enumerate(weights):
        shape = tuple(parameters[name])
        bound = math.sqrt(6 / ((shape[0] + shape[1]) * math.prod(shape[2:])))
        draw = np.random.default_rng([seed, index])
        found[name] = draw.uniform(-bound, bound, shape).astype(np.float32)
    if order == "BGR" and weights:
        # a convolution's weights are (out, in, ...), a deconvolution's (in, out, ...)
        for name, axes, count in ((weights[0], (1, 0), channels[0]), (weights[-1], (0, 1), channels[1])):
            axis = next((axis for axis in axes if found[name].shape[axis] == count == 3), None)
            if axis is not None:
                found[name] = np.ascontiguousarray(np.flip(found[name], axis))
    biases = [name for name in parameters if name.rpartition(".")[2] == "bias"]
    return found | {name: np.zeros(tuple(parameters[name]), np.float32) for name in biases}
