"""Build PyTorch modules from the fields of Torch7 modules, with their stored weights or Torch7's initial values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from multiseg_torch.torch7 import graphs, layers, start
from multiseg_torch.torch7.objects import Object, Problem

PARTS = ("weight", "bias", "running_mean", "running_var")
LARGEST = 1 << 30  # maximum number of weights of a network: 4 GiB
MOST_CALLS = (
    20_000  # of modules for one image; containers that share their modules in every level double it with each level
)


class Builder:
    """Builder of modules; a module used several times is built once."""

    def __init__(self) -> None:
        self.built: dict[int, nn.Module | None] = {}  # by the identity of the object; None while it is being built
        self.weights = 0
        self._calls: dict[int, int] = {}  # how many modules one call of a module calls, itself included
        self._current = 0  # those of the module that is being built

    def module(self, obj: Object) -> nn.Module:
        """Return the module of an object. Raise Problem if it is invalid or not supported."""
        if id(obj) in self.built:
            module = self.built[id(obj)]
            if module is None:
                raise Problem(f"{obj.place}: contains itself")
            self._current += self._calls[id(obj)]
            return module
        if obj.kind not in MODULES:
            raise Problem(f"{obj.place}: is not a supported module; supported are: {', '.join(sorted(MODULES))}")
        self.built[id(obj)] = None
        outer, self._current = self._current, 1
        try:
            with torch.device("meta"):  # allocate no memory before the sizes are checked
                module = MODULES[obj.kind](obj, self)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            if isinstance(error, (Problem, RecursionError)):
                raise
            raise Problem(f"{obj.place}: {error}") from error
        self._fill(obj, module)
        if obj.flag("frozen"):  # the file replaces accGradParameters by nothing
            module.requires_grad_(False)
        if obj.fields.get("own_gradient"):
            module.own_gradient = f"{obj.place}: its {obj.fields['own_gradient']} is replaced by the file's own"
        self.built[id(obj)] = module
        if self._current > MOST_CALLS:
            raise Problem(f"{obj.place}: calls {self._current} modules for one image, above {MOST_CALLS}")
        self._calls[id(obj)] = self._current
        self._current += outer
        return module

    def children(self, obj: Object) -> list[nn.Module]:
        """Return the modules of a container."""
        return [self.module(child) for child in obj.modules()]

    def _fill(self, obj: Object, module: nn.Module) -> None:
        sizes = {name: own.shape for name, own in module.state_dict().items() if name in PARTS}
        if not sizes:
            return
        if obj.array("running_std") and not obj.array("running_var"):
            # before version 2 the field held 1 / sqrt(variance + eps) (torch/nn, BatchNormalization.lua)
            inverse = obj.fields["running_std"].astype(np.float64)
            obj.fields["running_var"] = inverse**-2 - obj.number("eps", 1e-5)
        for part, shape in sizes.items():
            self.weights += shape.numel()
            if isinstance(obj.fields.get(part), (int, float, str)) and not isinstance(obj.fields[part], bool):
                raise Problem(f"{obj.place}: its {part} is {obj.fields[part]!r}; it must be a tensor")
            if obj.array(part) and obj.fields[part].size != shape.numel():
                raise Problem(
                    f"{obj.place}: its {part} has shape {obj.fields[part].shape}, its fields require {tuple(shape)}"
                )
        if self.weights > LARGEST:
            raise Problem(f"{obj.place}: the network would have {self.weights} weights, above {LARGEST}")
        module.to_empty(device="cpu", recurse=False)
        start.reset(module)
        for part, own in module.state_dict().items():
            if part in PARTS and obj.array(part):
                own.copy_(torch.from_numpy(np.array(obj.fields[part], np.float32)).reshape(own.shape))


Build = Callable[[Object, Builder], nn.Module]


def _optional(obj: Object, name: str) -> int | None:
    return obj.whole(name) if obj.fields.get(name) is not None else None


def _pads(obj: Object) -> tuple[int, int]:
    pad = obj.whole("padW", obj.whole("padding", 0))
    return obj.whole("padH", pad), pad


def _convolution(obj: Object, builder: Builder) -> nn.Module:
    return nn.Conv2d(
        obj.whole("nInputPlane"),
        obj.whole("nOutputPlane"),
        (obj.whole("kH"), obj.whole("kW")),
        (obj.whole("dH", 1), obj.whole("dW", 1)),
        _pads(obj),
        (obj.whole("dilationH", 1), obj.whole("dilationW", 1)),
        obj.whole("groups", 1),
        bias=obj.has("bias"),
    )


def _full_convolution(obj: Object, builder: Builder) -> nn.Module:
    return nn.ConvTranspose2d(
        obj.whole("nInputPlane"),
        obj.whole("nOutputPlane"),
        (obj.whole("kH"), obj.whole("kW")),
        (obj.whole("dH", 1), obj.whole("dW", 1)),
        _pads(obj),
        (obj.whole("adjH", 0), obj.whole("adjW", 0)),
        obj.whole("groups", 1),
        bias=obj.has("bias"),
    )


def _linear(obj: Object, builder: Builder) -> nn.Module:
    if obj.array("weight") and obj.fields["weight"].ndim == 2:
        outputs, inputs = obj.fields["weight"].shape
    else:
        outputs, inputs = obj.whole("outputSize"), obj.whole("inputSize")
    return nn.Linear(inputs, outputs, bias=obj.has("bias"))


def _window(obj: Object) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    kernel = obj.whole("kH"), obj.whole("kW")
    return kernel, (obj.whole("dH", kernel[0]), obj.whole("dW", kernel[1])), _pads(obj)


def _max_pooling(obj: Object, builder: Builder) -> nn.Module:
    return nn.MaxPool2d(*_window(obj), ceil_mode=obj.flag("ceil_mode"))


def _average_pooling(obj: Object, builder: Builder) -> nn.Module:
    if not obj.flag("divide", True):
        raise Problem(f"{obj.place}: sums its windows (divide is false), which is not supported")
    return nn.AvgPool2d(
        *_window(obj), ceil_mode=obj.flag("ceil_mode"), count_include_pad=obj.flag("count_include_pad", True)
    )


def _normalisation(module: Callable[..., nn.Module]) -> Build:
    def build(obj: Object, builder: Builder) -> nn.Module:
        planes = obj.fields["running_mean"].size if obj.array("running_mean") else obj.whole("nOutput")
        affine = obj.has("weight")
        return module(planes, obj.number("eps", 1e-5), obj.number("momentum", 0.1), affine)

    return build


def _prelu(obj: Object, builder: Builder) -> nn.Module:
    return nn.PReLU(max(obj.whole("nOutputPlane", 0), 1))


def _dropout(obj: Object, builder: Builder) -> nn.Module:
    _check_inference(obj)
    p = obj.number("p", 0.5)
    # objects of before version 2 have no field v2 (torch/nn, Dropout.lua); a constructor's argument is v1
    scales_in_training = not obj.flag("v1") if "v1" in obj.fields else obj.flag("v2")
    return nn.Dropout(p) if scales_in_training else _scaled_in_inference(nn.Dropout(p), p)


def _spatial_dropout(obj: Object, builder: Builder) -> nn.Module:
    _check_inference(obj)
    p = obj.number("p", 0.5)
    return _scaled_in_inference(nn.Dropout2d(p), p)  # torch/nn, SpatialDropout.lua: it has no version 2


def _check_inference(obj: Object) -> None:
    if obj.flag("stochastic_inference"):
        raise Problem(f"{obj.place}: drops values in inference too (stochasticInference), which is not supported")


def _scaled_in_inference(dropout: nn.Module, p: float) -> nn.Module:
    """Multiply by 1 - p in inference, and leave the values that are kept in training as they are.

    PyTorch's dropout divides these by 1 - p in training, which the factor undoes.
    """
    return nn.Sequential(dropout, layers.Function(lambda x: torch.mul(x, 1 - p)))


def _lrn(obj: Object, builder: Builder) -> nn.Module:
    k = obj.number("k", obj.number("K", 1))
    return nn.LocalResponseNorm(obj.whole("size"), obj.number("alpha", 1e-4), obj.number("beta", 0.75), k)


def _along(obj: Object, name: str, dims: str = "") -> int:
    """Return the dimension to concatenate along. Raise Problem if it is the batch dimension."""
    dimension = obj.whole(name, 1)
    if dimension == 1 and obj.fields.get(dims) is None:
        raise Problem(f"{obj.place}: concatenates along dimension 1, the batch; the channels are dimension 2")
    return dimension


def _concat(module: Callable[..., nn.Module]) -> Build:
    return lambda obj, builder: module(builder.children(obj), _along(obj, "dimension"))


def _reduce(operation: str) -> Build:
    def build(obj: Object, builder: Builder) -> nn.Module:
        does = "mean" if obj.flag("sizeAverage") else operation
        keep = not obj.flag("squeeze", True)
        return layers.Reduce(does, obj.whole("dimension", 1), _optional(obj, "nInputDims"), keep)

    return build


def _padding(obj: Object, builder: Builder) -> nn.Module:
    if obj.whole("index", 1) != 1:
        raise Problem(f"{obj.place}: pads in the middle (index {obj.whole('index')}), which is not supported")
    return layers.Padding(obj.whole("dim"), obj.whole("pad"), _optional(obj, "nInputDim"), obj.number("value", 0))


def _around(module: Callable[..., nn.Module]) -> Build:
    def build(obj: Object, builder: Builder) -> nn.Module:
        return module(tuple(obj.whole(name) for name in ("pad_l", "pad_r", "pad_t", "pad_b")))

    return build


def _upsampling_bilinear(obj: Object, builder: Builder) -> nn.Module:
    if obj.fields.get("oheight") is not None and obj.fields.get("scale_factor") is None:
        return layers.UpSamplingBilinear(None, (obj.whole("oheight"), obj.whole("owidth")))
    return layers.UpSamplingBilinear(obj.whole("scale_factor"), None)


def _transpose(obj: Object, builder: Builder) -> nn.Module:
    pairs = [(pair.whole(1), pair.whole(2)) for pair in obj.fields["permutations"].listed()]
    return layers.Transpose(pairs, _optional(obj, "numInputDims"))


def _select_table(obj: Object, builder: Builder) -> nn.Module:
    index = obj.whole("index")
    return layers.Table(lambda table: table[index - 1 if index > 0 else index])


def _narrow_table(obj: Object, builder: Builder) -> nn.Module:
    first, length = obj.whole("offset") - 1, obj.whole("length", 1)
    return layers.Table(lambda table: table[first : first + length])


def _flatten(table: list[object]) -> list[object]:
    return [leaf for each in table for leaf in (_flatten(each) if isinstance(each, list) else [each])]


def _first_child(obj: Object, builder: Builder) -> nn.Module:
    """Build an nn.DataParallelTable, which holds one replica of the network for each GPU, from its first replica."""
    children = builder.children(obj)
    if not children:
        raise Problem(f"{obj.place}: holds no network")
    return children[0]


def _plain(module: Callable[..., nn.Module], **fields: str) -> Build:
    """Return a rule for a module with numeric arguments: PyTorch's names mapped to Torch7's."""
    return lambda obj, builder: module(**{ours: obj.number(theirs) for ours, theirs in fields.items()})


def _function(function: Callable[..., torch.Tensor], *names: str) -> Build:
    def build(obj: Object, builder: Builder) -> nn.Module:
        values = [obj.number(name) for name in names]
        return layers.Function(lambda x: function(x, *values))

    return build


def _softmax(module: Callable[..., nn.Module]) -> Build:
    return lambda obj, builder: module(dim=1)


def _graph(obj: Object, builder: Builder) -> nn.Module:
    modules, steps = graphs.of(obj)
    return layers.Graph([builder.module(each) for each in modules], steps)


def _bottle(obj: Object, builder: Builder) -> nn.Module:
    (module,) = builder.children(obj)
    return layers.Bottle(module, obj.whole("nInputDim", 2))


def _max_unpooling(obj: Object, builder: Builder) -> nn.Module:
    """Build it with the pooling whose maxima it puts back, which is built once."""
    pooling = obj.fields.get("pooling")
    built = builder.module(pooling) if isinstance(pooling, Object) and pooling.kind == "SpatialMaxPooling" else None
    if not isinstance(built, nn.MaxPool2d):
        raise Problem(f"{obj.place}: has no pooling")
    return layers.MaxUnpool(built)


def _weighted(part: str) -> Build:
    def build(obj: Object, builder: Builder) -> nn.Module:
        size = list(obj.fields[part].shape) if obj.array(part) else obj.wholes("size")
        return layers.Weighted(part, size)

    return build


MODULES: dict[str, Build] = {
    "gModule": _graph,
    "Parallel": lambda obj, builder: layers.Parallel(
        builder.children(obj), obj.whole("inputDimension"), obj.whole("outputDimension")
    ),
    "Bottle": _bottle,
    "SplitTable": lambda obj, builder: layers.SplitTable(obj.whole("dimension"), _optional(obj, "nInputDims")),
    "CMinTable": lambda obj, builder: layers.Elementwise("Min"),
    "CMul": _weighted("weight"),
    "CAdd": _weighted("bias"),
    "Mul": lambda obj, builder: layers.Weighted("weight", [1]),
    "SpatialMaxUnpooling": _max_unpooling,
    "SpatialAdaptiveMaxPooling": lambda obj, builder: nn.AdaptiveMaxPool2d((obj.whole("H"), obj.whole("W"))),
    "SpatialAdaptiveAveragePooling": lambda obj, builder: nn.AdaptiveAvgPool2d((obj.whole("H"), obj.whole("W"))),
    "LogSigmoid": lambda obj, builder: nn.LogSigmoid(),
    "SoftSign": lambda obj, builder: nn.Softsign(),
    "Sequential": lambda obj, builder: nn.Sequential(*builder.children(obj)),
    "Concat": _concat(layers.Concat),
    "DepthConcat": _concat(layers.DepthConcat),
    "ConcatTable": lambda obj, builder: layers.ConcatTable(*builder.children(obj)),
    "ParallelTable": lambda obj, builder: layers.ParallelTable(*builder.children(obj)),
    "DataParallelTable": _first_child,
    "JoinTable": lambda obj, builder: layers.JoinTable(
        _along(obj, "dimension", "nInputDims"), _optional(obj, "nInputDims")
    ),
    "SelectTable": _select_table,
    "NarrowTable": _narrow_table,
    "FlattenTable": lambda obj, builder: layers.Table(_flatten),
    "CAddTable": lambda obj, builder: layers.Elementwise("Sum"),
    "CMulTable": lambda obj, builder: layers.Elementwise("Mul"),
    "CSubTable": lambda obj, builder: layers.Elementwise("Sub"),
    "CDivTable": lambda obj, builder: layers.Elementwise("Div"),
    "CMaxTable": lambda obj, builder: layers.Elementwise("Max"),
    **dict.fromkeys(("Identity", "Copy", "Contiguous"), lambda obj, builder: nn.Identity()),
    "View": lambda obj, builder: layers.View(obj.wholes("size"), _optional(obj, "numInputDims")),
    "Reshape": lambda obj, builder: layers.Reshape(
        obj.wholes("size"), obj.fields.get("batchMode") is not None and not obj.flag("batchMode")
    ),
    "Transpose": _transpose,
    "Squeeze": lambda obj, builder: layers.Squeeze(_optional(obj, "dim"), _optional(obj, "numInputDims")),
    "Unsqueeze": lambda obj, builder: layers.Unsqueeze(obj.whole("pos"), _optional(obj, "numInputDims")),
    "Narrow": lambda obj, builder: layers.Narrow(obj.whole("dimension"), obj.whole("index"), obj.whole("length", 1)),
    "Select": lambda obj, builder: layers.Select(obj.whole("dimension"), obj.whole("index")),
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
    "SpatialUpSamplingNearest": lambda obj, builder: nn.Upsample(scale_factor=obj.whole("scale_factor")),
    "SpatialUpSamplingBilinear": _upsampling_bilinear,
    "SpatialZeroPadding": _around(nn.ZeroPad2d),
    "SpatialReflectionPadding": _around(nn.ReflectionPad2d),
    "SpatialReplicationPadding": _around(nn.ReplicationPad2d),
    # in-place modules are built out of place: the values are the same
    "ReLU": lambda obj, builder: nn.ReLU(),
    "ReLU6": lambda obj, builder: nn.ReLU6(),
    "LeakyReLU": _plain(nn.LeakyReLU, negative_slope="negval"),
    "PReLU": _prelu,
    "ELU": lambda obj, builder: nn.ELU(obj.number("alpha", 1)),
    "Tanh": lambda obj, builder: nn.Tanh(),
    "Sigmoid": lambda obj, builder: nn.Sigmoid(),
    "HardTanh": lambda obj, builder: nn.Hardtanh(obj.number("min_val", -1), obj.number("max_val", 1)),
    "Clamp": _plain(nn.Hardtanh, min_val="min_val", max_val="max_val"),
    "SoftPlus": lambda obj, builder: nn.Softplus(obj.number("beta", 1)),
    "Threshold": lambda obj, builder: nn.Threshold(obj.number("threshold", 1e-6), obj.number("val", 0)),
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
