"""The initialisation of the recipe `equal`: the same for all backends.

Layer names differ between the frameworks' files of a network, so weights are assigned by position: the n-th layer with weights,
in the file's order, gets the n-th array, drawn from the job's seed and n.
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
    """Return initial values of a network's neutral parameters, whose shapes are in the file's order.

    Weights with two or more axes are uniform within sqrt(6 / (fan in + fan out)) (Glorot and Bengio, 2010, formula 16), biases
    are 0. Other parameters, e.g. scale and averages of batch normalisation or the slope of PReLU, are omitted: the frameworks
    initialise them equally.

    Values are drawn for RGB images. For a backend with another channel ``order``, the input channels of the first weights and
    the output channels of the last weights are reversed if the dataset's images and labels have three ``channels``, so that the
    network computes the same function of an image.
    """
    initial: dict[str, Array] = {}
    weights = [name for name, shape in parameters.items() if len(shape) >= 2]
    for index, name in enumerate(weights):
        shape = tuple(parameters[name])
        bound = math.sqrt(6 / ((shape[0] + shape[1]) * math.prod(shape[2:])))
        draw = np.random.default_rng([seed, index])
        initial[name] = draw.uniform(-bound, bound, shape).astype(np.float32)
    if order == "BGR" and weights:
        # a convolution's weights are (out, in, ...), a deconvolution's (in, out, ...)
        for name, axes, count in ((weights[0], (1, 0), channels[0]), (weights[-1], (0, 1), channels[1])):
            axis = next((axis for axis in axes if initial[name].shape[axis] == count == 3), None)
            if axis is not None:
                initial[name] = np.ascontiguousarray(np.flip(initial[name], axis))
    biases = [name for name in parameters if name.rpartition(".")[2] == "bias"]
    return initial | {name: np.zeros(tuple(parameters[name]), np.float32) for name in biases}
