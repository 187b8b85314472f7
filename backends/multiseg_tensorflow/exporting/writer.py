"""Export a topology as a readable DIGITS TensorFlow file. Does not import tensorflow.

In the file, images are NHWC; all other values have their axes in neutral order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from multiseg.topology import Layer, Topology
from multiseg.topology.notes import notes_of
from multiseg.topology.objective import objective_of
from multiseg.topology.pooling import Pooling, pooling
from multiseg.topology.python_source import PythonWriter, bounds, grouped
from multiseg.topology.vocabulary import window_pads
from multiseg.topology.writing import (
    Refused,
    axis,
    deconvolution_pads,
    finite,
    number,
    parameter,
    slices,
    statistics,
)  # fmt: skip
from multiseg_tensorflow.exporting.frame import LEAST_EPSILON, NEUTRAL, TowerFrame
from multiseg_tensorflow.exporting.text import ELEMENTWISE, PLACES, paddings, training_options, window_options


def source(topology: Topology, classes: bool = False) -> str:
    """Return the network as Python source with a class ``UserModel``.

    Its loss is multiseg.topology.objective.objective_of(topology, classes), or the mean squared difference if that is None.
    Raises ModelError that names the layers that TensorFlow cannot express.
    """
    writer = _TensorFlow(topology, objective_of(topology, classes))
    writer.notes = notes_of(topology, classes)
    writer.write()
    return writer.text()


class _TensorFlow(TowerFrame):
    """Writes the statements of the layers, one method for each kind of layer; ``rules`` maps layer types to methods."""

    def convolution(self, layer: Layer) -> None:
        pads = window_pads(layer.parameters, self.input_shape(layer)[1:])
        net, padding = self._padded(layer, pads, "0")
        options = window_options(layer, padding)
        dilations = parameter(layer, "dilations")
        if max(dilations) > 1:
            options += f", dilations={list(dilations)}"
        kernel = list(layer.parameters["kernel_shape"])
        call = f"convolution({net}, {self._scope(layer)}, {layer.parameters['num_output']}, {kernel}{options}"
        self._assign(layer, f"{call}{grouped(layer)}{training_options(layer)})")

    def deconvolution(self, layer: Layer) -> None:
        pads, output_padding = deconvolution_pads(layer)
        kernel, strides = layer.parameters["kernel_shape"], parameter(layer, "strides")
        if max(parameter(layer, "dilations")) > 1:
            raise Refused("has dilation, which transposed convolutions of TensorFlow do not support")
        if any(m >= s or m < 0 for m, s in zip(output_padding, strides, strict=True)):
            raise Refused(f"output padding {tuple(output_padding)} must be smaller than the stride")
        if min(pads) < 0:
            raise Refused("has negative padding")
        totals = [max(k - s, 0) for k, s in zip(kernel, strides, strict=True)]
        same = pads == [totals[0] // 2, totals[1] // 2, totals[0] - totals[0] // 2, totals[1] - totals[1] // 2]
        same = same and list(output_padding) == [max(s - k, 0) for k, s in zip(kernel, strides, strict=True)]
        same = same and (any(pads) or any(output_padding))
        options = window_options(layer, "SAME" if same else "VALID")
        if any(output_padding) and not same:
            options += f", more={list(output_padding)}"
        call = f"deconvolution({self._first(layer)}, {self._scope(layer)}, {layer.parameters['num_output']}, {list(kernel)}"
        call += f"{options}{grouped(layer)}{training_options(layer)})"
        if any(pads) and not same:
            call += f"[:, {bounds(pads[0], -pads[2] or None)}, {bounds(pads[1], -pads[3] or None)}, :]"
        self._assign(layer, call)

    def dense(self, layer: Layer) -> None:
        bias = "" if parameter(layer, "bias_term") else ", bias=False"
        units = layer.parameters["num_output"]
        self._assign(
            layer, f"dense({self._first(layer)}, {self._scope(layer)}, {units}{bias}{training_options(layer)})"
        )

    def pool(self, layer: Layer) -> None:
        pool = pooling(layer, self.input_shape(layer))
        window_reach, size_specific = _window_pads(pool)
        kernel, strides = ([1, *sizes, 1] for sizes in (pool.kernel, pool.strides))
        if max(pool.dilations) > 1:
            raise Refused("has dilation, which pooling layers of TensorFlow do not support")
        if len(layer.outputs) > 1:
            self._pool_with_indices(layer, pool, kernel, strides)
            return
        if _is_same_for_any_size(pool):
            function = "avg_pool" if pool.average else "max_pool"
            self._assign(layer, f"tf.nn.{function}({self._first(layer)}, {kernel}, {strides}, 'SAME')")
            return
        if not pool.average:
            net, padding = self._padded(layer, window_reach, "float('-inf')")
            call = f"tf.nn.max_pool({net}, {kernel}, {strides}, '{padding}')"
            self._assign(layer, call, size_specific and padding != "SAME")
            return
        same = not pool.counted and not pool.up and self._same(layer, pool.pads)
        plain = pool.alike(
            pads=pool.pads, ceil_mode=False, count_include_pad=True
        )  # zero padding that counts is enough
        if same and (pool.same or any(pool.pads)):
            self._assign(layer, f"tf.nn.avg_pool({self._first(layer)}, {kernel}, {strides}, 'SAME')")
        elif plain:
            net, _ = self._padded(layer, pool.pads, "0", may_be_same=False)
            fixed = pool.up or pool.fixed or (any(pool.pads) and not pool.counted)
            self._assign(layer, f"tf.nn.avg_pool({net}, {kernel}, {strides}, 'VALID')", fixed)
        else:
            counted = pool.pads if pool.counted else [0, 0, 0, 0]
            rest = [a - b for a, b in zip(window_reach, counted, strict=True)]
            if min(rest) < 0:
                raise Refused("its windows do not cover the padding that counts in its averages")
            call = f"average({self._first(layer)}, {kernel}, {strides}, {paddings(counted)}, {paddings(rest)})"
            self._assign(layer, call, size_specific)

    def _pool_with_indices(self, layer: Layer, pool: Pooling, kernel: list[int], strides: list[int]) -> None:
        pads, size_specific = _window_pads(pool)
        shape_in, shape_out = self.input_shape(layer), layer.shapes[0]
        fits = all((m - 1) * s + k <= n for n, m, s, k in zip(
            shape_in[1:], shape_out[1:], pool.strides, pool.kernel, strict=True
        ))  # fmt: skip
        same = _is_same_for_any_size(pool) or self._same(layer, pads)
        if not same and (any(pool.pads) or not fits):
            raise Refused(f"pads {tuple(pads)}; TensorFlow gives indices of maxima only without padding or with SAME")
        call = f"max_pool_with_indices({self._first(layer)}, {kernel}, {strides}, '{'SAME' if same else 'VALID'}')"
        self._assign(layer, call, size_specific and not same)

    def unpool(self, layer: Layer) -> None:
        net, indices = self._inputs(layer)
        source = next((other for other in self.layers if layer.inputs[1] in other.outputs), None)
        if source is None or source.type != "MaxPool":
            raise Refused("its indices are not those of a max pooling")
        if any(k > s for k, s in zip(source.parameters["kernel_shape"], parameter(source, "strides"), strict=True)):
            raise Refused("windows of its max pooling overlap, so that several values may have one place")
        scales = layer.parameters.get("scales")
        if scales and all(float(s).is_integer() for s in scales):
            sizes = [f"{net}.shape.as_list()[{axis}] * {int(s)}" for axis, s in enumerate(scales, 1)]
        else:
            sizes = [str(n) for n in layer.shapes[0][1:]]
        self._assign(layer, f"max_unpool({net}, {indices}, {', '.join(sizes)})", not scales)

    def _same(self, layer: Layer, pads: Sequence[int]) -> bool:
        """Return whether the padding SAME equals ``pads`` for images of any size."""
        if layer.parameters.get("auto_pad") == "SAME_UPPER":
            return True
        windows = {key: layer.parameters[key] for key in ("kernel_shape", "dilations") if key in layer.parameters}
        same = window_pads({**windows, "auto_pad": "SAME_UPPER"}, self.input_shape(layer)[1:])
        return max(parameter(layer, "strides")) == 1 and list(pads) == same

    def _padded(self, layer: Layer, pads: list[int], value: str, may_be_same: bool = True) -> tuple[str, str]:
        """Return the layer's input, explicitly padded if needed, and the padding, VALID or SAME, for the operation."""
        net = self._first(layer)
        if min(pads) < 0:
            rows, columns = (bounds(-min(pads[i], 0), min(pads[i + 2], 0) or None) for i in range(2))
            net, pads = f"{net}[:, {rows}, {columns}, :]", [max(pad, 0) for pad in pads]
        elif may_be_same and ("auto_pad" in layer.parameters or any(pads)) and self._same(layer, pads):
            return net, "SAME"
        if any(pads):
            fill = "" if value == "0" else f", constant_values={value}"
            net = f"tf.pad({net}, {paddings(pads)}{fill})"
        return net, "VALID"

    def global_pool(self, layer: Layer) -> None:
        function = "mean" if layer.type == "GlobalAveragePool" else "max"
        self._assign(layer, f"tf.reduce_{function}({self._first(layer)}, [1, 2], keepdims=True)")

    def batch_norm(self, layer: Layer) -> None:
        if len(self.input_shape(layer)) == 2:
            raise Refused(
                f"normalises along the first axis of a value of shape {self.input_shape(layer)}, which is not an image"
            )
        affine = parameter(layer, "affine")
        options = f"epsilon={number(parameter(layer, 'epsilon'))}"
        if affine is True or affine == "weight":
            options += ", scale=True"
        if affine is False or affine == "weight":
            options += ", center=False"
        if float(parameter(layer, "epsilon")) < LEAST_EPSILON:
            options += ", fused=False"
        used = statistics(layer)
        training = {("stored", "stored"): "False", ("batch", "batch"): "True"}.get(used, "self.is_training")
        momentum = layer.parameters.get("momentum")
        if momentum == "cumulative":
            raise Refused(
                "stores the average of all batches with equal weights; slim.batch_norm stores moving averages"
            )
        if momentum is not None:
            options += f", decay={number(1 - momentum)}"
        call = f"slim.batch_norm({self._first(layer)}, {options}, is_training={training}, scope={self._scope(layer)})"
        self._assign(layer, call)

    def scale(self, layer: Layer) -> None:
        if len(self.input_shape(layer)) == 2:
            raise Refused(f"scales the first axis of a value of shape {self.input_shape(layer)}, which is not an image")
        bias = ", bias=True" if layer.parameters.get("bias_term", False) else ""
        self._assign(layer, f"scale({self._first(layer)}, {self._scope(layer)}{bias}{training_options(layer)})")

    def prelu(self, layer: Layer) -> None:
        if len(self.input_shape(layer)) == 2 and parameter(layer, "num_parameters") > 1:
            raise Refused(
                f"has slopes for the first axis of a value of shape {self.input_shape(layer)}, which is not an image"
            )
        slopes = parameter(layer, "num_parameters")
        self._assign(layer, f"prelu({self._first(layer)}, {self._scope(layer)}, {slopes}{training_options(layer)})")

    def lrn(self, layer: Layer) -> None:
        size, net = layer.parameters["size"], self._first(layer)
        alpha, beta, bias = (float(parameter(layer, key)) for key in ("alpha", "beta", "bias"))
        if size % 2 == 0:
            raise Refused(f"has the even size {size}; TensorFlow supports odd sizes only")
        if parameter(layer, "within_channel"):
            r = size // 2
            squares = f"tf.pad(tf.square({net}), {paddings([r] * 4)})"
            mean = f"tf.nn.avg_pool({squares}, [1, {size}, {size}, 1], [1, 1, 1, 1], 'VALID')"
            self._assign(layer, f"{net} * ({number(bias)} + {number(alpha)} * {mean}) ** -{number(beta)}")
            return
        options = f"depth_radius={size // 2}, bias={number(bias)}, alpha={number(alpha)} / {size}, beta={number(beta)}"
        self._assign(layer, f"tf.nn.local_response_normalization({net}, {options})")

    def dropout(self, layer: Layer) -> None:
        ratio = float(parameter(layer, "ratio"))
        net, shape = self._first(layer), ""
        if parameter(layer, "channelwise") and len(self.input_shape(layer)) == 3:
            shape = f", [tf.shape({net})[0], 1, 1, {self.input_shape(layer)[0]}]"
        self._assign(layer, f"slim.dropout({net}, {number(1 - ratio)}{shape}, is_training=self.is_training)")

    def resize(self, layer: Layer) -> None:
        shape_in, shape_out = self.input_shape(layer), layer.shapes[0]
        mode, coordinates, scales = (
            layer.parameters["mode"],
            parameter(layer, "coordinates"),
            layer.parameters.get("scales"),
        )
        function = {"nearest": "nearest_neighbor", "linear": "bilinear"}.get(mode)
        if function is None or coordinates not in ("asymmetric", "align_corners", "half_pixel"):
            raise Refused(f"TensorFlow does not support {mode} resizing with {coordinates} coordinates")
        whole = scales and all(n * s == m for n, m, s in zip(shape_in[1:], shape_out[1:], scales, strict=True))
        if scales and not whole and coordinates != "align_corners":
            raise Refused(f"scales {tuple(scales)} give no whole number of pixels for {shape_in[1]}x{shape_in[2]}")
        net = self._first(layer)
        size = f"[{shape_out[1]}, {shape_out[2]}]"
        if scales and all(float(s).is_integer() for s in scales):
            size = f"[{net}.shape.as_list()[1] * {int(scales[0])}, {net}.shape.as_list()[2] * {int(scales[1])}]"
        options = {"asymmetric": "", "align_corners": ", align_corners=True", "half_pixel": ", half_pixel_centers=True"}
        self._assign(layer, f"tf.image.resize_{function}({net}, {size}{options[coordinates]})", "shape" not in size)

    def pad(self, layer: Layer) -> None:
        pads, mode = list(layer.parameters["pads"]), parameter(layer, "mode")
        if mode not in ("constant", "reflect"):
            raise Refused(f"TensorFlow does not support padding of mode {mode}")
        if min(pads) < 0:
            raise Refused("has negative padding")
        value = parameter(layer, "value") or 0.0
        option = ", mode='REFLECT'" if mode == "reflect" else f", constant_values={number(value)}" if value else ""
        self._assign(layer, f"tf.pad({self._first(layer)}, {paddings(pads)}{option})")

    # --- shapes

    def _as_neutral(self, layer: Layer) -> str:
        """Return the first input with its axes in neutral order."""
        net, shape = self._first(layer), self.input_shape(layer)
        spatial = len(shape) == 3 and shape[1] * shape[2] > 1 and shape[0] > 1
        return f"tf.transpose({net}, {list(PLACES)})" if spatial else net

    def _assign_neutral(self, layer: Layer, expression: str, size_specific: bool = False) -> None:
        """Assign an expression whose axes are in neutral order."""
        shape = layer.shapes[0]
        nhwc = f"tf.transpose({expression}, {list(NEUTRAL)})" if len(shape) == 3 else expression
        self._assign(layer, nhwc, size_specific)

    def flatten(self, layer: Layer) -> None:
        self._assign(layer, f"tf.reshape({self._as_neutral(layer)}, [-1, {layer.shapes[0][0]}])", size_specific=True)

    def reshape(self, layer: Layer) -> None:
        shape = layer.shapes[0]
        self._assign_neutral(layer, f"tf.reshape({self._as_neutral(layer)}, {[-1, *shape]})", size_specific=True)

    def transpose(self, layer: Layer) -> None:
        perm = list(layer.parameters["perm"])
        if len(perm) == 4:
            perm = [PLACES[perm[index]] for index in NEUTRAL]
        if perm == list(PLACES):
            raise Refused("in TensorFlow's files this transposition is the change from NHWC to NCHW, which is no layer")
        self._assign(layer, f"tf.transpose({self._first(layer)}, {perm})")

    def cut(self, layer: Layer) -> None:
        shape = self.input_shape(layer)
        ranges = [":"] * (len(shape) + 1)
        for place, (start, end) in slices(layer, shape).items():
            ranges[PLACES[place] if len(shape) == 3 else place] = bounds(start, end)
        self._assign(layer, f"{self._first(layer)}[{', '.join(ranges)}]")

    def crop(self, layer: Layer) -> None:
        net, like = self._inputs(layer)
        shape = self.input_shape(layer)
        first = axis(layer, shape)
        offset = list(layer.parameters["offset"]) * (len(shape) + 1)
        ranges = [":"] * (len(shape) + 1)
        for index in range(first, len(shape) + 1):
            place, start = PLACES[index] if len(shape) == 3 else index, offset[index - first]
            end = f"{like}.shape.as_list()[{place}]"
            ranges[place] = f"{start}:{start} + {end}" if start else f":{end}"
        self._assign(layer, f"{net}[{', '.join(ranges)}]")

    def concat(self, layer: Layer) -> None:
        self._assign(layer, f"tf.concat([{', '.join(self._inputs(layer))}], {self._place(layer)})")

    def split(self, layer: Layer) -> None:
        sizes, one = list(layer.parameters["split"]), "[0]" if len(layer.outputs) == 1 else ""
        self._assign(layer, f"tf.split({self._first(layer)}, {sizes}, {self._place(layer)}){one}")

    def reduce(self, layer: Layer) -> None:
        shape, keeps = self.input_shape(layer), bool(parameter(layer, "keepdims"))
        axes = sorted({axis(layer, shape, index) for index in layer.parameters["axes"]})
        function = "reduce_mean" if layer.type == "ReduceMean" else "reduce_sum"
        places = [PLACES[index] if len(shape) == 3 else index for index in axes]
        call = f"tf.{function}({self._first(layer)}, {sorted(places)}{', keepdims=True' if keeps else ''})"
        if len(shape) == 3 and len(axes) == 1 and axes != [1] and not keeps:  # the result is (N, W or H, C)
            call = f"tf.transpose({call}, [0, 2, 1])"
        self._assign(layer, call)

    # --- elementwise

    def clip(self, layer: Layer) -> None:
        low, high = (finite(parameter(layer, key)) for key in ("min", "max"))
        net = self._first(layer)
        if (low, high) == (0, 6):
            net = f"tf.nn.relu6({net})"
        elif low is not None and high is not None:
            net = f"tf.clip_by_value({net}, {number(low)}, {number(high)})"
        elif low is not None or high is not None:
            net = f"tf.maximum({net}, {number(low)})" if low is not None else f"tf.minimum({net}, {number(high or 0)})"
        self._assign(layer, net)

    def elu(self, layer: Layer) -> None:
        net, alpha = self._first(layer), float(parameter(layer, "alpha"))
        general = f"tf.nn.relu({net}) + {number(alpha)} * tf.math.expm1(tf.minimum({net}, 0.0))"
        self._assign(layer, f"tf.nn.elu({net})" if alpha == 1 else general)

    def swish(self, layer: Layer) -> None:
        net, alpha = self._first(layer), float(parameter(layer, "alpha"))
        scaled = f"{net} * tf.sigmoid({number(alpha)} * {net})"
        self._assign(layer, f"tf.nn.swish({net})" if alpha == 1 else scaled)

    def softmax(self, layer: Layer) -> None:
        function = "softmax" if layer.type == "Softmax" else "log_softmax"
        place, last = self._place(layer), len(self.input_shape(layer))
        self._assign(layer, f"tf.nn.{function}({self._first(layer)}{'' if place == last else f', axis={place}'})")

    def elementwise(self, layer: Layer) -> None:
        net = self._first(layer)
        alpha = number(parameter(layer, "alpha")) if layer.type in ("LeakyRelu", "ThresholdedRelu") else ""
        exponent = number(layer.parameters["exponent"]) if layer.type == "Pow" else ""
        value = float(parameter(layer, "value")) if layer.type == "ThresholdedRelu" else 0.0
        other = f"tf.fill(tf.shape({net}), {number(value)})" if value else f"tf.zeros_like({net})"
        text = ELEMENTWISE[layer.type].format(net=net, alpha=alpha, exponent=exponent, other=other)
        self._assign(layer, text)

    def _scope(self, layer: Layer) -> str:
        return repr(self.scopes[layer.name])

    rules: ClassVar = {
        "Conv": convolution, "ConvTranspose": deconvolution, "Gemm": dense, "MaxPool": pool, "AveragePool": pool,
        "MaxUnpool": unpool, "GlobalAveragePool": global_pool, "GlobalMaxPool": global_pool, "BatchNormalization": batch_norm,
        "Scale": scale, "PRelu": prelu, "LRN": lrn, "Dropout": dropout, "Resize": resize, "Pad": pad,
        "Flatten": flatten, "Reshape": reshape, "Squeeze": reshape, "Transpose": transpose, "Slice": cut, "Crop": crop,
        "Concat": concat, "Split": split, "ReduceMean": reduce, "ReduceSum": reduce,
        **PythonWriter.shared,
        "Clip": clip, "Elu": elu, "Swish": swish, "Softmax": softmax, "LogSoftmax": softmax,
        **dict.fromkeys(
            ("Relu", "LeakyRelu", "ThresholdedRelu", "Sigmoid", "Tanh", "Softplus", "Abs", "Exp", "Log", "Neg", "Sqrt",
             "Pow", "Identity"), elementwise
        ),
    }  # fmt: skip


def _is_same_for_any_size(pool: Pooling) -> bool:
    """Return whether windows are of up to 2 pixels, and of 1 at the end of an odd size, which SAME equals for any size."""
    whole = all(k == s <= 2 for k, s in zip(pool.kernel, pool.strides, strict=True))
    return pool.up and not any(pool.pads) and whole


def _window_pads(pool: Pooling) -> tuple[list[int], bool]:
    """Return the padding that the windows cover (top, left, bottom, right), and whether it is valid for this size only.

    Rounding the size up equals ``stride - 1`` of padding below and right, unless that adds a window that starts in it.
    """
    ends, size_specific = [], pool.fixed
    for i in range(2):
        after, reach, stride = pool.pads[i + 2], pool.reach[i], pool.strides[i]
        if pool.up and stride + after <= reach:
            after += stride - 1
        elif pool.up:
            count, size = pool.layer.shapes[0][i + 1], pool.input_shape[i + 1]
            after, size_specific = (count - 1) * stride + reach - pool.pads[i] - size, True
        ends.append(after)
    return [*pool.pads[:2], *ends], size_specific
