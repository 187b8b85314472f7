"""What one layer comes to in canonical form: its type and parameters, all filled in, for the sizes at hand.

A rule takes the layer and its inputs' shapes; the type it returns is Identity where the layer does nothing. See
multiseg.topology.canonical for what is made of several layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from multiseg.topology.layer import Layer, Shape
from multiseg.topology.shapes import axis_index, crop_bounds, window_pads

Said = tuple[str, dict[str, Any]]  # type and parameters

# The parameters that make a layer what it is, with ONNX's defaults; a type that is not here has none, or a rule of its own.
DEFAULTS: dict[str, dict[str, Any]] = {
    "Gemm": {"num_output": None, "bias_term": True},
    "BatchNormalization": {"epsilon": 1e-5, "affine": True},
    "Scale": {"bias_term": False},
    "LRN": {"size": None, "alpha": 1e-4, "beta": 0.75, "bias": 1.0, "within_channel": False},
    "Dropout": {"ratio": 0.5},
    "Elu": {"alpha": 1.0},
    "PRelu": {"num_parameters": 1},
}


def rule(layer: Layer, taken: list[Shape]) -> Said:
    """Type and parameters of a layer of the vocabulary, Split apart."""
    return RULES.get(layer.type, _by_defaults)(layer, taken)


def plain(value: Any) -> Any:
    """A parameter's value for comparing: lists as tuples, floats to the six digits that float32 files keep."""
    if isinstance(value, (list, tuple)):
        return tuple(plain(each) for each in value)
    if isinstance(value, Mapping):
        return tuple(sorted((key, plain(each)) for key, each in value.items()))
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _by_defaults(layer: Layer, taken: list[Shape]) -> Said:
    defaults = DEFAULTS.get(layer.type, {})
    return layer.type, {key: plain(layer.parameters.get(key, default)) for key, default in defaults.items()}


def _convolution(layer: Layer, taken: list[Shape]) -> Said:
    said, size = layer.parameters, taken[0][1:]
    kernel = tuple(said["kernel_shape"])
    before = window_pads(said, size)[:2]
    if layer.type == "ConvTranspose" and said.get("auto_pad") == "SAME_UPPER":
        # those of the convolution that it is the gradient of, from the output's size to the input's
        before = window_pads(said, layer.shapes[0][1:])[:2]
    return layer.type, {
        "num_output": said["num_output"],
        "bias_term": bool(said.get("bias_term", True)),
        "group": said.get("group", 1),
        "kernel_shape": kernel,
        "strides": tuple(said.get("strides", (1, 1))),
        "dilations": _dilations(said),
        "pads": tuple(before),  # completed in _complete_pads, when all is folded
    }


def _pool(layer: Layer, taken: list[Shape]) -> Said:
    said, size, out = layer.parameters, taken[0][1:], layer.shapes[0][1:]
    kernel, strides = tuple(said["kernel_shape"]), tuple(said.get("strides", (1, 1)))
    pads = window_pads(said, size)
    if max(kernel) == 1 and max(strides) == 1 and not any(pads):
        return "Identity", {}
    dilations = _dilations(said)
    windows = [
        [(i * s - p, i * s - p + (k - 1) * d + 1) for i in range(m)]
        for m, k, s, d, p in zip(out, kernel, strides, dilations, pads, strict=False)
    ]
    divisors: tuple[Any, ...] = ()
    if layer.type == "AveragePool":
        # Caffe and Torch count padding, but not what rounding up adds behind it; TensorFlow counts pixels alone
        counted = pads if said.get("count_include_pad") else (0, 0, 0, 0)
        divisors = tuple(
            tuple(min(end, n + counted[i + 2]) - max(start, -counted[i]) for start, end in windows[i])
            for i, n in enumerate(size)
        )
    whole = all(len(w) == 1 and w[0][0] <= 0 and w[0][1] >= n for w, n in zip(windows, size, strict=True))
    if whole and max(dilations) == 1 and (not divisors or divisors == tuple((n,) for n in size)):
        return ("Identity" if max(size) == 1 else f"Global{layer.type}"), {}
    found = {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": tuple(pads[:2])}
    if all(set(each) == {k} for each, k in zip(divisors, kernel, strict=False)):
        divisors = ()  # always the kernel's size: nothing to tell
    return layer.type, found | ({"divisors": divisors} if layer.type == "AveragePool" else {})


def _dilations(said: Mapping[str, Any]) -> tuple[int, ...]:
    given = said.get("dilations", (1, 1))
    return tuple(1 if k == 1 else d for k, d in zip(said["kernel_shape"], given, strict=True))


def _global_pool(layer: Layer, taken: list[Shape]) -> Said:
    return ("Identity" if max(taken[0][1:]) == 1 else layer.type), {}


def _rectifier(layer: Layer, taken: list[Shape]) -> Said:
    defaults = {"LeakyRelu": 0.01, "ThresholdedRelu": 1.0}
    alpha = plain(float(layer.parameters.get("alpha", defaults[layer.type])))
    if alpha == 0:
        return "Relu", {}
    return ("Identity", {}) if layer.type == "LeakyRelu" and alpha == 1 else (layer.type, {"alpha": alpha})


def _clip(layer: Layer, taken: list[Shape]) -> Said:
    low, high = (_finite(layer.parameters.get(key)) for key in ("min", "max"))
    if low == 0 and high is None:
        return "Relu", {}
    return ("Identity" if low is None and high is None else "Clip"), {"min": low, "max": high}


def _finite(limit: float | None) -> Any:
    """None where a limit limits nothing; the largest float32 is how files write that, too."""
    return None if limit is None or abs(limit) > 3.4e38 else plain(float(limit))


def _transpose(layer: Layer, taken: list[Shape]) -> Said:
    perm = tuple(layer.parameters["perm"])
    return ("Identity" if list(perm) == sorted(perm) else "Transpose"), {"perm": perm}


def _power(layer: Layer, taken: list[Shape]) -> Said:
    exponent = plain(float(layer.parameters["exponent"]))
    return ("Identity" if exponent == 1 else "Pow"), {"exponent": exponent}


def _softmax(layer: Layer, taken: list[Shape]) -> Said:
    return layer.type, {"axis": axis_index(layer.parameters.get("axis", -1), taken[0])}


def _concat(layer: Layer, taken: list[Shape]) -> Said:
    return ("Identity" if len(taken) == 1 else "Concat"), {"axis": axis_index(layer.parameters["axis"], taken[0])}


def _elementwise(layer: Layer, taken: list[Shape]) -> Said:
    if len(taken) == 1 and "value" in layer.parameters:
        given = layer.parameters["value"]
        value = plain(float(given) if isinstance(given, int) else given)
        return ("Identity" if value == (1 if layer.type == "Mul" else 0) else layer.type), {"value": value}
    if layer.type in ("Sum", "Add", "Sub"):
        given = plain(factors(layer, len(taken)))
        if len(taken) > 1:
            return "Sum", {}
        return ("Identity" if given == (1.0,) else "Mul"), {"value": given[0]}
    return ("Identity" if len(taken) == 1 else layer.type), {}


def factors(layer: Layer, count: int) -> tuple[float, ...]:
    """What a Sum multiplies each of its inputs by; a Sub is one with -1, an Add with 1, and other layers have 1 too."""
    if layer.type == "Sum" and layer.parameters.get("coefficients"):
        return tuple(map(float, layer.parameters["coefficients"]))
    return (1.0, *((-1.0 if layer.type == "Sub" else 1.0,) * (count - 1)))


def _reshape(layer: Layer, taken: list[Shape]) -> Said:
    shape = tuple(layer.shapes[0])
    return ("Identity" if shape == tuple(taken[0]) else "Reshape"), {"shape": shape}


def _pad(layer: Layer, taken: list[Shape]) -> Said:
    pads, mode = tuple(layer.parameters["pads"]), layer.parameters.get("mode", "constant")
    value = plain(float(layer.parameters.get("value") or 0.0)) if mode == "constant" else None
    return ("Pad" if any(pads) else "Identity"), {"borders": pads, "mode": mode, "value": value}


def _slice(layer: Layer, taken: list[Shape]) -> Said:
    said = crop_bounds(layer.parameters, taken) if layer.type == "Crop" else layer.parameters
    bounds = [(0, n) for n in taken[0]]
    for each, start, end in zip(said["axes"], said["starts"], said["ends"], strict=True):
        axis = axis_index(each, taken[0])
        bounds[axis] = slice(start, end).indices(taken[0][axis])[:2]
    return ("Identity" if tuple(layer.shapes[0]) == tuple(taken[0]) else "Slice"), {"bounds": tuple(bounds)}


def _resize(layer: Layer, taken: list[Shape]) -> Said:
    said, size, out = layer.parameters, taken[0][1:], layer.shapes[0][1:]
    if tuple(size) == tuple(out):
        return "Identity", {}
    coordinates = said.get("coordinates", "half_pixel")
    if (
        said["mode"] == "nearest"
        and coordinates != "align_corners"
        and all(m % n == 0 for m, n in zip(out, size, strict=True))
    ):
        coordinates = None  # every pixel repeated, however it is counted
    return "Resize", {"mode": said["mode"], "sizes": tuple(out), "coordinates": coordinates}


def _reduce(layer: Layer, taken: list[Shape]) -> Said:
    axes = tuple(sorted({axis_index(axis, taken[0]) for axis in layer.parameters["axes"]}))
    if layer.type == "ReduceMean" and len(taken[0]) == 3 and axes == (1, 2):
        return "GlobalAveragePool", {}
    return layer.type, {"axes": axes, "keepdims": bool(layer.parameters.get("keepdims"))}


RULES: dict[str, Callable[[Layer, list[Shape]], Said]] = {
    "Identity": lambda layer, taken: ("Identity", {}),
    "Pow": _power,
    "Neg": lambda layer, taken: ("Mul", {"value": -1.0}),
    "Sqrt": lambda layer, taken: ("Pow", {"exponent": 0.5}),
    "Transpose": _transpose,
    "Clip": _clip,
    "Pad": _pad,
    "Concat": _concat,
    "Resize": _resize,
    **dict.fromkeys(("Conv", "ConvTranspose"), _convolution),
    **dict.fromkeys(("MaxPool", "AveragePool"), _pool),
    **dict.fromkeys(("GlobalMaxPool", "GlobalAveragePool"), _global_pool),
    **dict.fromkeys(("LeakyRelu", "ThresholdedRelu"), _rectifier),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _softmax),
    **dict.fromkeys(("Sum", "Add", "Sub", "Mul", "Max", "Div"), _elementwise),
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze"), _reshape),
    **dict.fromkeys(("Slice", "Crop"), _slice),
    **dict.fromkeys(("ReduceMean", "ReduceSum"), _reduce),
}
