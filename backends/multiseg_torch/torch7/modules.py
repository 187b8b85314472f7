"""Build PyTorch modules from the fields of Torch7 modules, with their stored weights or Torch7's initial values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from multiseg_torch.torch7 import layers, start
from multiseg_torch.torch7.objects import Object, Problem

PARTS = ("weight", "bias", "running_mean", "running_var")
LARGEST = 1 << 30  # maximum number of weights of a network: 4 GiB


class Builder:
    """Builder of modules; a module used several times is built once."""

    def __init__(self) -> None:
        self.built: dict[int, nn.Module | None] = {}  # by the identity of the object; None while it is being built
        self.weights = 0

    def module(self, made: Object) -> nn.Module:
        """Return the module of an object. Raise Problem if it is invalid or not supported."""
        if id(made) in self.built:
            module = self.built[id(made)]
            if module is None:
                raise Problem(f"{made.place}: contains itself")
            return module
        if made.kind not in MODULES:
            raise Problem(f"{made.place}: is no module that is supported; known are: {', '.join(sorted(MODULES))}")
        self.built[id(made)] = None
        try:
            with torch.device("meta"):  # allocate no memory before the sizes are checked
                module = MODULES[made.kind](made, self)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            if isinstance(error, (Problem, RecursionError)):
                raise
            raise Problem(f"{made.place}: {error}") from error
        self._fill(made, module)
        self.built[id(made)] = module
        return module

    def children(self, made: Object) -> list[nn.Module]:
        """Return the modules of a container."""
        return [self.module(child) for child in made.modules()]

    def _fill(self, made: Object, module: nn.Module) -> None:
        sizes = {name: own.shape for name, own in module.state_dict().items() if name in PARTS}
        if not sizes:
            return
        if made.array("running_std") and not made.array("running_var"):
            # before version 2 the field held 1 / sqrt(variance + eps) (torch/nn, BatchNormalization.lua)
            inverse = made.fields["running_std"].astype(np.float64)
            made.fields["running_var"] = inverse**-2 - made.number("eps", 1e-5)
        for part, shape in sizes.items():
            self.weights += shape.numel()
            if isinstance(made.fields.get(part), (int, float, str)) and not isinstance(made.fields[part], bool):
                raise Problem(f"{made.place}: its {part} is {made.fields[part]!r}; it must be a tensor")
            if made.array(part) and made.fields[part].size != shape.numel():
                raise Problem(
                    f"{made.place}: its {part} holds {made.fields[part].shape}, its fields say {tuple(shape)}"
                )
        if self.weights > LARGEST:
            raise Problem(f"{made.place}: the network would have {self.weights} weights, above {LARGEST}")
        module.to_empty(device="cpu", recurse=False)
        start.reset(module)
        for part, own in module.state_dict().items():
            if part in PARTS and made.array(part):
                own.copy_(torch.from_numpy(np.array(made.fields[part], np.float32)).reshape(own.shape))


Build = Callable[[Object, Builder], nn.Module]


def _optional(made: Object, name: str) -> int | None:
    return made.whole(name) if made.fields.get(name) is not None else None


def _pads(made: Object) -> tuple[int, int]:
    pad = made.whole("padW", made.whole("padding", 0))
    return made.whole("padH", pad), pad


def _convolution(made: Object, builder: Builder) -> nn.Module:
    return nn.Conv2d(
        made.whole("nInputPlane"),
        made.whole("nOutputPlane"),
        (made.whole("kH"), made.whole("kW")),
        (made.whole("dH", 1), made.whole("dW", 1)),
        _pads(made),
        (made.whole("dilationH", 1), made.whole("dilationW", 1)),
        made.whole("groups", 1),
        bias=made.has("bias"),
    )


def _full_convolution(made: Object, builder: Builder) -> nn.Module:
    return nn.ConvTranspose2d(
        made.whole("nInputPlane"),
        made.whole("nOutputPlane"),
        (made.whole("kH"), made.whole("kW")),
        (made.whole("dH", 1), made.whole("dW", 1)),
        _pads(made),
        (made.whole("adjH", 0), made.whole("adjW", 0)),
        made.whole("groups", 1),
        bias=made.has("bias"),
    )


def _linear(made: Object, builder: Builder) -> nn.Module:
    if made.array("weight") and made.fields["weight"].ndim == 2:
        outputs, inputs = made.fields["weight"].shape
    else:
        outputs, inputs = made.whole("outputSize"), made.whole("inputSize")
    return nn.Linear(inputs, outputs, bias=made.has("bias"))


def _window(made: Object) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    kernel = made.whole("kH"), made.whole("kW")
    return kernel, (made.whole("dH", kernel[0]), made.whole("dW", kernel[1])), _pads(made)


def _max_pooling(made: Object, builder: Builder) -> nn.Module:
    return nn.MaxPool2d(*_window(made), ceil_mode=made.flag("ceil_mode"))


def _average_pooling(made: Object, builder: Builder) -> nn.Module:
    if not made.flag("divide", True):
        raise Problem(f"{made.place}: sums its windows (divide is false), which is not supported")
    return nn.AvgPool2d(
        *_window(made), ceil_mode=made.flag("ceil_mode"), count_include_pad=made.flag("count_include_pad", True)
    )


def _normalisation(module: Callable[..., nn.Module]) -> Build:
    def build(made: Object, builder: Builder) -> nn.Module:
        planes = made.fields["running_mean"].size if made.array("running_mean") else made.whole("nOutput")
        affine = made.has("weight")
        return module(planes, made.number("eps", 1e-5), made.number("momentum", 0.1), affine)

    return build


def _prelu(made: Object, builder: Builder) -> nn.Module:
    return nn.PReLU(max(made.whole("nOutputPlane", 0), 1))


def _dropout(made: Object, builder: Builder) -> nn.Module:
    _check_inference(made)
    p = made.number("p", 0.5)
    # objects of before version 2 have no field v2 (torch/nn, Dropout.lua); a constructor's argument is v1
    scales_in_training = not made.flag("v1") if "v1" in made.fields else made.flag("v2")
    return nn.Dropout(p) if scales_in_training else _scaled_in_inference(nn.Dropout(p), p)


def _spatial_dropout(made: Object, builder: Builder) -> nn.Module:
    _check_inference(made)
    p = made.number("p", 0.5)
    return _scaled_in_inference(nn.Dropout2d(p), p)  # torch/nn, SpatialDropout.lua: there is no version 2 of it


def _check_inference(made: Object) -> None:
    if made.flag("stochastic_inference"):
        raise Problem(f"{made.place}: drops values in inference too (stochasticInference), which is not supported")


def _scaled_in_inference(dropout: nn.Module, p: float) -> nn.Module:
    """Multiply by 1 - p in inference, and leave the values that are kept in training as they are.

    PyTorch's dropout divides these by 1 - p in training, which the factor undoes.
    """
    return nn.Sequential(dropout, layers.Function(lambda x: torch.mul(x, 1 - p)))


def _lrn(made: Object, builder: Builder) -> nn.Module:
    k = made.number("k", made.number("K", 1))
    return nn.LocalResponseNorm(made.whole("size"), made.number("alpha", 1e-4), made.number("beta", 0.75), k)


def _along(made: Object, name: str, dims: str = "") -> int:
    """Return the dimension to concatenate along. Raise Problem if it is the batch dimension."""
    dimension = made.whole(name, 1)
    if dimension == 1 and made.fields.get(dims) is None:
        raise Problem(f"{made.place}: joins along dimension 1, which in a batch is the images; the channels are 2")
    return dimension


def _concat(module: Callable[..., nn.Module]) -> Build:
    return lambda made, builder: module(builder.children(made), _along(made, "dimension"))


def _reduce(operation: str) -> Build:
    def build(made: Object, builder: Builder) -> nn.Module:
        does = "mean" if made.flag("sizeAverage") else operation
        keep = not made.flag("squeeze", True)
        return layers.Reduce(does, made.whole("dimension", 1), _optional(made, "nInputDims"), keep)

    return build


def _padding(made: Object, builder: Builder) -> nn.Module:
    if made.whole("index", 1) != 1:
        raise Problem(f"{made.place}: pads in the middle (index {made.whole('index')}), which is not supported")
    return layers.Padding(made.whole("dim"), made.whole("pad"), _optional(made, "nInputDim"), made.number("value", 0))


def _around(module: Callable[..., nn.Module]) -> Build:
    def build(made: Object, builder: Builder) -> nn.Module:
        return module(tuple(made.whole(name) for name in ("pad_l", "pad_r", "pad_t", "pad_b")))

    return build


def _upsampling_bilinear(made: Object, builder: Builder) -> nn.Module:
    if made.fields.get("oheight") is not None and made.fields.get("scale_factor") is None:
        return layers.UpSamplingBilinear(None, (made.whole("oheight"), made.whole("owidth")))
    return layers.UpSamplingBilinear(made.whole("scale_factor"), None)


def _transpose(made: Object, builder: Builder) -> nn.Module:
    pairs = [(pair.whole(1), pair.whole(2)) for pair in made.fields["permutations"].listed()]
    return layers.Transpose(pairs, _optional(made, "numInputDims"))


def _select_table(made: Object, builder: Builder) -> nn.Module:
    index = made.whole("index")
    return layers.Table(lambda table: table[index - 1 if index > 0 else index])


def _narrow_table(made: Object, builder: Builder) -> nn.Module:
    first, length = made.whole("offset") - 1, made.whole("length", 1)
    return layers.Table(lambda table: table[first : first + length])


def _flatten(table: list[object]) -> list[object]:
    return [leaf for each in table for leaf in (_flatten(each) if isinstance(each, list) else [each])]


def _first_child(made: Object, builder: Builder) -> nn.Module:
    """Build an nn.DataParallelTable, which holds one replica of the network for each GPU, from its first replica."""
    children = builder.children(made)
    if not children:
        raise Problem(f"{made.place}: holds no network")
    return children[0]


def _plain(module: Callable[..., nn.Module], **fields: str) -> Build:
    """Return a rule for a module with numeric arguments: PyTorch's names mapped to Torch7's."""
    return lambda made, builder: module(**{ours: made.number(theirs) for ours, theirs in fields.items()})


def _function(function: Callable[..., torch.Tensor], *names: str) -> Build:
    def build(made: Object, builder: Builder) -> nn.Module:
        values = [made.number(name) for name in names]
        return layers.Function(lambda x: function(x, *values))

    return build


def _softmax(module: Callable[..., nn.Module]) -> Build:
    return lambda made, builder: module(dim=1)


MODULES: dict[str, Build] = {
    "Sequential": lambda made, builder: nn.Sequential(*builder.children(made)),
    "Concat": _concat(layers.Concat),
    "DepthConcat": _concat(layers.DepthConcat),
    "ConcatTable": lambda made, builder: layers.ConcatTable(*builder.children(made)),
    "ParallelTable": lambda made, builder: layers.ParallelTable(*builder.children(made)),
    "DataParallelTable": _first_child,
    "JoinTable": lambda made, builder: layers.JoinTable(
        _along(made, "dimension", "nInputDims"), _optional(made, "nInputDims")
    ),
    "SelectTable": _select_table,
    "NarrowTable": _narrow_table,
    "FlattenTable": lambda made, builder: layers.Table(_flatten),
    "CAddTable": lambda made, builder: layers.Elementwise("Sum"),
    "CMulTable": lambda made, builder: layers.Elementwise("Mul"),
    "CSubTable": lambda made, builder: layers.Elementwise("Sub"),
    "CDivTable": lambda made, builder: layers.Elementwise("Div"),
    "CMaxTable": lambda made, builder: layers.Elementwise("Max"),
    **dict.fromkeys(("Identity", "Copy", "Contiguous"), lambda made, builder: nn.Identity()),
    "View": lambda made, builder: layers.View(made.wholes("size"), _optional(made, "numInputDims")),
    "Reshape": lambda made, builder: layers.Reshape(
        made.wholes("size"), made.fields.get("batchMode") is not None and not made.flag("batchMode")
    ),
    "Transpose": _transpose,
    "Squeeze": lambda made, builder: layers.Squeeze(_optional(made, "dim"), _optional(made, "numInputDims")),
    "Unsqueeze": lambda made, builder: layers.Unsqueeze(made.whole("pos"), _optional(made, "numInputDims")),
    "Narrow": lambda made, builder: layers.Narrow(
        made.whole("dimension"), made.whole("index"), made.whole("length", 1)
    ),
    "Select": lambda made, builder: layers.Select(made.whole("dimension"), made.whole("index")),
    "Padding": _padding,
    "Mean": _reduce("mean"),
    "Sum": _reduce("sum"),
    "Max": _reduce("max"),
    "Min": _reduce("min"),
    "SpatialConvolution": _convolution,
    "SpatialConvolutionMM": _convolution,
    "SpatialDilatedConvolution": _convolution,
    "SpatialFullConvolution": _full_convolution,
    "Linear": _linear,
    "SpatialMaxPooling": _max_pooling,
    "SpatialAveragePooling": _average_pooling,
    "BatchNormalization": _normalisation(nn.BatchNorm1d),
    "SpatialBatchNormalization": _normalisation(nn.BatchNorm2d),
    "SpatialCrossMapLRN": _lrn,
    "Dropout": _dropout,
    "SpatialDropout": _spatial_dropout,
    "SpatialUpSamplingNearest": lambda made, builder: nn.Upsample(scale_factor=made.whole("scale_factor")),
    "SpatialUpSamplingBilinear": _upsampling_bilinear,
    "SpatialZeroPadding": _around(nn.ZeroPad2d),
    "SpatialReflectionPadding": _around(nn.ReflectionPad2d),
    "SpatialReplicationPadding": _around(nn.ReplicationPad2d),
    # in-place modules are built out of place: the values are the same
    "ReLU": lambda made, builder: nn.ReLU(),
    "ReLU6": lambda made, builder: nn.ReLU6(),
    "LeakyReLU": _plain(nn.LeakyReLU, negative_slope="negval"),
    "PReLU": _prelu,
    "ELU": lambda made, builder: nn.ELU(made.number("alpha", 1)),
    "Tanh": lambda made, builder: nn.Tanh(),
    "Sigmoid": lambda made, builder: nn.Sigmoid(),
    "HardTanh": lambda made, builder: nn.Hardtanh(made.number("min_val", -1), made.number("max_val", 1)),
    "Clamp": _plain(nn.Hardtanh, min_val="min_val", max_val="max_val"),
    "SoftPlus": lambda made, builder: nn.Softplus(made.number("beta", 1)),
    "Threshold": lambda made, builder: nn.Threshold(made.number("threshold", 1e-6), made.number("val", 0)),
    # along the channels, of vectors and of images (https://github.com/torch/nn/blob/master/lib/THNN/generic/LogSoftMax.c)
    "SoftMax": _softmax(nn.Softmax),
    "LogSoftMax": _softmax(nn.LogSoftmax),
    "SpatialSoftMax": _softmax(nn.Softmax),
    "SpatialLogSoftMax": _softmax(nn.LogSoftmax),
    "MulConstant": _function(torch.mul, "constant_scalar"),
    "AddConstant": _function(torch.add, "constant_scalar"),
    "Power": _function(torch.pow, "pow"),
    "Abs": _function(torch.abs),
    "Square": _function(torch.square),
    "Sqrt": _function(torch.sqrt),
    "Exp": _function(torch.exp),
    "Log": _function(torch.log),
}
