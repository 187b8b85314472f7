"""Layers of the vocabulary that Caffe has no layer for, written as several of its layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multiseg.topology import Layer
from multiseg.topology.writing import Refused, axis, parameter, slices
from multiseg_caffe.exporting.frame import DEPLOYMENT, PrototxtFrame
from multiseg_caffe.exporting.text import Fields, Word, number_field

# The fields of a Reshape to vectors; see multiseg_caffe.vectors for why it is no Flatten
FLAT: Fields = [("reshape_param", [("shape", [("dim", 0), ("dim", -1)])])]


class ComposedLayers(PrototxtFrame):
    """Writes layers as several layers of Caffe; methods raise Refused for what these cannot express."""

    def dropout(self, layer: Layer) -> None:
        fields: Fields = [("dropout_param", [("dropout_ratio", number_field(parameter(layer, "ratio")))])]
        if not parameter(layer, "channelwise") or len(self.input_shape(layer)) == 1:  # a channel is one element
            self._layer(layer, "Dropout", fields)
            return
        # dropout of ones, one for each channel, which are the factors of the channels
        bottom = self.blobs[layer.inputs[0]]
        names = [self._fresh(f"{layer.name}_{part}") for part in ("channels", "ones", "kept")]
        pooling = ("pooling_param", [("pool", Word("AVE")), ("global_pooling", True)])
        ones = ("power_param", [("scale", 0), ("shift", 1)])
        self._write(names[0], "Pooling", [bottom], [names[0]], [pooling])
        self._write(names[1], "Power", [names[0]], [names[1]], [ones])
        self._write(names[2], "Dropout", [names[1]], [names[2]], fields)
        self._per_channel(layer, self.names[layer.name], bottom, names[2], self.blobs[layer.outputs[0]])

    def _per_channel(self, layer: Layer, name: str, bottom: str, factors_blob: str, top: str) -> None:
        """Append a Scale by one factor for each channel and image, from a blob of (N, C, 1, 1)."""
        flat = self._fresh(f"{layer.name}_factors")
        self._write(flat, "Reshape", [factors_blob], [flat], FLAT)
        self._write(name, "Scale", [bottom, flat], [top], [("scale_param", [("axis", 0)])])

    def thresholded(self, layer: Layer) -> None:
        if float(parameter(layer, "alpha")) != 0:
            raise Refused("has a threshold, for which Caffe has no gradient")
        value = float(parameter(layer, "value"))
        if value == 0:
            self._layer(layer, "ReLU")
            return
        # ReLU, plus the value where the input is not above 0: 1 - the input times 1e38, clipped to 0 and 1
        bottom = self.blobs[layer.inputs[0]]
        names = [self._fresh(f"{layer.name}_{part}") for part in ("relu", "steep", "above", "below")]
        below = ("power_param", [("scale", number_field(-value)), ("shift", number_field(value))])
        self._write(names[0], "ReLU", [bottom], [names[0]], [])
        self._write(names[1], "Power", [bottom], [names[1]], [("power_param", [("scale", number_field(1e38))])])
        self._write(names[2], "Clip", [names[1]], [names[2]], [("clip_param", [("min", 0), ("max", 1)])])
        self._write(names[3], "Power", [names[2]], [names[3]], [below])
        sum_fields = [("eltwise_param", [("operation", Word("SUM"))])]
        self._write(self.names[layer.name], "Eltwise", [names[0], names[3]], [self.blobs[layer.outputs[0]]], sum_fields)

    def log_softmax(self, layer: Layer) -> None:
        own, output = self.objective, layer.outputs[0]
        along = axis(layer, self.input_shape(layer))
        if own is None or own.scores == output or output not in self.topology.outputs or self.readers[output]:
            raise Refused(
                "Caffe has no such layer with a gradient; it can be exported as the last layer, with a cross entropy as the loss"
            )
        # The loss takes the scores before it. With the largest score m and its probability q, which is at least 1 / classes,
        # log softmax(x) = x - m + log q, which is finite for all scores.
        scores = self.blobs[layer.inputs[0]]
        parts = ("largest", "all_largest", "shifted", "probabilities", "certainty", "logarithm", "logarithms")
        steps = {part: self._fresh(f"{layer.name}_{part}") for part in parts}

        def step(part: str, type: str, bottoms: list[str], fields: Fields = ()) -> None:
            self._write(steps[part], type, bottoms, [steps[part]], [*fields, DEPLOYMENT])

        largest: Fields = [("argmax_param", [("out_max_val", True), ("axis", along)])]
        difference = [("eltwise_param", [("operation", Word("SUM")), ("coeff", 1), ("coeff", -1)])]
        total = [("eltwise_param", [("operation", Word("SUM"))]), DEPLOYMENT]
        tiles = [("tile_param", [("axis", along), ("tiles", layer.shapes[0][along - 1])])]
        step("largest", "ArgMax", [scores], largest)
        step("all_largest", "Tile", [steps["largest"]], tiles)
        step("shifted", "Eltwise", [scores, steps["all_largest"]], difference)
        step("probabilities", "Softmax", [scores], [("softmax_param", [("axis", along)])] if along != 1 else [])
        step("certainty", "ArgMax", [steps["probabilities"]], largest)
        step("logarithm", "Log", [steps["certainty"]])
        step("logarithms", "Tile", [steps["logarithm"]], tiles)
        bottoms = [steps["shifted"], steps["logarithms"]]
        self._write(self.names[layer.name], "Eltwise", bottoms, [self.blobs[output]], total)

    def cut(self, layer: Layer) -> None:
        input_shape = self.input_shape(layer)
        cuts = {}
        for place, (start, end) in slices(layer, input_shape).items():
            first, last, _ = slice(start, end).indices(input_shape[place - 1])
            cuts[place] = (first, last)
        sizes = {place: input_shape[place - 1] for place in cuts}
        self._cut(layer.name, self.blobs[layer.inputs[0]], self.blobs[layer.outputs[0]], cuts, sizes)

    def _cut(
        self, name: str, bottom: str, top: str, cuts: Mapping[int, tuple[int, int]], sizes: Mapping[int, int]
    ) -> None:
        """Append a Slice for each axis, from ``first`` to ``last`` of its size, and a Silence for the parts cut off."""
        if not cuts:
            raise Refused("returns all of its input")
        rest: list[str] = []
        for count, (place, (first, last)) in enumerate(cuts.items(), 1):
            is_last = count == len(cuts)
            layer_name = self.names.get(name) if is_last else None
            label = layer_name or self._fresh(f"{name}_axis{place}")
            kept = top if is_last else label
            before, after = first > 0, last < sizes[place]
            tops = [kept]
            if before:
                tops.insert(0, self._fresh(f"{label}_before"))
            if after:
                tops.append(self._fresh(f"{label}_after"))
            rest += [blob for blob in tops if blob != kept]
            points = [("slice_point", point) for point, is_cut in ((first, before), (last, after)) if is_cut]
            if place > 1:
                self.lines.append(self.only)
            self._write(label, "Slice", [bottom], tops, [("slice_param", [("axis", place), *points])])
            bottom = kept
        self._write(self._fresh(f"{name}_rest"), "Silence", rest, [], [])

    def _repeat(self, layer: Layer, factors: list[int]) -> None:
        """Write a nearest resizing by whole factors: every pixel is repeated, first along rows, then along columns."""
        if min(factors) < 1:
            raise Refused("repeats pixels a number of times that is not whole, which Caffe does not support")
        channels, _, wide = layer.shapes[0]
        bottom, last = self.blobs[layer.inputs[0]], self.names[layer.name]

        def step(part: str, type: str, fields: tuple[str, Any]) -> str:
            name = self._fresh(f"{layer.name}_{part}")
            self._write(name, type, [bottom], [name], [fields])
            return name

        def shape(*dims: int) -> tuple[str, Any]:
            return "reshape_param", [("shape", [("dim", size) for size in dims])]

        bottom = step("pixels", "Reshape", shape(0, -1, 1))
        bottom = step("columns", "Tile", ("tile_param", [("axis", 2), ("tiles", factors[1])]))
        self.lines.append(self.only)
        bottom = step("rows", "Reshape", shape(0, -1, 1, wide))
        bottom = step("repeated", "Tile", ("tile_param", [("axis", 2), ("tiles", factors[0])]))
        self.lines.append(self.only)
        self._write(last, "Reshape", [bottom], [self.blobs[layer.outputs[0]]], [shape(0, channels, -1, wide)])

    def _products(self, layer: Layer) -> None:
        """Write a product some of whose factors have one value for each channel."""
        first, *others = layer.inputs
        shape, bottom = self.shapes[first], self.blobs[first]
        for count, other in enumerate(others, 1):
            last = count == len(others)
            name = self.names[layer.name] if last else self._fresh(f"{layer.name}_{count}")
            top = self.blobs[layer.outputs[0]] if last else name
            if self.shapes[other] == shape:
                fields = [("eltwise_param", [("operation", Word("PROD"))])]
                self._write(name, "Eltwise", [bottom, self.blobs[other]], [top], fields)
            else:
                self._per_channel(layer, name, bottom, self.blobs[other], top)
            bottom = top

    def _divided(self, layer: Layer) -> None:
        first, *others = (self.blobs[value] for value in layer.inputs)
        inverses = []
        for other in others:
            name = self._fresh(f"{layer.name}_inverse")
            self._write(name, "Power", [other], [name], [("power_param", [("power", -1)])])
            inverses.append(name)
        fields = [("eltwise_param", [("operation", Word("PROD"))])]
        self._write(self.names[layer.name], "Eltwise", [first, *inverses], [self.blobs[layer.outputs[0]]], fields)
