"""Write a described network as a readable all-in-one prototxt. Imports no Caffe."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar

from multiseg.topology import Layer, Topology
from multiseg.topology.notes import notes_of
from multiseg.topology.objective import Objective, objective_of
from multiseg.topology.pooling import pooling
from multiseg.topology.vocabulary import window_pads
from multiseg.topology.writing import (
    Refused,
    axis,
    deconvolution_pads,
    factors,
    finite,
    parameter,
    statistics,
)  # fmt: skip
from multiseg_caffe.exporting.composed import FLAT, ComposedLayers
from multiseg_caffe.exporting.text import PLAIN, Fields, Word, fillers, fixed, number_field, pair, sides, windows


def source(topology: Topology, classes: bool = False) -> str:
    """Return the network as a prototxt for training, validation and deployment.

    Its loss is multiseg.topology.objective.objective_of(topology, classes), or the sum of absolute differences / batch size if
    that is None. Raises ModelError that names the layers that Caffe cannot express.
    """
    writer = _Caffe(topology, _before_logarithms(topology, objective_of(topology, classes)))
    writer.notes = notes_of(topology, classes, writes_mean=True)
    writer.write()
    return writer.text()


def _before_logarithms(topology: Topology, own: Objective | None) -> Objective | None:
    """Return the objective with the scores before a final LogSoftmax in the place of its output: their softmax is the same."""
    last = next((layer for layer in topology.layers if topology.outputs[0] in layer.outputs), None)
    if own is None or own.kind != "softmax" or last is None or own.scores != topology.outputs[0]:
        return own
    if last.type != "LogSoftmax" or axis(last, topology.shapes[last.inputs[0]]) != 1:
        return own
    return replace(own, scores=last.inputs[0])


class _Caffe(ComposedLayers):
    """Writes the layers of the file, with one method for each type; methods raise Refused for what Caffe cannot express."""

    def convolution(self, layer: Layer) -> None:
        more = self.padding.get(layer.inputs[0], [0, 0, 0, 0])
        own = window_pads(layer.parameters, self.input_shape(layer)[1:])
        pads = [a + b for a, b in zip(own, more, strict=True)]
        if pads[:2] != pads[2:] or min(pads) < 0:
            raise Refused(f"pads {sides(pads)}; Caffe supports only equal padding on opposite sides")
        here = "auto_pad" in layer.parameters and max(parameter(layer, "strides")) > 1
        self._layer(layer, "Convolution", [("convolution_param", windows(layer, pads))], here)

    def deconvolution(self, layer: Layer) -> None:
        pads, more = deconvolution_pads(layer)
        if any(more) and any(m > p for m, p in zip(more, pads[2:], strict=True)):
            raise Refused("has output padding, which Caffe's deconvolutions do not support")
        pads = [*pads[:2], *(p - m for p, m in zip(pads[2:], more, strict=True))]
        if min(pads) < 0:
            raise Refused("has negative padding")
        even = [min(pads[0], pads[2]), min(pads[1], pads[3])]
        edges = {i + 2: (pads[i] - even[i], pads[i + 2] - even[i]) for i in range(2)}
        fields: list[tuple[str, Any]] = [("convolution_param", windows(layer, even))]
        if not any(map(any, edges.values())):
            self._layer(layer, "Deconvolution", fields)
            return
        name = self.names[layer.name]
        whole = self._fresh(f"{layer.name}_whole")
        self._write(name, "Deconvolution", [self.blobs[layer.inputs[0]]], [whole], [*fixed(layer), *fields])
        shape = layer.shapes[0]
        cuts = {i: (first, first + shape[i - 1]) for i, (first, last) in edges.items() if first or last}
        sizes = {i: shape[i - 1] + sum(edges[i]) for i in cuts}
        self._cut(f"{layer.name}_edges", whole, self.blobs[layer.outputs[0]], cuts, sizes)

    def pad(self, layer: Layer) -> None:
        constant = parameter(layer, "mode") == "constant" and not parameter(layer, "value")
        readers = self.readers[layer.outputs[0]]
        only_convolutions = (
            all(reader.type == "Conv" for reader in readers) and layer.outputs[0] not in self.topology.outputs
        )
        if not (constant and readers and only_convolutions and min(layer.parameters["pads"]) >= 0):
            raise Refused("Caffe supports only padding with zeros that is followed by a convolution")
        if self.padding.get(layer.inputs[0]) is not None:
            raise Refused("follows another padding layer")
        self.padding[layer.outputs[0]] = list(layer.parameters["pads"])
        self.blobs[layer.outputs[0]] = self.blobs[layer.inputs[0]]

    def dense(self, layer: Layer) -> None:
        fields: list[tuple[str, Any]] = [("num_output", layer.parameters["num_output"])]
        self._layer(layer, "InnerProduct", [("inner_product_param", fields + fillers(layer))])

    def flatten(self, layer: Layer) -> None:
        value = layer.outputs[0]
        if all(reader.type == "Gemm" for reader in self.readers[value]) and value not in self.topology.outputs:
            self.blobs[value] = self.blobs[layer.inputs[0]]  # InnerProduct flattens its input itself
        elif (before := self.producers.get(layer.inputs[0])) and before.type in ("Reshape", "Squeeze", "Resize"):
            self._layer(layer, "Reshape", FLAT)
        else:
            self._layer(layer, "Flatten")

    def pool(self, layer: Layer) -> None:
        pool = pooling(layer, self.input_shape(layer))
        rounding = pool.rounded()
        if max(pool.dilations) > 1:
            raise Refused("has dilation, which Caffe's pooling layers do not support")
        if rounding is None:
            raise Refused(
                f"pads {sides(pool.pads)} and {'counts' if pool.counted else 'leaves out'} padding; Caffe pads opposite sides "
                "equally, and counts it in averages"
                if pool.average
                else f"pads {sides(pool.pads)}; Caffe pads opposite sides equally"
            )
        up, anywhere = rounding
        if any(p >= k for p, k in zip(pool.pads, pool.kernel, strict=False)):
            raise Refused("has padding that is not smaller than its window")
        fields = [
            ("pool", Word("AVE" if pool.average else "MAX")),
            *pair("kernel", pool.kernel, "kernel_size"),
            *(pair("stride", pool.strides) if max(pool.strides) > 1 else []),
            *(pair("pad", pool.pads[:2]) if any(pool.pads[:2]) else []),
        ]
        if not up and max(pool.strides) > 1:
            fields.append(("round_mode", Word("FLOOR")))
        self._layer(layer, "Pooling", [("pooling_param", fields)], not anywhere)

    def unpool(self, layer: Layer) -> None:
        scales = layer.parameters.get("scales")
        if scales is not None and all(float(scale).is_integer() for scale in scales):
            high, wide = map(int, scales)
            fields = [("scale", high)] if high == wide else [("scale_h", high), ("scale_w", wide)]
            self._layer(layer, "Upsample", [("upsample_param", fields)])
            return
        high, wide = layer.shapes[0][1:]
        self._layer(layer, "Upsample", [("upsample_param", [("upsample_h", high), ("upsample_w", wide)])], here=True)

    def resize(self, layer: Layer) -> None:
        sizes = list(zip(self.input_shape(layer)[1:], layer.shapes[0][1:], strict=True))
        if layer.parameters["mode"] == "nearest" and parameter(layer, "coordinates") != "align_corners":
            self._repeat(layer, [out // size if out % size == 0 else 0 for size, out in sizes])
            return
        if (layer.parameters["mode"], parameter(layer, "coordinates")) != ("linear", "align_corners"):
            raise Refused("Caffe resizes linearly with aligned corners only, with the layer Interp")
        factors = {(out - 1) // (size - 1) if size > 1 and (out - 1) % (size - 1) == 0 else 0 for size, out in sizes}
        factor = factors.pop() if len(factors) == 1 else 0
        (_, high), (_, wide) = sizes
        fields = [("zoom_factor", factor)] if factor else [("height", high), ("width", wide)]
        self._layer(layer, "Interp", [("interp_param", fields)], here=True)

    def global_pool(self, layer: Layer) -> None:
        kind = Word("AVE" if layer.type == "GlobalAveragePool" else "MAX")
        self._layer(layer, "Pooling", [("pooling_param", [("pool", kind), ("global_pooling", True)])])

    def batch_norm(self, layer: Layer) -> None:
        affine = parameter(layer, "affine")
        if affine not in (True, False):
            raise Refused(f"has only {affine}; Caffe's Scale has a weight and, optionally, a bias")
        fields = [("batch_norm_param", [("eps", number_field(parameter(layer, "epsilon"))), *self._statistics(layer)])]
        if not affine:
            self._layer(layer, "BatchNorm", fields)
            return
        name = self.names[layer.name]
        middle, factor = self._fresh(f"{layer.name}_normal"), self._fresh(f"{layer.name}_scale")
        self._write(name, "BatchNorm", [self.blobs[layer.inputs[0]]], [middle], fields)
        scale = [("scale_param", [("bias_term", True)])]
        self._write(factor, "Scale", [middle], [self.blobs[layer.outputs[0]]], scale)

    def _statistics(self, layer: Layer) -> list[tuple[str, Any]]:
        """Return the fields for the statistics that a BatchNorm uses; by default the batch's in training, else stored ones."""
        used = statistics(layer)
        fields: list[tuple[str, Any]] = []
        if used != ("batch", "stored"):
            fields.append(("use_global_stats", used == ("stored", "stored")))
        momentum = layer.parameters.get("momentum")
        if momentum == "cumulative":
            raise Refused("stores the average of all batches with equal weights; Caffe stores moving averages")
        if momentum is not None:
            fields.append(("moving_average_fraction", number_field(round(1 - momentum, 6))))
        return fields

    def scale(self, layer: Layer) -> None:
        bias = bool(layer.parameters.get("bias_term", False))
        self._layer(layer, "Scale", [("scale_param", [("bias_term", True)])] if bias else [])

    def prelu(self, layer: Layer) -> None:
        shared = parameter(layer, "num_parameters") == 1
        self._layer(layer, "PReLU", [("prelu_param", [("channel_shared", True)])] if shared else [])

    def lrn(self, layer: Layer) -> None:
        size, within = layer.parameters["size"], parameter(layer, "within_channel")
        if size % 2 == 0:
            raise Refused(f"has the even size {size}; Caffe supports only odd sizes")
        if within and float(parameter(layer, "bias")) != 1:
            raise Refused("adds a number other than 1, which Caffe always adds within a channel")
        fields = [
            ("local_size", size),
            ("alpha", number_field(parameter(layer, "alpha"))),
            ("beta", number_field(parameter(layer, "beta"))),
        ]
        fields += (
            [("norm_region", Word("WITHIN_CHANNEL"))] if within else [("k", number_field(parameter(layer, "bias")))]
        )
        self._layer(layer, "LRN", [("lrn_param", fields)])

    def leaky_relu(self, layer: Layer) -> None:
        self._layer(layer, "ReLU", [("relu_param", [("negative_slope", number_field(parameter(layer, "alpha")))])])

    def elu(self, layer: Layer) -> None:
        self._layer(layer, "ELU", [("elu_param", [("alpha", number_field(parameter(layer, "alpha")))])])

    def swish(self, layer: Layer) -> None:
        alpha = float(parameter(layer, "alpha"))
        self._layer(layer, "Swish", [("swish_param", [("beta", number_field(alpha))])] if alpha != 1 else [])

    def clip(self, layer: Layer) -> None:
        low, high = (finite(parameter(layer, key)) for key in ("min", "max"))
        largest = "3.4028235e+38"
        limits = [("min", number_field(low, f"-{largest}")), ("max", number_field(high, largest))]
        self._layer(layer, "Clip", [("clip_param", limits)])

    def softmax(self, layer: Layer) -> None:
        along = axis(layer, self.input_shape(layer))
        self._layer(layer, "Softmax", [("softmax_param", [("axis", along)])] if along != 1 else [])

    def concat(self, layer: Layer) -> None:
        along = axis(layer, self.input_shape(layer))
        self._layer(layer, "Concat", [("concat_param", [("axis", along)])] if along != 1 else [])

    def split(self, layer: Layer) -> None:
        along, sizes = axis(layer, self.input_shape(layer)), layer.parameters["split"]
        points = [("slice_point", sum(sizes[:i])) for i in range(1, len(sizes))]
        self._layer(layer, "Slice", [("slice_param", [("axis", along), *points])])
        unread = [value for value in layer.outputs if not self.readers[value] and value not in self.topology.outputs]
        if unread:  # each would be an output of the network
            self._write(self._fresh(f"{layer.name}_rest"), "Silence", [self.blobs[value] for value in unread], [], [])

    def crop(self, layer: Layer) -> None:
        first = axis(layer, self.input_shape(layer))
        offsets = [("offset", offset) for offset in layer.parameters["offset"]]
        self._layer(layer, "Crop", [("crop_param", [("axis", first), *offsets])])

    def reshape(self, layer: Layer) -> None:
        shape = layer.parameters["shape"] if layer.type == "Reshape" else layer.shapes[0]
        dims = [("dim", size) for size in (0, *shape)]
        self._layer(layer, "Reshape", [("reshape_param", [("shape", dims)])], here=True)

    def reduce(self, layer: Layer) -> None:
        input_shape = self.input_shape(layer)
        axes = sorted({axis(layer, input_shape, each) for each in layer.parameters["axes"]})
        keeps, mean = bool(parameter(layer, "keepdims")), layer.type == "ReduceMean"
        if axes != list(range(axes[0], len(input_shape) + 1)):
            raise Refused(f"reduces axes {tuple(axes)}; Caffe reduces one axis and all that follow it")
        if keeps and not (mean and len(input_shape) == 3 and axes == [2, 3]):
            raise Refused("keeps the axes that it reduces, which Caffe does not support")
        if keeps:
            self._layer(layer, "Pooling", [("pooling_param", [("pool", Word("AVE")), ("global_pooling", True)])])
            return
        fields = [("operation", Word("MEAN" if mean else "SUM")), ("axis", axes[0])]
        self._layer(layer, "Reduction", [("reduction_param", fields)])

    # --- arithmetic

    def linear(self, layer: Layer) -> None:
        """Write Add, Mul, Sub and Div, with a constant or several inputs."""
        if len(layer.inputs) == 1 and "value" in layer.parameters:
            value = float(layer.parameters["value"])
            key, operand = {
                "Add": ("shift", value), "Sub": ("shift", -value), "Mul": ("scale", value),
                "Div": ("scale", 1 / value if value else math.nan),
            }[layer.type]  # fmt: skip
            self._layer(layer, "Power", [("power_param", [(key, number_field(operand))])])
        elif layer.type == "Mul" and len({self.shapes[value] for value in layer.inputs}) > 1:
            self._products(layer)
        elif layer.type == "Mul":
            self._joined(layer, [("operation", Word("PROD"))])
        elif layer.type == "Div":
            self._divided(layer)
        else:
            self.total(layer)

    def total(self, layer: Layer) -> None:
        terms = factors(layer)
        coefficients = [("coeff", number_field(term)) for term in terms] if any(term != 1 for term in terms) else []
        if len(terms) == 1:
            self._layer(layer, "Power", [("power_param", [("scale", number_field(terms[0]))])])
        else:
            self._joined(layer, [("operation", Word("SUM")), *coefficients])

    def maximum(self, layer: Layer) -> None:
        self._joined(layer, [("operation", Word("MAX"))])

    def _joined(self, layer: Layer, fields: Fields) -> None:
        if len(layer.inputs) == 1:
            self._layer(layer, "Power")
        else:
            self._layer(layer, "Eltwise", [("eltwise_param", fields)])

    def power(self, layer: Layer) -> None:
        exponent = {"Neg": None, "Sqrt": 0.5}.get(layer.type, layer.parameters.get("exponent"))
        fields = [("scale", -1)] if exponent is None else [("power", number_field(exponent))]
        self._layer(layer, "Power", [("power_param", fields)])

    def plain(self, layer: Layer) -> None:
        self._layer(layer, PLAIN[layer.type])

    rules: ClassVar = {
        "Conv": convolution, "ConvTranspose": deconvolution, "Gemm": dense, "MaxPool": pool, "AveragePool": pool,
        "MaxUnpool": unpool, "Resize": resize,
        "GlobalAveragePool": global_pool, "GlobalMaxPool": global_pool, "BatchNormalization": batch_norm,
        "Scale": scale, "PRelu": prelu, "LRN": lrn, "Dropout": ComposedLayers.dropout, "Pad": pad, "Flatten": flatten,
        "Reshape": reshape, "Squeeze": reshape, "Slice": ComposedLayers.cut, "Crop": crop, "Concat": concat, "Split": split,
        "ReduceMean": reduce, "ReduceSum": reduce, "Add": linear, "Sub": linear, "Mul": linear, "Div": linear,
        "Sum": total, "Max": maximum, "Clip": clip, "Elu": elu, "Swish": swish, "LeakyRelu": leaky_relu,
        "ThresholdedRelu": ComposedLayers.thresholded, "Softmax": softmax, "LogSoftmax": ComposedLayers.log_softmax,
        **dict.fromkeys(("Pow", "Neg", "Sqrt"), power),
        **dict.fromkeys(("Relu", "Sigmoid", "Tanh", "Softplus", "Abs", "Exp", "Log", "Identity"), plain),
    }  # fmt: skip
