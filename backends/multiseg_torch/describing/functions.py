"""Map PyTorch's functions to multiseg.topology.vocabulary: a layer type and its parameters.

A rule receives a call's arguments by name, and the shapes, including the batch, of its input and output. It returns None if
the vocabulary has no such layer. A layer whose inferred shapes or weights differ from PyTorch's is rejected, see
multiseg_torch.describing.tracing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from torch import Tensor

from multiseg_torch.describing.statistics import uses_batch

MOMENTUM = 0.1  # PyTorch's default
# type and parameters of a layer of the vocabulary; None if it has none
Entry = Optional[tuple[str, dict[str, Any]]]  # noqa: UP045 - worker code runs on Python 3.9


@dataclass(frozen=True)
class Call:
    """A function call: arguments by name, the shapes of the input (first tensor) and of the output."""

    arguments: Mapping[str, Any]
    read: tuple[int, ...]
    made: tuple[int, ...]

    def __getattr__(self, name: str) -> Any:
        return self.arguments.get(name)

    def axis(self, dim: int) -> int:
        """Return the non-negative index of an axis; axis 0 is the batch."""
        return dim + len(self.read) if dim < 0 else dim


def pair(value: Any) -> list[int]:
    """Return [height, width] of one number or two."""
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return values * 2 if len(values) == 1 else values


def number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _window(kernel: Any, stride: Any, padding: Any, dilation: Any = 1) -> dict[str, Any]:
    strides = pair(kernel if stride is None or stride == [] else stride)
    return {"kernel_shape": pair(kernel), "strides": strides, "pads": pair(padding) * 2, "dilations": pair(dilation)}


def _convolution_window(kernel: Any, stride: Any, padding: Any, dilation: Any) -> dict[str, Any]:
    window = _window(kernel, stride, 0, dilation)
    if padding == "same":  # the extra one at the bottom and right
        total = [d * (k - 1) for k, d in zip(window["kernel_shape"], window["dilations"])]
        return window | {"pads": [n // 2 for n in total] + [n - n // 2 for n in total]}
    return window | {"pads": [0, 0, 0, 0] if padding == "valid" else pair(padding) * 2}


def _max_pool(call: Call) -> Entry:
    window = _window(call.kernel_size, call.stride, call.padding or 0, call.dilation or 1)
    indices = {"indices": True} if call.return_indices else {}
    return "MaxPool", {**window, "ceil_mode": bool(call.ceil_mode), **indices}


def _max_pool_with_indices(call: Call) -> Entry:
    return _max_pool(Call({**call.arguments, "return_indices": True}, call.read, call.made))


def _max_unpool(call: Call) -> Entry:
    """Describe it by scales where the output has the input's size times the stride, else by the output's size."""
    strides = pair(call.stride or call.kernel_size)
    if not any(pair(call.padding or 0)) and all(n * s == m for n, s, m in zip(call.read[2:], strides, call.made[2:])):
        return "MaxUnpool", {"scales": [float(stride) for stride in strides]}
    return "MaxUnpool", {"sizes": list(call.made[2:])}


def _average_pool(call: Call) -> Entry:
    if call.divisor_override:
        return None
    window = _window(call.kernel_size, call.stride, call.padding or 0)
    include = call.arguments.get("count_include_pad", True)
    del window["dilations"]
    return "AveragePool", {**window, "ceil_mode": bool(call.ceil_mode), "count_include_pad": bool(include)}


def _adaptive(kind: str) -> Callable[[Call], Entry]:
    def rule(call: Call) -> Entry:
        if call.made[2:] == (1, 1):
            return f"Global{kind}", {}
        if any(n % m for n, m in zip(call.read[2:], call.made[2:])):
            return None
        kernel = [n // m for n, m in zip(call.read[2:], call.made[2:])]
        return kind, {"kernel_shape": kernel, "strides": kernel}

    return rule


def _reshape(call: Call) -> Entry:
    if call.made[:1] != call.read[:1]:
        return None
    if len(call.made) == 2:
        return "Flatten", {}
    return "Reshape", {"shape": list(call.made[1:])}


def _permute(call: Call) -> Entry:
    dims = call.dims
    dims = dims[0] if len(dims) == 1 and isinstance(dims[0], (list, tuple)) else dims
    perm = [call.axis(dim) for dim in dims]
    return ("Transpose", {"perm": perm}) if perm[0] == 0 else None


def _transpose(call: Call) -> Entry:
    perm = list(range(len(call.read)))
    a, b = call.axis(call.dim0), call.axis(call.dim1)
    perm[a], perm[b] = perm[b], perm[a]
    return ("Transpose", {"perm": perm}) if perm[0] == 0 else None


def _index(call: Call) -> Entry:
    """Return the Slice of x[:, a:b, ...]; integer indices and steps are not supported."""
    index = list(call.index) if isinstance(call.index, tuple) else [call.index]
    if Ellipsis in index:
        at = index.index(Ellipsis)
        index[at : at + 1] = [slice(None)] * (len(call.read) - len(index) + 1)
    if not all(isinstance(each, slice) and each.step in (None, 1) for each in index):
        return None
    bounds = [each.indices(n)[:2] for each, n in zip(index, call.read)]
    cut = [axis for axis, (each, n) in enumerate(zip(bounds, call.read)) if each != (0, n)]
    if not cut:
        return "Identity", {}
    if 0 in cut:
        return None
    return "Slice", {
        "axes": cut,
        "starts": [bounds[axis][0] for axis in cut],
        "ends": [bounds[axis][1] for axis in cut],
    }


def _concat(call: Call) -> Entry:
    return "Concat", {"axis": call.axis(call.dim or 0)}


def _narrow(call: Call) -> Entry:
    axis = call.axis(call.dim)
    start = int(call.start) % call.read[axis]
    return "Slice", {"axes": [axis], "starts": [start], "ends": [start + int(call.length)]}


def _split(call: Call) -> Entry:
    axis = call.axis(call.dim or 0)
    return "Split", {"axis": axis, "split": [shape[axis] for shape in call.all_made]}


def pad_rule(call: Call) -> Entry:
    pads = list(call.pad)
    if len(call.read) != 4 or any(pads[4:]):
        return None
    left, right, top, bottom = (pads + [0] * 4)[:4]
    if not any(pads):
        return "Identity", {}
    if max(left, right, top, bottom) <= 0 and min(left, right, top, bottom) < 0:
        height, width = call.read[2:]
        return "Slice", {"axes": [2, 3], "starts": [-top, -left], "ends": [height + bottom, width + right]}
    modes = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}
    mode = call.mode or "constant"
    if mode not in modes:
        return None
    return "Pad", {"pads": [top, left, bottom, right], "mode": modes[mode], "value": call.value or 0}


def _resize(call: Call) -> Entry:
    if call.antialias:
        return None
    if call.mode in (None, "nearest"):
        mode, coordinates = "nearest", "asymmetric"
    elif call.mode == "nearest-exact":
        mode, coordinates = "nearest", "half_pixel"
    elif call.mode == "bilinear":
        mode, coordinates = "linear", "align_corners" if call.align_corners else "half_pixel"
    else:
        return None
    if call.scale_factor is not None and call.size is None:
        return "Resize", {"mode": mode, "scales": pair(call.scale_factor), "coordinates": coordinates}
    return "Resize", {"mode": mode, "sizes": list(call.made[2:]), "coordinates": coordinates}


def _expand(call: Call) -> Entry:
    """Return the nearest Resize of images of one pixel, which repeats it."""
    one_pixel = len(call.read) == len(call.made) == 4 and call.read[2:] == (1, 1) and call.read[:2] == call.made[:2]
    if not one_pixel:
        return None
    return "Resize", {"mode": "nearest", "sizes": list(call.made[2:]), "coordinates": "asymmetric"}


def _reduce(kind: str) -> Callable[[Call], Entry]:
    def rule(call: Call) -> Entry:
        if call.dim is None:
            return None
        axes = [call.axis(dim) for dim in (call.dim if isinstance(call.dim, (list, tuple)) else [call.dim])]
        return None if 0 in axes else (kind, {"axes": axes, "keepdims": bool(call.keepdim)})

    return rule


def _binary(kind: str) -> Callable[[Call], Entry]:
    """Return the rule for two tensors of the same shape, or a tensor and a number."""

    def rule(call: Call) -> Entry:
        values = [call.input, call.other]
        if all(isinstance(value, Tensor) for value in values):
            alpha = call.arguments.get("alpha", 1)
            if kind == "Sum":
                return "Sum", {} if alpha == 1 else {"coefficients": [1, alpha]}
            return (kind, {}) if alpha == 1 else None
        if not number(values[1]):
            return None
        value = values[1] * call.arguments.get("alpha", 1)
        if kind == "Div":
            return ("Mul", {"value": 1 / value}) if value else None
        return {
            "Sum": ("Add", {"value": value}),
            "Sub": ("Add", {"value": -value}),
            "Mul": ("Mul", {"value": value}),
        }.get(kind)

    return rule


def _clip(low: str, high: str, default: tuple[Any, Any] = (None, None)) -> Callable[[Call], Entry]:
    def rule(call: Call) -> Entry:
        bounds = (call.arguments.get(low, default[0]), call.arguments.get(high, default[1]))
        if any(isinstance(bound, Tensor) for bound in bounds):
            return None
        return "Clip", {name: bound for name, bound in zip(("min", "max"), bounds) if bound is not None}

    return rule


def _threshold(call: Call) -> Entry:
    """Return Relu if both arguments are 0."""
    if call.value != 0:
        return "ThresholdedRelu", {"alpha": call.threshold, "value": call.value}
    return ("Relu", {}) if call.threshold == 0 else ("ThresholdedRelu", {"alpha": call.threshold})


def _power(call: Call) -> Entry:
    return ("Pow", {"exponent": call.exponent}) if number(call.exponent) else None


def _softplus(call: Call) -> Entry:
    return ("Softplus", {}) if (call.beta or 1) == 1 else None


def _softmax(kind: str) -> Callable[[Call], Entry]:
    """Return the rule of a softmax; without ``dim`` PyTorch takes axis 1, or 0 of one or three axes, the batch."""

    def rule(call: Call) -> Entry:
        if call.dim is None and len(call.read) in (1, 3):
            return None
        return kind, {"axis": call.axis(1 if call.dim is None else call.dim)}

    return rule


def _lrn(call: Call) -> Entry:
    arguments = {"alpha": 1e-4, "beta": 0.75, "k": 1.0} | dict(call.arguments)
    if call.size % 2 == 0:  # PyTorch's larger half of the neighbours comes before the channel, ONNX's after it
        return None
    return "LRN", {"size": call.size, "alpha": arguments["alpha"], "beta": arguments["beta"], "bias": arguments["k"]}


def _convolution(call: Call) -> Entry:
    group = call.groups or 1
    window = _convolution_window(list(call.weight.shape[2:]), call.stride or 1, call.padding or 0, call.dilation or 1)
    return "Conv", {"num_output": call.weight.shape[0], **window, "group": group, "bias_term": call.bias is not None}


def _deconvolution(call: Call) -> Entry:
    group = call.groups or 1
    window = _window(list(call.weight.shape[2:]), call.stride or 1, call.padding or 0, call.dilation or 1)
    # from the shapes: a module's argument output_size takes the place of its output_padding
    sizes = zip(
        call.made[2:], call.read[2:], window["kernel_shape"], window["strides"], window["pads"], window["dilations"]
    )
    added = [out - ((n - 1) * s - 2 * p + d * (k - 1) + 1) for out, n, k, s, p, d in sizes]
    return "ConvTranspose", {
        "num_output": call.weight.shape[1] * group,
        **window,
        "output_padding": added,
        "group": group,
        "bias_term": call.bias is not None,
    }


def _linear(call: Call) -> Entry:
    return "Gemm", {"num_output": call.weight.shape[0], "bias_term": call.bias is not None}


def _normalisation(call: Call) -> Entry:
    """Describe it in evaluation; multiseg_torch.describing.statistics adds its use of statistics in training."""
    parts = [part for part in ("weight", "bias") if getattr(call, part) is not None]
    affine = parts[0] if len(parts) == 1 else bool(parts)
    parameters = {"epsilon": call.arguments.get("eps", 1e-5), "affine": affine}
    if uses_batch(call.arguments):
        parameters["prediction_statistics"] = "batch"
    if call.running_mean is None:
        parameters["stored"] = False
    momentum = call.arguments.get("momentum", MOMENTUM)
    if momentum != MOMENTUM and call.running_mean is not None:
        parameters["momentum"] = "cumulative" if momentum is None else momentum
    return "BatchNormalization", parameters


def _dropout(call: Call) -> Entry:
    if call.training:  # also in evaluation, which this is
        return None
    return "Dropout", {"ratio": call.arguments.get("p", 0.5)}


def _channel_dropout(call: Call) -> Entry:
    if call.training or len(call.read) != 4:
        return None
    return "Dropout", {"ratio": call.arguments.get("p", 0.5), "channelwise": True}


def _scale(call: Call) -> Entry:
    """Return Scale, with a bias and a factor per channel; the recorder checks whether they are weights."""
    return None if "value" in call.arguments else ("Scale", {"bias_term": True})


def _plain(kind: str, **parameters: str) -> Callable[[Call], Entry]:
    return lambda call: (kind, {ours: call.arguments[theirs] for ours, theirs in parameters.items()})


def _plain_or(kind: str, theirs: str, ours: str, default: float) -> Callable[[Call], Entry]:
    return lambda call: (kind, {ours: call.arguments.get(theirs, default)})


Rule = Callable[[Call], Entry]
# Argument names in order and rule, by function name (without the trailing underscore of in-place functions).
FUNCTIONS: dict[str, tuple[str, Rule]] = {
    "conv2d": ("input weight bias stride padding dilation groups", _convolution),
    "conv_transpose2d": ("input weight bias stride padding output_padding groups dilation", _deconvolution),
    "linear": ("input weight bias", _linear),
    "batch_norm": ("input running_mean running_var weight bias training momentum eps", _normalisation),
    "prelu": ("input weight", lambda call: ("PRelu", {"num_parameters": call.weight.numel()})),
    "max_pool2d": ("input kernel_size stride padding dilation ceil_mode return_indices", _max_pool),
    "max_pool2d_with_indices": (
        "input kernel_size stride padding dilation ceil_mode return_indices", _max_pool_with_indices
    ),
    "max_unpool2d": ("input indices kernel_size stride padding output_size", _max_unpool),
    "avg_pool2d": (
        "input kernel_size stride padding ceil_mode count_include_pad divisor_override",
        _average_pool,
    ),
    "adaptive_avg_pool2d": ("input output_size", _adaptive("AveragePool")),
    "adaptive_max_pool2d": ("input output_size", _adaptive("MaxPool")),
    "local_response_norm": ("input size alpha beta k", _lrn),
    "dropout": ("input p training inplace", _dropout),
    "dropout2d": ("input p training inplace", _channel_dropout),
    **dict.fromkeys(("relu", "__relu__"), ("input", _plain("Relu"))),
    "relu6": ("input", lambda call: ("Clip", {"min": 0, "max": 6})),
    "leaky_relu": ("input negative_slope inplace", _plain_or("LeakyRelu", "negative_slope", "alpha", 0.01)),
    "elu": ("input alpha inplace", _plain_or("Elu", "alpha", "alpha", 1.0)),
    "silu": ("input inplace", lambda call: ("Swish", {"alpha": 1.0})),
    "hardtanh": ("input min_val max_val inplace", _clip("min_val", "max_val", (-1, 1))),
    "clamp": ("input min max", _clip("min", "max")),
    "threshold": ("input threshold value inplace", _threshold),
    "sigmoid": ("input", _plain("Sigmoid")),
    "tanh": ("input", _plain("Tanh")),
    "softplus": ("input beta threshold", _softplus),
    "softmax": ("input dim", _softmax("Softmax")),
    "log_softmax": ("input dim", _softmax("LogSoftmax")),
    "abs": ("input", _plain("Abs")),
    "exp": ("input", _plain("Exp")),
    "log": ("input", _plain("Log")),
    "neg": ("input", _plain("Neg")),
    "sqrt": ("input", _plain("Sqrt")),
    "square": ("input", lambda call: ("Pow", {"exponent": 2})),
    "pow": ("input exponent", _power),
    **dict.fromkeys(("add", "__add__", "__radd__"), ("input other alpha", _binary("Sum"))),
    **dict.fromkeys(("sub", "__sub__"), ("input other alpha", _binary("Sub"))),
    **dict.fromkeys(("mul", "__mul__", "__rmul__", "multiply"), ("input other", _binary("Mul"))),
    "addcmul": ("input tensor1 tensor2 value", _scale),
    **dict.fromkeys(("div", "true_divide", "__truediv__"), ("input other", _binary("Div"))),
    **dict.fromkeys(("maximum", "max"), ("input other", lambda call: ("Max", {}) if isinstance(call.other, Tensor) else None)),
    **dict.fromkeys(("cat", "concat", "concatenate"), ("tensors dim", _concat)),
    "flatten": ("input start_dim end_dim", _reshape),
    **dict.fromkeys(("view", "reshape", "squeeze", "unsqueeze", "unflatten", "view_as", "reshape_as"), ("input", _reshape)),
    **dict.fromkeys(("expand_as", "expand"), ("input", _expand)),
    "permute": ("input *dims", _permute),
    **dict.fromkeys(("transpose", "swapaxes", "swapdims"), ("input dim0 dim1", _transpose)),
    "__getitem__": ("input index", _index),
    "narrow": ("input dim start length", _narrow),
    "chunk": ("input chunks dim", _split),
    "split": ("input split_size dim", _split),
    "pad": ("input pad mode value", pad_rule),
    "interpolate": ("input size scale_factor mode align_corners recompute_scale_factor antialias", _resize),
    "mean": ("input dim keepdim", _reduce("ReduceMean")),
    "sum": ("input dim keepdim", _reduce("ReduceSum")),
}  # fmt: skip
