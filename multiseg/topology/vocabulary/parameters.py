"""The parameters of layers: what each means, the word for it, and how its value is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Optional


@dataclass(frozen=True)
class Parameter:
    """One parameter, whatever layer type has it.

    - ``meaning``: for documentation.
    - ``word``: what texts call it; None for its own name with spaces.
    - ``shown_as``: "size" (3x3), "pads" (one number, two, or each side), "pair" (one number where both are equal).
    - ``hides_default``: texts leave it out where it has its type's default.
    - ``sized``: its value in canonical form follows from the size of the images, too.
    - ``derived``: only in canonical form, not in descriptions.
    """

    meaning: str
    word: Optional[str] = None  # noqa: UP045 - worker code runs on Python 3.9
    shown_as: Optional[Literal["size", "pads", "pair"]] = None  # noqa: UP045
    hides_default: bool = False
    sized: bool = False
    derived: bool = False


PARAMETERS: dict[str, Parameter] = {
    "num_output": Parameter("output channels or features", "filters"),
    "kernel_shape": Parameter("[height, width] of a window", "kernel", "size"),
    "strides": Parameter("[vertical, horizontal] distance of two windows", "stride", "pair", hides_default=True),
    "pads": Parameter("padding [top, left, bottom, right]", "pad", "pads", hides_default=True, sized=True),
    "auto_pad": Parameter("SAME_UPPER where the padding follows from the size of the image"),
    "dilations": Parameter("[vertical, horizontal] distance of a window's pixels", "dilation", "pair", hides_default=True),
    "output_padding": Parameter("rows and columns added below and to the right", shown_as="pair", hides_default=True),
    "group": Parameter("groups of channels that are convolved apart", "groups", hides_default=True),
    "bias_term": Parameter("whether there is a bias", "bias", hides_default=True),
    "ceil_mode": Parameter("whether output sizes are rounded up", "rounding up", hides_default=True),
    "indices": Parameter(
        "whether a second output is the index of each maximum in its channel's plane, row by row", hides_default=True
    ),
    "count_include_pad": Parameter("whether averages count padding", "padding counted in averages", hides_default=True),
    "epsilon": Parameter("number added to the variance", hides_default=True),
    "affine": Parameter("whether there are weight and bias, or the name of the one that there is", hides_default=True),
    "training_statistics": Parameter(
        "mean and variance in training: of the batch, or stored", "statistics in training", hides_default=True
    ),
    "prediction_statistics": Parameter(
        "mean and variance in prediction: stored, or of the batch, which is then of one image", "statistics in prediction",
        hides_default=True,
    ),
    "stored": Parameter("whether there are stored statistics", "stored statistics", hides_default=True),
    "momentum": Parameter(
        "weight of a batch in the stored statistics if it is not the framework's default, or cumulative", "momentum"
    ),
    "size": Parameter("channels or pixels along a side that are normalised together"),
    "alpha": Parameter("slope, scale or threshold"),
    "beta": Parameter("exponent of the normalisation"),
    "bias": Parameter("number added before the normalisation's power"),
    "within_channel": Parameter(
        "normalise over neighbours in a channel, not over channels", "within channels", hides_default=True
    ),
    "ratio": Parameter("probability of dropping a value"),
    "channelwise": Parameter("whether whole channels are dropped", "whole channels", hides_default=True),
    "num_parameters": Parameter("slopes: 1, or one for each channel", "parameters"),
    "exponent": Parameter("power"),
    "min": Parameter("lower limit"),
    "max": Parameter("upper limit"),
    "axis": Parameter("axis, the batch counted as 0"),
    "axes": Parameter("axes, the batch counted as 0"),
    "split": Parameter("size of each output along the axis"),
    "coefficients": Parameter("factor of each input"),
    "value": Parameter("constant: the second operand, what is padded with, or the result up to the threshold"),
    "shape": Parameter("shape without the batch; 0 keeps a size, -1 is the rest", sized=True),
    "perm": Parameter("the input's axes in their new order, the batch counted as 0"),
    "mode": Parameter("constant, reflect or edge; nearest or linear", hides_default=True),
    "starts": Parameter("first index along each axis"),
    "ends": Parameter("index behind the last along each axis"),
    "offset": Parameter("first index along each axis from `axis` on, or one for all"),
    "scales": Parameter("[vertical, horizontal] factor of the size"),
    "sizes": Parameter("[height, width] of the output", sized=True),
    "coordinates": Parameter("asymmetric, align_corners or half_pixel"),
    "keepdims": Parameter("whether reduced axes stay, with size 1", hides_default=True),
    "borders": Parameter("padding of a Pad [top, left, bottom, right]", "pad", "pads", derived=True),
    "divisors": Parameter("what each window's sum is divided by", "averages divided by", sized=True, derived=True),
    "bounds": Parameter("start and end along every axis", sized=True, derived=True),
}  # fmt: skip
