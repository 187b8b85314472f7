"""Computations of Keras layers by other operations of TensorFlow with the same result, which descriptions read as one layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow

Call = Callable[..., Any]


def old_hard_sigmoid(x: Any) -> Any:
    """Compute the hard sigmoid of Keras 2, clip(0.2 * x + 0.5, 0, 1); that of Keras 3 is clip(x / 6 + 0.5, 0, 1)."""
    return tensorflow.clip_by_value(0.2 * x + 0.5, 0.0, 1.0)


def form_of(layer: Any) -> Call | None:
    """Return another computation of a layer, in place of its method ``call``; None for layers that need none."""
    name = type(layer).__name__
    if name == "Conv2D" and layer.groups > 1:
        return _grouped(layer)
    if name == "UpSampling2D" and layer.interpolation == "nearest":
        return _nearest(layer)
    if name == "GlobalMaxPooling2D" and not layer.keepdims:
        return lambda inputs: tensorflow.reshape(
            tensorflow.reduce_max(inputs, [1, 2], keepdims=True), [-1, inputs.shape[3]]
        )
    if name == "Dense":
        return _on_pixels(layer)
    if name == "Rescaling" and not isinstance(layer.scale, (list, tuple)) and layer.offset == 0:
        return lambda inputs: inputs * layer.scale
    return None


def _grouped(layer: Any) -> Call:
    """Return a convolution of each group of channels: TensorFlow has no gradient of Keras's single one on CPUs."""

    def call(inputs: Any) -> Any:
        images = tensorflow.split(inputs, layer.groups, axis=-1)
        kernels = tensorflow.split(tensorflow.convert_to_tensor(layer.kernel), layer.groups, axis=3)
        outputs = [
            tensorflow.nn.convolution(
                image, kernel, list(layer.strides), layer.padding.upper(), dilations=list(layer.dilation_rate)
            )
            for image, kernel in zip(images, kernels)  # noqa: B905 - worker code runs on Python 3.9
        ]
        output = tensorflow.concat(outputs, axis=-1)
        if layer.use_bias:
            output = tensorflow.nn.bias_add(output, tensorflow.convert_to_tensor(layer.bias))
        return output if layer.activation is None else layer.activation(output)

    return call


def _on_pixels(layer: Any) -> Call:
    """Return a dense layer that is a convolution of 1x1 for images; for vectors it stays as it is."""
    original = layer.call

    def call(inputs: Any, *arguments: Any, **named: Any) -> Any:
        if inputs.shape.rank != 4:
            return original(inputs, *arguments, **named)
        kernel = tensorflow.convert_to_tensor(layer.kernel)
        output = tensorflow.nn.conv2d(inputs, tensorflow.reshape(kernel, [1, 1, *kernel.shape]), 1, "VALID")
        if layer.use_bias:
            output = tensorflow.nn.bias_add(output, tensorflow.convert_to_tensor(layer.bias))
        return output if layer.activation is None else layer.activation(output)

    return call


def _nearest(layer: Any) -> Call:
    """Return the resizing by whole factors that Keras writes as repetitions along two axes."""

    def call(inputs: Any) -> Any:
        shape = tensorflow.shape(inputs)[1:3]
        known = inputs.shape.as_list()[1:3]
        sizes = (
            [size * factor for size, factor in zip(known, layer.size)]  # noqa: B905
            if None not in known
            else shape * tensorflow.constant(layer.size, tensorflow.int32)
        )
        return tensorflow.compat.v1.image.resize_nearest_neighbor(inputs, sizes)

    return call
