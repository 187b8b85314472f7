"""A described network as an all-in-one prototxt that a person would keep. Imports no Caffe: it is text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from multiseg.topology import Layer, Topology
from multiseg.topology.pooling import pooling
from multiseg.topology.shapes import window_pads
from multiseg.topology.writing import (
    Refused,
    Writer,
    axis,
    deconvolution_pads,
    distinct,
    factors,
    finite,
    number,
    said,
    slices,
)  # fmt: skip

Fields = Sequence[tuple[str, Any]]  # names and values; text is quoted, a Word is not, a list of fields is a message


class Word(str):
    """A name of Caffe's, such as MAX, or a number as it is to be written."""


DEPLOYED = [("exclude", [("stage", "deploy")])]
RESERVED = ("data", "label", "loss", "loss_difference", "loss_each")
# What writes over its input: layers whose gradients do with what they made, and what makes an input that is so overwritten.
IN_PLACE = ("Relu", "Dropout")
OVERWRITTEN = ("Conv", "ConvTranspose", "Gemm", "BatchNormalization", "Scale", "Sum", "Concat", *IN_PLACE)


def source(topology: Topology, classes: bool = False) -> str:
    """The network as a prototxt for training, validation and deployment.

    Its loss is the sum of absolute differences / batch size; the mean cross entropy where labels are ``classes``' numbers.
    Raises ModelError naming the layers that Caffe cannot express.
    """
    writer = _Caffe(topology)
    writer.write()
    return writer.text(classes)


class _Caffe(Writer):
    title = "Caffe"

    def __init__(self, topology: Topology) -> None:
        super().__init__(topology)
        self.names = distinct((layer.name for layer in self.layers), str, RESERVED)
        values = [topology.input, *(value for layer in self.layers for value in layer.outputs)]
        self.blobs = distinct(values, lambda value: "data" if value == topology.input else value, ("label", "loss"))
        self.makers = {value: layer for layer in self.layers for value in layer.outputs}
        self.padding: dict[str, list[int]] = {}  # of values that only convolutions take, which pad them themselves
        self.added: set[str] = set()  # names that the description has not
        self.lines: list[str] = []

    def text(self, classes: bool) -> str:
        """The whole file."""
        topology = self.topology
        head = [
            f"# {topology.source} ({topology.kind}) in Caffe, for images of {self.size} (channels, height, width):",
            "# for training, validation and deployment, all in one.",
            f"name: {json.dumps(topology.source, ensure_ascii=False)}",
        ]
        body, self.lines = self.lines, []
        for rule in ([("phase", Word("TRAIN"))], [("phase", Word("TEST")), ("stage", "val")]):
            for blob in ("data", "label"):
                self._write(blob, "Data", [], [blob], [("include", rule)])
        data, self.lines = self.lines, []
        output = self.blobs[topology.outputs[0]]
        if classes:
            self._write("loss", "SoftmaxWithLoss", [self._scores(), "label"], ["loss"], DEPLOYED)
        else:
            subtract = [("eltwise_param", [("operation", Word("SUM")), ("coeff", 1), ("coeff", -1)])]
            each = [("reduction_param", [("operation", Word("ASUM")), ("axis", 1)])]
            mean = [("loss_weight", 1), ("reduction_param", [("operation", Word("MEAN"))])]
            self._write("loss_difference", "Eltwise", [output, "label"], ["loss_difference"], [*subtract, *DEPLOYED])
            self._write("loss_each", "Reduction", ["loss_difference"], ["loss_each"], [*each, *DEPLOYED])
            self._write("loss", "Reduction", ["loss_each"], ["loss"], [*mean, *DEPLOYED])
        return "\n".join([*head, *data, *body, *self.lines]) + "\n"

    def _scores(self) -> str:
        """The blob that SoftmaxWithLoss takes: what a Softmax at the end takes itself."""
        last = self.layers[-1]
        value = last.inputs[0] if last.type == "Softmax" else self.topology.outputs[0]
        return self.blobs[value]

    # --- layers

    def _write(self, name: str, type: str, bottoms: Sequence[str], tops: Sequence[str], fields: Fields) -> None:
        ends = [*(("bottom", each) for each in bottoms), *(("top", each) for each in tops)]
        self.lines += ["layer {", *_indented([("name", name), ("type", type), *ends, *fields]), "}"]

    def _layer(self, layer: Layer, type: str, fields: Fields = (), here: bool = False) -> None:
        """One layer of the same name; over its input where that is safe."""
        bottoms = [self.blobs[value] for value in layer.inputs]
        if layer.type in IN_PLACE and self._may_overwrite(layer.inputs[0]):
            self.blobs[layer.outputs[0]] = bottoms[0]
        if here:
            self.lines.append(self.only)
        self._write(self.names[layer.name], type, bottoms, [self.blobs[value] for value in layer.outputs], fields)

    def _may_overwrite(self, value: str) -> bool:
        maker = self.makers.get(value)
        alone = len(self.readers[value]) == 1 and value not in self.topology.outputs
        return alone and maker is not None and maker.type in OVERWRITTEN

    def _fresh(self, name: str) -> str:
        """A name for a layer and a blob that the description has not."""
        taken = {*self.names.values(), *self.blobs.values(), *self.added, *RESERVED}
        free, count = name, 1
        while free in taken:
            count += 1
            free = f"{name}_{count}"
        self.added.add(free)
        return free

    def convolution(self, layer: Layer) -> None:
        more = self.padding.get(layer.inputs[0], [0, 0, 0, 0])
        own = window_pads(layer.parameters, self.taken(layer)[1:])
        pads = [a + b for a, b in zip(own, more, strict=True)]
        if pads[:2] != pads[2:] or min(pads) < 0:
            raise Refused(f"pads {_sides(pads)}, where it knows the same padding on opposite sides only")
        here = "auto_pad" in layer.parameters and max(said(layer, "strides")) > 1
        self._layer(layer, "Convolution", [("convolution_param", _windows(layer, pads))], here)

    def deconvolution(self, layer: Layer) -> None:
        pads, more = deconvolution_pads(layer)
        if any(more) and any(m > p for m, p in zip(more, pads[2:], strict=True)):
            raise Refused("has output padding, which its deconvolutions have not")
        pads = [*pads[:2], *(p - m for p, m in zip(pads[2:], more, strict=True))]
        if min(pads) < 0:
            raise Refused("has negative padding")
        even = [min(pads[0], pads[2]), min(pads[1], pads[3])]
        edges = {i + 2: (pads[i] - even[i], pads[i + 2] - even[i]) for i in range(2)}
        fields = [("convolution_param", _windows(layer, even))]
        if not any(map(any, edges.values())):
            self._layer(layer, "Deconvolution", fields)
            return
        name = self.names[layer.name]
        whole = self._fresh(f"{layer.name}_whole")
        self._write(name, "Deconvolution", [self.blobs[layer.inputs[0]]], [whole], fields)
        made = layer.shapes[0]
        cuts = {i: (first, first + made[i - 1]) for i, (first, last) in edges.items() if first or last}
        sizes = {i: made[i - 1] + sum(edges[i]) for i in cuts}
        self._cut(f"{layer.name}_edges", whole, self.blobs[layer.outputs[0]], cuts, sizes)

    def pad(self, layer: Layer) -> None:
        constant = said(layer, "mode") == "constant" and not said(layer, "value")
        readers = self.readers[layer.outputs[0]]
        alone = all(each.type == "Conv" for each in readers) and layer.outputs[0] not in self.topology.outputs
        if not (constant and readers and alone and min(layer.parameters["pads"]) >= 0):
            raise Refused("it pads with zeros, and within a convolution, only")
        before = self.padding.get(layer.inputs[0])
        if before is not None:
            raise Refused("follows another one")
        self.padding[layer.outputs[0]] = list(layer.parameters["pads"])
        self.blobs[layer.outputs[0]] = self.blobs[layer.inputs[0]]

    def dense(self, layer: Layer) -> None:
        fields: list[tuple[str, Any]] = [("num_output", layer.parameters["num_output"])]
        self._layer(layer, "InnerProduct", [("inner_product_param", fields + _fillers(layer))])

    def flatten(self, layer: Layer) -> None:
        value = layer.outputs[0]
        if all(each.type == "Gemm" for each in self.readers[value]) and value not in self.topology.outputs:
            self.blobs[value] = self.blobs[layer.inputs[0]]  # InnerProduct takes it as it is
        else:
            self._layer(layer, "Flatten")

    def pool(self, layer: Layer) -> None:
        pool = pooling(layer, self.taken(layer))
        found = pool.rounded()
        if max(pool.dilations) > 1:
            raise Refused("has dilation, which its pooling layers have not")
        if found is None:
            raise Refused(
                f"pads {_sides(pool.pads)} and {'counts' if pool.counted else 'leaves out'} padding; Caffe pads opposite sides "
                "alike, and counts it in averages"
                if pool.average
                else f"pads {_sides(pool.pads)}, where Caffe pads opposite sides alike"
            )
        up, anywhere = found
        if any(p >= k for p, k in zip(pool.pads, pool.kernel, strict=False)):
            raise Refused("has padding that is not smaller than its window")
        fields = [
            ("pool", Word("AVE" if pool.average else "MAX")),
            *_pair("kernel", pool.kernel, "kernel_size"),
            *(_pair("stride", pool.strides) if max(pool.strides) > 1 else []),
            *(_pair("pad", pool.pads[:2]) if any(pool.pads[:2]) else []),
        ]
        if not up and max(pool.strides) > 1:
            fields.append(("round_mode", Word("FLOOR")))
        self._layer(layer, "Pooling", [("pooling_param", fields)], not anywhere)

    def global_pool(self, layer: Layer) -> None:
        kind = Word("AVE" if layer.type == "GlobalAveragePool" else "MAX")
        self._layer(layer, "Pooling", [("pooling_param", [("pool", kind), ("global_pooling", True)])])

    def batch_norm(self, layer: Layer) -> None:
        affine = said(layer, "affine")
        if affine not in (True, False):
            raise Refused(f"has {affine} alone; its Scale has a weight and may have a bias")
        fields = [("batch_norm_param", [("eps", _number(said(layer, "epsilon")))])]
        if not affine:
            self._layer(layer, "BatchNorm", fields)
            return
        name = self.names[layer.name]
        middle, factor = self._fresh(f"{layer.name}_normal"), self._fresh(f"{layer.name}_scale")
        self._write(name, "BatchNorm", [self.blobs[layer.inputs[0]]], [middle], fields)
        scale = [("scale_param", [("bias_term", True)])]
        self._write(factor, "Scale", [middle], [self.blobs[layer.outputs[0]]], scale)

    def scale(self, layer: Layer) -> None:
        bias = bool(layer.parameters.get("bias_term", False))
        self._layer(layer, "Scale", [("scale_param", [("bias_term", True)])] if bias else [])

    def prelu(self, layer: Layer) -> None:
        shared = said(layer, "num_parameters") == 1
        self._layer(layer, "PReLU", [("prelu_param", [("channel_shared", True)])] if shared else [])

    def lrn(self, layer: Layer) -> None:
        size, within = layer.parameters["size"], said(layer, "within_channel")
        if size % 2 == 0:
            raise Refused(f"has the even size {size}, where Caffe knows odd ones only")
        if within and float(said(layer, "bias")) != 1:
            raise Refused("adds another number than 1, as Caffe does within a channel")
        fields = [
            ("local_size", size),
            ("alpha", _number(said(layer, "alpha"))),
            ("beta", _number(said(layer, "beta"))),
        ]
        fields += [("norm_region", Word("WITHIN_CHANNEL"))] if within else [("k", _number(said(layer, "bias")))]
        self._layer(layer, "LRN", [("lrn_param", fields)])

    def dropout(self, layer: Layer) -> None:
        self._layer(layer, "Dropout", [("dropout_param", [("dropout_ratio", _number(said(layer, "ratio")))])])

    def leaky_relu(self, layer: Layer) -> None:
        self._layer(layer, "ReLU", [("relu_param", [("negative_slope", _number(said(layer, "alpha")))])])

    def elu(self, layer: Layer) -> None:
        self._layer(layer, "ELU", [("elu_param", [("alpha", _number(said(layer, "alpha")))])])

    def thresholded(self, layer: Layer) -> None:
        if float(said(layer, "alpha")) != 0:
            raise Refused("has a threshold, of which Caffe has no gradient")
        self._layer(layer, "ReLU")

    def clip(self, layer: Layer) -> None:
        low, high = (finite(said(layer, key)) for key in ("min", "max"))
        largest = "3.4028235e+38"
        limits = [("min", _number(low, f"-{largest}")), ("max", _number(high, largest))]
        self._layer(layer, "Clip", [("clip_param", limits)])

    def softmax(self, layer: Layer) -> None:
        along = axis(layer, self.taken(layer))
        self._layer(layer, "Softmax", [("softmax_param", [("axis", along)])] if along != 1 else [])

    def log_softmax(self, layer: Layer) -> None:
        raise Refused("it has none; the Log of a Softmax is not finite where a probability is 0")

    def concat(self, layer: Layer) -> None:
        along = axis(layer, self.taken(layer))
        self._layer(layer, "Concat", [("concat_param", [("axis", along)])] if along != 1 else [])

    def split(self, layer: Layer) -> None:
        along, sizes = axis(layer, self.taken(layer)), layer.parameters["split"]
        points = [("slice_point", sum(sizes[:i])) for i in range(1, len(sizes))]
        self._layer(layer, "Slice", [("slice_param", [("axis", along), *points])])

    def cut(self, layer: Layer) -> None:
        taken = self.taken(layer)
        cuts = {}
        for place, (start, end) in slices(layer, taken).items():
            first, last, _ = slice(start, end).indices(taken[place - 1])
            cuts[place] = (first, last)
        sizes = {place: taken[place - 1] for place in cuts}
        self._cut(layer.name, self.blobs[layer.inputs[0]], self.blobs[layer.outputs[0]], cuts, sizes)

    def _cut(
        self, name: str, bottom: str, top: str, cuts: Mapping[int, tuple[int, int]], sizes: Mapping[int, int]
    ) -> None:
        """Slices along each axis, and Silence for what is left over."""
        if not cuts:
            raise Refused("takes all of its input")
        rest: list[str] = []
        for count, (place, (first, last)) in enumerate(cuts.items(), 1):
            end = count == len(cuts)
            own = self.names.get(name) if end else None
            label = own or self._fresh(f"{name}_axis{place}")
            made = top if end else label
            before, after = first > 0, last < sizes[place]
            tops = [made]
            if before:
                tops.insert(0, self._fresh(f"{label}_before"))
            if after:
                tops.append(self._fresh(f"{label}_after"))
            rest += [each for each in tops if each != made]
            points = [("slice_point", point) for point, is_cut in ((first, before), (last, after)) if is_cut]
            if place > 1:
                self.lines.append(self.only)
            self._write(label, "Slice", [bottom], tops, [("slice_param", [("axis", place), *points])])
            bottom = made
        self._write(self._fresh(f"{name}_rest"), "Silence", rest, [], [])

    def crop(self, layer: Layer) -> None:
        first = axis(layer, self.taken(layer))
        offsets = [("offset", each) for each in layer.parameters["offset"]]
        self._layer(layer, "Crop", [("crop_param", [("axis", first), *offsets])])

    def reshape(self, layer: Layer) -> None:
        made = layer.parameters["shape"] if layer.type == "Reshape" else layer.shapes[0]
        dims = [("dim", each) for each in (0, *made)]
        self._layer(layer, "Reshape", [("reshape_param", [("shape", dims)])], here=True)

    def reduce(self, layer: Layer) -> None:
        taken = self.taken(layer)
        axes = sorted({axis(layer, taken, each) for each in layer.parameters["axes"]})
        keeps, mean = bool(said(layer, "keepdims")), layer.type == "ReduceMean"
        if axes != list(range(axes[0], len(taken) + 1)):
            raise Refused(f"reduces axes {tuple(axes)}, where Caffe reduces all from one on")
        if keeps and not (mean and len(taken) == 3 and axes == [2, 3]):
            raise Refused("keeps the axes that it reduces")
        if keeps:
            self._layer(layer, "Pooling", [("pooling_param", [("pool", Word("AVE")), ("global_pooling", True)])])
            return
        fields = [("operation", Word("MEAN" if mean else "SUM")), ("axis", axes[0])]
        self._layer(layer, "Reduction", [("reduction_param", fields)])

    # --- arithmetic

    def linear(self, layer: Layer) -> None:
        """Add, Mul, Sub and Div: of a constant, or of several inputs."""
        if len(layer.inputs) == 1 and "value" in layer.parameters:
            value = float(layer.parameters["value"])
            key, operand = {
                "Add": ("shift", value), "Sub": ("shift", -value), "Mul": ("scale", value),
                "Div": ("scale", 1 / value if value else math.nan),
            }[layer.type]  # fmt: skip
            self._layer(layer, "Power", [("power_param", [(key, _number(operand))])])
        elif layer.type == "Mul":
            self._joined(layer, [("operation", Word("PROD"))])
        elif layer.type == "Div":
            self._divided(layer)
        else:
            self.total(layer)

    def total(self, layer: Layer) -> None:
        found = factors(layer)
        coefficients = [("coeff", _number(each)) for each in found] if any(each != 1 for each in found) else []
        if len(found) == 1:
            self._layer(layer, "Power", [("power_param", [("scale", _number(found[0]))])])
        else:
            self._joined(layer, [("operation", Word("SUM")), *coefficients])

    def maximum(self, layer: Layer) -> None:
        self._joined(layer, [("operation", Word("MAX"))])

    def _joined(self, layer: Layer, fields: Fields) -> None:
        if len(layer.inputs) == 1:
            self._layer(layer, "Power")
        else:
            self._layer(layer, "Eltwise", [("eltwise_param", fields)])

    def _divided(self, layer: Layer) -> None:
        first, *others = (self.blobs[value] for value in layer.inputs)
        inverses = []
        for other in others:
            name = self._fresh(f"{layer.name}_inverse")
            self._write(name, "Power", [other], [name], [("power_param", [("power", -1)])])
            inverses.append(name)
        fields = [("eltwise_param", [("operation", Word("PROD"))])]
        self._write(self.names[layer.name], "Eltwise", [first, *inverses], [self.blobs[layer.outputs[0]]], fields)

    def power(self, layer: Layer) -> None:
        exponent = {"Neg": None, "Sqrt": 0.5}.get(layer.type, layer.parameters.get("exponent"))
        fields = [("scale", -1)] if exponent is None else [("power", _number(exponent))]
        self._layer(layer, "Power", [("power_param", fields)])

    def plain(self, layer: Layer) -> None:
        self._layer(layer, PLAIN[layer.type])

    rules: ClassVar = {
        "Conv": convolution, "ConvTranspose": deconvolution, "Gemm": dense, "MaxPool": pool, "AveragePool": pool,
        "GlobalAveragePool": global_pool, "GlobalMaxPool": global_pool, "BatchNormalization": batch_norm,
        "Scale": scale, "PRelu": prelu, "LRN": lrn, "Dropout": dropout, "Pad": pad, "Flatten": flatten,
        "Reshape": reshape, "Squeeze": reshape, "Slice": cut, "Crop": crop, "Concat": concat, "Split": split,
        "ReduceMean": reduce, "ReduceSum": reduce, "Add": linear, "Sub": linear, "Mul": linear, "Div": linear,
        "Sum": total, "Max": maximum, "Clip": clip, "Elu": elu, "LeakyRelu": leaky_relu,
        "ThresholdedRelu": thresholded, "Softmax": softmax, "LogSoftmax": log_softmax,
        **dict.fromkeys(("Pow", "Neg", "Sqrt"), power),
        **dict.fromkeys(("Relu", "Sigmoid", "Tanh", "Softplus", "Abs", "Exp", "Log", "Identity"), plain),
    }  # fmt: skip


PLAIN = {
    "Relu": "ReLU", "Sigmoid": "Sigmoid", "Tanh": "TanH", "Softplus": "BNLL", "Abs": "AbsVal", "Exp": "Exp", "Log": "Log",
    "Identity": "Power",
}  # fmt: skip


def _windows(layer: Layer, pads: Sequence[int]) -> list[tuple[str, Any]]:
    """Fields of a ConvolutionParameter."""
    strides, dilations, groups = (said(layer, key) for key in ("strides", "dilations", "group"))
    if dilations[0] != dilations[1]:
        dilation: list[tuple[str, Any]] = [("dilation", each) for each in dilations]
    else:
        dilation = [("dilation", dilations[0])] if dilations[0] > 1 else []
    return [
        ("num_output", layer.parameters["num_output"]),
        *_pair("kernel", layer.parameters["kernel_shape"], "kernel_size"),
        *(_pair("stride", strides) if max(strides) > 1 else []),
        *(_pair("pad", pads[:2]) if any(pads[:2]) else []),
        *dilation,
        *([("group", groups)] if groups != 1 else []),
        *_fillers(layer),
    ]


def _fillers(layer: Layer) -> list[tuple[str, Any]]:
    """Weights that start at random: Caffe's own default is 0."""
    bias = [] if said(layer, "bias_term") else [("bias_term", False)]
    return [*bias, ("weight_filler", [("type", "xavier")])]


def _pair(name: str, values: Sequence[int], square: str = "") -> list[tuple[str, Any]]:
    high, wide = values
    return [(square or name, high)] if high == wide else [(f"{name}_h", high), (f"{name}_w", wide)]


def _number(value: float | None, otherwise: str = "") -> Word:
    return Word(otherwise if value is None else number(value).removesuffix(".0"))


def _sides(pads: Sequence[int]) -> str:
    return "{} above, {} left, {} below, {} right".format(*pads)


def _indented(fields: Fields, depth: int = 1) -> list[str]:
    lines = []
    for name, value in fields:
        if isinstance(value, (list, tuple)):
            inner = _indented(value, depth + 1)
            short = f"{'  ' * depth}{name} {{ {' '.join(line.strip() for line in inner)} }}"
            plain = len(inner) == len(value) and len(short) <= 60
            lines += [short] if plain else [f"{'  ' * depth}{name} {{", *inner, f"{'  ' * depth}}}"]
        elif isinstance(value, bool):
            lines.append(f"{'  ' * depth}{name}: {'true' if value else 'false'}")
        else:
            text = (
                json.dumps(value, ensure_ascii=False)
                if isinstance(value, str) and not isinstance(value, Word)
                else value
            )
            lines.append(f"{'  ' * depth}{name}: {text}")
    return lines
