"""The canonical form of one layer: its type and parameters for the image size at hand, defaults filled in.

A rule takes the layer, its parameters with defaults filled in, and its inputs' shapes; the type that it returns is Identity where
the layer does nothing. See multiseg.topology.canonical for what several layers are together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multiseg.topology.layer import Layer, Shape
from multiseg.topology.vocabulary.shapes import axis_index, crop_bounds, window_pads

CanonicalForm = tuple[str, dict[str, Any]]  # type and parameters
Parameters = Mapping[str, Any]


def comparable(value: Any) -> Any:
    """Return a parameter's value for comparing: lists as tuples, floats to the six digits that float32 files keep."""
    if isinstance(value, (list, tuple)):
        return tuple(comparable(item) for item in value)
    if isinstance(value, Mapping):
        return tuple(sorted((key, comparable(item)) for key, item in value.items()))
    return float(f"{value:.6g}") if isinstance(value, float) else value


def convolution(layer: Layer, parameters: Parameters, inputs: list[Shape]) -> CanonicalForm:
    """Return the padding that its windows read, resolved for this size."""
    size = inputs[0][1:]
    if layer.type == "ConvTranspose" and parameters.get("auto_pad") == "SAME_UPPER":
        size = layer.shapes[0][1:]  # of the input of the convolution that it is the gradient of
    return layer.type, {
        "num_output": parameters["num_output"],
        "bias_term": bool(parameters["bias_term"]),
        "group": parameters["group"],
        "kernel_shape": tuple(parameters["kernel_shape"]),
        "strides": tuple(parameters["strides"]),
        "dilations": _dilations(parameters),
        # top and left; multiseg.topology.canonical adds bottom and right when layers are joined
        "pads": tuple(window_pads(parameters, size)[:2]),
    }


def pool(layer: Layer, parameters: Parameters, inputs: list[Shape]) -> CanonicalForm:
    """Return a pooling by its windows and what averages divide by; a global one where one window covers the image."""
    size, out = inputs[0][1:], layer.shapes[0][1:]
    kernel, strides = tuple(parameters["kernel_shape"]), tuple(parameters["strides"])
    pads = window_pads(parameters, size)
    indices = bool(parameters.get("indices"))
    if max(kernel) == 1 and max(strides) == 1 and not any(pads) and not indices:
        return "Identity", {}
    dilations = _dilations(parameters)
    windows = [
        [(i * s - p, i * s - p + (k - 1) * d + 1) for i in range(m)]
        for m, k, s, d, p in zip(out, kernel, strides, dilations, pads, strict=False)
    ]
    divisors: tuple[Any, ...] = ()
    if layer.type == "AveragePool":
        # Caffe and Torch count padding, but not what rounding up adds behind it; TensorFlow counts pixels alone
        counted = pads if parameters["count_include_pad"] else (0, 0, 0, 0)
        divisors = tuple(
            tuple(min(end, n + counted[i + 2]) - max(start, -counted[i]) for start, end in windows[i])
            for i, n in enumerate(size)
        )
    whole = all(len(w) == 1 and w[0][0] <= 0 and w[0][1] >= n for w, n in zip(windows, size, strict=True))
    if whole and not indices and max(dilations) == 1 and (not divisors or divisors == tuple((n,) for n in size)):
        return ("Identity" if max(size) == 1 else f"Global{layer.type}"), {}
    form: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": tuple(pads[:2])}
    if all(set(counts) == {k} for counts, k in zip(divisors, kernel, strict=False)):
        divisors = ()  # always the kernel's size
    form |= {"indices": True} if indices else {}
    return layer.type, form | ({"divisors": divisors} if layer.type == "AveragePool" else {})


def unpool(layer: Layer, parameters: Parameters, inputs: list[Shape]) -> CanonicalForm:
    """Return the output size."""
    return layer.type, {"sizes": tuple(layer.shapes[0][1:])}


def _dilations(parameters: Parameters) -> tuple[int, ...]:
    return tuple(1 if k == 1 else d for k, d in zip(parameters["kernel_shape"], parameters["dilations"], strict=True))


def identity(layer: Layer, parameters: Parameters, inputs: list[Shape]) -> CanonicalForm:
    """Return Identity."""
    return "Identity", {}


def negation(layer: Layer, parameters: Parameters, inputs: list[Shape]) -> CanonicalForm:
    """Return a product with -1."""
    return "Mul", {"value": -1.0}


def square_root(layer: Layer, parameters: Parameters, inputs: list[Shape]) -> CanonicalForm:
    """Return the power 0.5."""
    return "Pow", {"exponent": 0.5}


def global_pool(layer: Layer, parameters: Parameters, inputs: list[Shape]) -> CanonicalForm:
    """Return Identity for an image of one pixel."""
    return ("Identity" if max(inputs[0][1:]) == 1 else layer.type), {}


def rectifier(layer: Layer, parameters: Parameters, inputs: list[Shape]) -> CanonicalForm:
    """Return Relu for a slope or threshold of 0."""
    alpha = comparable(float(parameters["alpha"]))
    value = comparable(float(parameters.get("value", 0.0)))
    if value:
        return layer.type, {"alpha": alpha, "value": value}
    if alpha == 0:
        return "Relu", {}
    return ("Identity", {}) if layer.type == "LeakyRelu" and alpha == 1 else (layer.type, {"alpha": alpha})


def clip(layer: Layer, parameters: Parameters, inputs: list[Shape]) -> CanonicalForm:
    """Return Relu for limits 0 and none."""
    low, high = (_finite(parameters.get(key)) for key in ("min", "max"))
    if low == 0 and high is None:
        return "Relu", {}
    return ("Identity" if low is None and high is None else "Clip"), {"min": low, "max": high}


def _finite(limit: float | None) -> Any:
    """Return None for a limit without effect; files write that as the largest float32, too."""
    return None if limit is None or abs(limit) > 3.4e38 else comparable(float(limit))


def transpose(layer: Layer, parameters: Parameters, inputs: list[Shape]) -> CanonicalForm:
    """Return Identity where the axes stay in order."""
    perm = tuple(parameters["perm"])
    return ("Identity" if list(perm) == sorted(perm) else "Transpose"), {"perm": perm}


def power(layer: Layer, parameters: Parameters, inputs: list[Shape]) -> CanonicalForm:
    """Return Identity for the exponent 1."""
    exponent = comparable(float(parameters["exponent"]))
    return ("Identity" if exponent == 1 else "Pow"), {"exponent": exponent}


def softmax(layer: Layer, parameters: Parameters, inputs: list[Shape]) -> CanonicalForm:
    """Return the axis as index of the shape."""
    return layer.type, {"axis": axis_index(parameters["axis"], inputs[0])}


def concat(layer: Layer, parameters: Parameters, inputs: list[Shape]) -> CanonicalForm:
    """Return the axis as index of the shape; Identity for one input."""
    return ("Identity" if len(inputs) == 1 else "Concat"), {"axis": axis_index(parameters["axis"], inputs[0])}


def elementwise(layer: Layer, parameters: Parameters, inputs: list[Shape]) -> CanonicalForm:
    """Return Sum for Add and Sub of several inputs, Identity where a constant or a single input changes nothing.

    A constant that is subtracted or divided by is one that is added or multiplied by.
    """
    if len(inputs) == 1 and "value" in layer.parameters:
        constant = parameters["value"]
        kind, value = layer.type, float(constant) if isinstance(constant, int) else constant
        if isinstance(value, float) and kind == "Sub":
            kind, value = "Add", -value
        elif isinstance(value, float) and kind == "Div" and value:
            kind, value = "Mul", 1 / value
        neutral = 1 if kind in ("Mul", "Div") else 0
        return ("Identity" if value == neutral else kind), {"value": comparable(value)}
    if layer.type in ("Sum", "Add", "Sub"):
        if len(inputs) > 1:
            return "Sum", {}
        factor = comparable(sum_factors(layer, 1)[0])
        return ("Identity" if factor == 1 else "Mul"), {"value": factor}
    return ("Identity" if len(inputs) == 1 else layer.type), {}


def sum_factors(layer: Layer, count: int) -> tuple[float, ...]:
    """Return the factor of each input of a Sum, Sub (1, -1, ...) or Add (1, 1, ...)."""
    if layer.type == "Sum" and layer.parameters.get("coefficients"):
        return tuple(map(float, layer.parameters["coefficients"]))
    return (1.0, *((-1.0 if layer.type == "Sub" else 1.0,) * (count - 1)))


def reshape(layer: Layer, parameters: Parameters, inputs: list[Shape]) -> CanonicalForm:
    """Return Reshape to the output shape, for Flatten and Squeeze as well."""
    shape = tuple(layer.shapes[0])
    return ("Identity" if shape == tuple(inputs[0]) else "Reshape"), {"shape": shape}


def pad(layer: Layer, parameters: Parameters, inputs: list[Shape]) -> CanonicalForm:
    """Return the borders; Identity where there are none."""
    pads, mode = tuple(parameters["pads"]), parameters["mode"]
    value = comparable(float(parameters["value"] or 0.0)) if mode == "constant" else None
    return ("Pad" if any(pads) else "Identity"), {"borders": pads, "mode": mode, "value": value}


def batch_norm(layer: Layer, parameters: Parameters, inputs: list[Shape]) -> CanonicalForm:
    """Return which statistics are used; not how the stored ones are updated, which has no effect on the output."""
    names = ("epsilon", "affine", "training_statistics", "prediction_statistics")
    return layer.type, {name: comparable(parameters[name]) for name in names}


def cut(layer: Layer, parameters: Parameters, inputs: list[Shape]) -> CanonicalForm:
    """Return Slice with start and end along every axis, for Crop as well."""
    cuts = crop_bounds(parameters, inputs) if layer.type == "Crop" else parameters
    bounds = [(0, n) for n in inputs[0]]
    for number, start, end in zip(cuts["axes"], cuts["starts"], cuts["ends"], strict=True):
        axis = axis_index(number, inputs[0])
        bounds[axis] = slice(start, end).indices(inputs[0][axis])[:2]
    return ("Identity" if tuple(layer.shapes[0]) == tuple(inputs[0]) else "Slice"), {"bounds": tuple(bounds)}


def resize(layer: Layer, parameters: Parameters, inputs: list[Shape]) -> CanonicalForm:
    """Return the output size; coordinates only where they matter."""
    size, out = inputs[0][1:], layer.shapes[0][1:]
    if tuple(size) == tuple(out):
        return "Identity", {}
    coordinates = parameters["coordinates"]
    if (
        parameters["mode"] == "nearest"
        and coordinates != "align_corners"
        and all(m % n == 0 for m, n in zip(out, size, strict=True))
    ):
        coordinates = None  # every pixel repeated, however it is counted
    return "Resize", {"mode": parameters["mode"], "sizes": tuple(out), "coordinates": coordinates}


def reduce(layer: Layer, parameters: Parameters, inputs: list[Shape]) -> CanonicalForm:
    """Return the axes as indices of the shape; a global pooling for means over height and width."""
    axes = tuple(sorted({axis_index(axis, inputs[0]) for axis in parameters["axes"]}))
    if layer.type == "ReduceMean" and len(inputs[0]) == 3 and axes == (1, 2):
        return "GlobalAveragePool", {}
    return layer.type, {"axes": axes, "keepdims": bool(parameters["keepdims"])}
