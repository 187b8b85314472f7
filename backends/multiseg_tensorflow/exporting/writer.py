"""A described network as a DIGITS TensorFlow file that a person would keep. Imports no tensorflow: it is text.

Values of images are NHWC in the file; all others have their axes in neutral order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from multiseg.topology import Layer, Topology
from multiseg.topology.pooling import Pooling, pooling
from multiseg.topology.python_source import PythonWriter, bounds, grouped
from multiseg.topology.vocabulary import window_pads
from multiseg.topology.writing import (
    Refused,
    axis,
    deconvolution_pads,
    finite,
    number,
    said,
    slices,
)  # fmt: skip
from multiseg_tensorflow.exporting.frame import LEAST_EPSILON, NEUTRAL, TowerFrame
from multiseg_tensorflow.exporting.text import ON_EACH, PLACES, paddings, window_options


def source(topology: Topology, classes: bool = False) -> str:
    """The network as Python source with a class ``UserModel``.

    Its loss is the mean squared difference; the mean cross entropy where labels are ``classes``' numbers. Raises ModelError
    naming the layers that TensorFlow cannot express.
    """
    writer = _TensorFlow(topology)
    writer.write()
    return writer.text(classes)


class _TensorFlow(TowerFrame):
    """The layers of the file, one method for each kind."""

    def convolution(self, layer: Layer) -> None:
        pads = window_pads(layer.parameters, self.taken(layer)[1:])
        net, padding = self._padded(layer, pads, "0")
        options = window_options(layer, padding)
        dilations = said(layer, "dilations")
        if max(dilations) > 1:
            options += f", dilations={list(dilations)}"
        kernel = list(layer.parameters["kernel_shape"])
        call = f"convolution({net}, {self._scope(layer)}, {layer.parameters['num_output']}, {kernel}{options}"
        self._assign(layer, f"{call}{grouped(layer)})")

    def deconvolution(self, layer: Layer) -> None:
        pads, more = deconvolution_pads(layer)
        kernel, strides = layer.parameters["kernel_shape"], said(layer, "strides")
        if max(said(layer, "dilations")) > 1:
            raise Refused("has dilation, which its transposed convolutions have not")
        if any(m >= s or m < 0 for m, s in zip(more, strides, strict=True)):
            raise Refused(f"output padding {tuple(more)} must be smaller than the stride")
        if min(pads) < 0:
            raise Refused("has negative padding")
        over = [max(k - s, 0) for k, s in zip(kernel, strides, strict=True)]
        same = pads == [over[0] // 2, over[1] // 2, over[0] - over[0] // 2, over[1] - over[1] // 2]
        same = same and list(more) == [max(s - k, 0) for k, s in zip(kernel, strides, strict=True)]
        same = same and (any(pads) or any(more))
        options = window_options(layer, "SAME" if same else "VALID")
        if any(more) and not same:
            options += f", more={list(more)}"
        call = f"deconvolution({self._first(layer)}, {self._scope(layer)}, {layer.parameters['num_output']}, {list(kernel)}"
        call += f"{options}{grouped(layer)})"
        if any(pads) and not same:
            call += f"[:, {bounds(pads[0], -pads[2] or None)}, {bounds(pads[1], -pads[3] or None)}, :]"
        self._assign(layer, call)

    def dense(self, layer: Layer) -> None:
        bias = "" if said(layer, "bias_term") else ", bias=False"
        units = layer.parameters["num_output"]
        self._assign(layer, f"dense({self._first(layer)}, {self._scope(layer)}, {units}{bias})")

    def pool(self, layer: Layer) -> None:
        pool = pooling(layer, self.taken(layer))
        beyond, here = _beyond(pool)
        kernel, strides = ([1, *each, 1] for each in (pool.kernel, pool.strides))
        if max(pool.dilations) > 1:
            raise Refused("has dilation, which its pooling layers have not")
        if pool.up and not any(pool.pads) and all(k == s <= 2 for k, s in zip(pool.kernel, pool.strides, strict=True)):
            # pairs, and a single pixel at an odd end: SAME at any size
            function = "avg_pool" if pool.average else "max_pool"
            self._assign(layer, f"tf.nn.{function}({self._first(layer)}, {kernel}, {strides}, 'SAME')")
            return
        if not pool.average:
            net, padding = self._padded(layer, beyond, "float('-inf')")
            self._assign(layer, f"tf.nn.max_pool({net}, {kernel}, {strides}, '{padding}')", here and padding != "SAME")
            return
        same = not pool.counted and not pool.up and self._same(layer, pool.pads)
        level = pool.alike(pads=pool.pads, ceil_mode=False, count_include_pad=True)  # zeros that count are all it takes
        if same and (pool.same or any(pool.pads)):
            self._assign(layer, f"tf.nn.avg_pool({self._first(layer)}, {kernel}, {strides}, 'SAME')")
        elif level:
            net, _ = self._padded(layer, pool.pads, "0", may_be_same=False)
            fixed = pool.up or pool.fixed or (any(pool.pads) and not pool.counted)
            self._assign(layer, f"tf.nn.avg_pool({net}, {kernel}, {strides}, 'VALID')", fixed)
        else:
            counted = pool.pads if pool.counted else [0, 0, 0, 0]
            rest = [a - b for a, b in zip(beyond, counted, strict=True)]
            if min(rest) < 0:
                raise Refused("its windows end before the padding that its averages count")
            call = f"average({self._first(layer)}, {kernel}, {strides}, {paddings(counted)}, {paddings(rest)})"
            self._assign(layer, call, here)

    def _same(self, layer: Layer, pads: Sequence[int]) -> bool:
        """Whether padding SAME is these pads, for images of any size."""
        if layer.parameters.get("auto_pad") == "SAME_UPPER":
            return True
        windows = {key: layer.parameters[key] for key in ("kernel_shape", "dilations") if key in layer.parameters}
        same = window_pads({**windows, "auto_pad": "SAME_UPPER"}, self.taken(layer)[1:])
        return max(said(layer, "strides")) == 1 and list(pads) == same

    def _padded(self, layer: Layer, pads: list[int], value: str, may_be_same: bool = True) -> tuple[str, str]:
        """The layer's input, padded where VALID or SAME do not, and which of these it is."""
        net = self._first(layer)
        if min(pads) < 0:
            rows, columns = (bounds(-min(pads[i], 0), min(pads[i + 2], 0) or None) for i in range(2))
            net, pads = f"{net}[:, {rows}, {columns}, :]", [max(each, 0) for each in pads]
        elif may_be_same and ("auto_pad" in layer.parameters or any(pads)) and self._same(layer, pads):
            return net, "SAME"
        if any(pads):
            filled = "" if value == "0" else f", constant_values={value}"
            net = f"tf.pad({net}, {paddings(pads)}{filled})"
        return net, "VALID"

    def global_pool(self, layer: Layer) -> None:
        function = "mean" if layer.type == "GlobalAveragePool" else "max"
        self._assign(layer, f"tf.reduce_{function}({self._first(layer)}, [1, 2], keepdims=True)")

    def batch_norm(self, layer: Layer) -> None:
        affine = said(layer, "affine")
        options = f"epsilon={number(said(layer, 'epsilon'))}"
        if affine is True or affine == "weight":
            options += ", scale=True"
        if affine is False or affine == "weight":
            options += ", center=False"
        if float(said(layer, "epsilon")) < LEAST_EPSILON:
            options += ", fused=False"
        call = f"slim.batch_norm({self._first(layer)}, {options}, is_training=self.is_training, scope={self._scope(layer)})"
        self._assign(layer, call)

    def scale(self, layer: Layer) -> None:
        if len(self.taken(layer)) == 2:
            raise Refused(f"scales the first of the axes {self.taken(layer)}, which are no image's")
        bias = ", bias=True" if layer.parameters.get("bias_term", False) else ""
        self._assign(layer, f"scale({self._first(layer)}, {self._scope(layer)}{bias})")

    def prelu(self, layer: Layer) -> None:
        if len(self.taken(layer)) == 2 and said(layer, "num_parameters") > 1:
            raise Refused(f"has a slope for each of the first of the axes {self.taken(layer)}, which are no image's")
        self._assign(layer, f"prelu({self._first(layer)}, {self._scope(layer)}, {said(layer, 'num_parameters')})")

    def lrn(self, layer: Layer) -> None:
        size, net = layer.parameters["size"], self._first(layer)
        alpha, beta, bias = (float(said(layer, key)) for key in ("alpha", "beta", "bias"))
        if size % 2 == 0:
            raise Refused(f"has the even size {size}, where it knows odd ones only")
        if said(layer, "within_channel"):
            r = size // 2
            squares = f"tf.pad(tf.square({net}), {paddings([r] * 4)})"
            mean = f"tf.nn.avg_pool({squares}, [1, {size}, {size}, 1], [1, 1, 1, 1], 'VALID')"
            self._assign(layer, f"{net} * ({number(bias)} + {number(alpha)} * {mean}) ** -{number(beta)}")
            return
        options = f"depth_radius={size // 2}, bias={number(bias)}, alpha={number(alpha)} / {size}, beta={number(beta)}"
        self._assign(layer, f"tf.nn.local_response_normalization({net}, {options})")

    def dropout(self, layer: Layer) -> None:
        ratio = float(said(layer, "ratio"))
        self._assign(layer, f"slim.dropout({self._first(layer)}, {number(1 - ratio)}, is_training=self.is_training)")

    def resize(self, layer: Layer) -> None:
        taken, made = self.taken(layer), layer.shapes[0]
        mode, coordinates, scales = layer.parameters["mode"], said(layer, "coordinates"), layer.parameters.get("scales")
        function = {"nearest": "nearest_neighbor", "linear": "bilinear"}.get(mode)
        if function is None or coordinates not in ("asymmetric", "align_corners", "half_pixel"):
            raise Refused(f"has no {mode} resizing with {coordinates} coordinates")
        whole = scales and all(n * s == m for n, m, s in zip(taken[1:], made[1:], scales, strict=True))
        if scales and not whole and coordinates != "align_corners":
            raise Refused(f"scales {tuple(scales)} make no whole number of pixels of {taken[1]}x{taken[2]}")
        net = self._first(layer)
        size = f"[{made[1]}, {made[2]}]"
        if scales and all(float(s).is_integer() for s in scales):
            size = f"[{net}.shape.as_list()[1] * {int(scales[0])}, {net}.shape.as_list()[2] * {int(scales[1])}]"
        how = {"asymmetric": "", "align_corners": ", align_corners=True", "half_pixel": ", half_pixel_centers=True"}
        self._assign(layer, f"tf.image.resize_{function}({net}, {size}{how[coordinates]})", "shape" not in size)

    def pad(self, layer: Layer) -> None:
        pads, mode = list(layer.parameters["pads"]), said(layer, "mode")
        if mode not in ("constant", "reflect"):
            raise Refused(f"has no padding of mode {mode}")
        if min(pads) < 0:
            raise Refused("has negative padding")
        value = said(layer, "value") or 0.0
        how = ", mode='REFLECT'" if mode == "reflect" else f", constant_values={number(value)}" if value else ""
        self._assign(layer, f"tf.pad({self._first(layer)}, {paddings(pads)}{how})")

    # --- shapes

    def _as_neutral(self, layer: Layer) -> str:
        """The first input with its axes in neutral order."""
        net, taken = self._first(layer), self.taken(layer)
        spatial = len(taken) == 3 and taken[1] * taken[2] > 1 and taken[0] > 1
        return f"tf.transpose({net}, {list(PLACES)})" if spatial else net

    def _assign_neutral(self, layer: Layer, expression: str, here: bool = False) -> None:
        """Assign what has its axes in neutral order."""
        made = layer.shapes[0]
        self._assign(layer, f"tf.transpose({expression}, {list(NEUTRAL)})" if len(made) == 3 else expression, here)

    def flatten(self, layer: Layer) -> None:
        self._assign(layer, f"tf.reshape({self._as_neutral(layer)}, [-1, {layer.shapes[0][0]}])", here=True)

    def reshape(self, layer: Layer) -> None:
        made = layer.shapes[0]
        self._assign_neutral(layer, f"tf.reshape({self._as_neutral(layer)}, {[-1, *made]})", here=True)

    def transpose(self, layer: Layer) -> None:
        perm = list(layer.parameters["perm"])
        if len(perm) == 4:
            perm = [PLACES[perm[each]] for each in NEUTRAL]
        self._assign(layer, f"tf.transpose({self._first(layer)}, {perm})")

    def cut(self, layer: Layer) -> None:
        taken = self.taken(layer)
        ranges = [":"] * (len(taken) + 1)
        for place, (start, end) in slices(layer, taken).items():
            ranges[PLACES[place] if len(taken) == 3 else place] = bounds(start, end)
        self._assign(layer, f"{self._first(layer)}[{', '.join(ranges)}]")

    def crop(self, layer: Layer) -> None:
        net, like = self._inputs(layer)
        taken = self.taken(layer)
        first = axis(layer, taken)
        offset = list(layer.parameters["offset"]) * (len(taken) + 1)
        ranges = [":"] * (len(taken) + 1)
        for index in range(first, len(taken) + 1):
            place, start = PLACES[index] if len(taken) == 3 else index, offset[index - first]
            end = f"{like}.shape.as_list()[{place}]"
            ranges[place] = f"{start}:{start} + {end}" if start else f":{end}"
        self._assign(layer, f"{net}[{', '.join(ranges)}]")

    def concat(self, layer: Layer) -> None:
        self._assign(layer, f"tf.concat([{', '.join(self._inputs(layer))}], {self._place(layer)})")

    def split(self, layer: Layer) -> None:
        sizes, one = list(layer.parameters["split"]), "[0]" if len(layer.outputs) == 1 else ""
        self._assign(layer, f"tf.split({self._first(layer)}, {sizes}, {self._place(layer)}){one}")

    def reduce(self, layer: Layer) -> None:
        taken, keeps = self.taken(layer), bool(said(layer, "keepdims"))
        axes = sorted({axis(layer, taken, each) for each in layer.parameters["axes"]})
        function = "reduce_mean" if layer.type == "ReduceMean" else "reduce_sum"
        places = [PLACES[each] if len(taken) == 3 else each for each in axes]
        call = f"tf.{function}({self._first(layer)}, {sorted(places)}{', keepdims=True' if keeps else ''})"
        if len(taken) == 3 and len(axes) == 1 and axes != [1] and not keeps:  # what stays is (N, W or H, C)
            call = f"tf.transpose({call}, [0, 2, 1])"
        self._assign(layer, call)

    # --- elementwise

    def clip(self, layer: Layer) -> None:
        low, high = (finite(said(layer, key)) for key in ("min", "max"))
        net = self._first(layer)
        if (low, high) == (0, 6):
            net = f"tf.nn.relu6({net})"
        elif low is not None and high is not None:
            net = f"tf.clip_by_value({net}, {number(low)}, {number(high)})"
        elif low is not None or high is not None:
            net = f"tf.maximum({net}, {number(low)})" if low is not None else f"tf.minimum({net}, {number(high or 0)})"
        self._assign(layer, net)

    def elu(self, layer: Layer) -> None:
        net, alpha = self._first(layer), float(said(layer, "alpha"))
        beyond = f"tf.nn.relu({net}) + {number(alpha)} * tf.math.expm1(tf.minimum({net}, 0.0))"
        self._assign(layer, f"tf.nn.elu({net})" if alpha == 1 else beyond)

    def swish(self, layer: Layer) -> None:
        net, alpha = self._first(layer), float(said(layer, "alpha"))
        scaled = f"{net} * tf.sigmoid({number(alpha)} * {net})"
        self._assign(layer, f"tf.nn.swish({net})" if alpha == 1 else scaled)

    def softmax(self, layer: Layer) -> None:
        function = "softmax" if layer.type == "Softmax" else "log_softmax"
        place, last = self._place(layer), len(self.taken(layer))
        self._assign(layer, f"tf.nn.{function}({self._first(layer)}{'' if place == last else f', axis={place}'})")

    def on_each(self, layer: Layer) -> None:
        net = self._first(layer)
        alpha = number(said(layer, "alpha")) if layer.type in ("LeakyRelu", "ThresholdedRelu") else ""
        exponent = number(layer.parameters["exponent"]) if layer.type == "Pow" else ""
        self._assign(layer, ON_EACH[layer.type].format(net=net, alpha=alpha, exponent=exponent))

    def _scope(self, layer: Layer) -> str:
        return repr(self.scopes[layer.name])

    rules: ClassVar = {
        "Conv": convolution, "ConvTranspose": deconvolution, "Gemm": dense, "MaxPool": pool, "AveragePool": pool,
        "GlobalAveragePool": global_pool, "GlobalMaxPool": global_pool, "BatchNormalization": batch_norm,
        "Scale": scale, "PRelu": prelu, "LRN": lrn, "Dropout": dropout, "Resize": resize, "Pad": pad,
        "Flatten": flatten, "Reshape": reshape, "Squeeze": reshape, "Transpose": transpose, "Slice": cut, "Crop": crop,
        "Concat": concat, "Split": split, "ReduceMean": reduce, "ReduceSum": reduce,
        **PythonWriter.shared,
        "Clip": clip, "Elu": elu, "Swish": swish, "Softmax": softmax, "LogSoftmax": softmax,
        **dict.fromkeys(
            ("Relu", "LeakyRelu", "ThresholdedRelu", "Sigmoid", "Tanh", "Softplus", "Abs", "Exp", "Log", "Neg", "Sqrt",
             "Pow", "Identity"), on_each
        ),
    }  # fmt: skip


def _beyond(pool: Pooling) -> tuple[list[int], bool]:
    """How far windows reach beyond the image on each side, and whether that holds for this size only.

    Rounding up is a stride less one of padding below and right, but where it would add a window that begins there.
    """
    ends, here = [], pool.fixed
    for i in range(2):
        after, reach, stride = pool.pads[i + 2], pool.reach[i], pool.strides[i]
        if pool.up and stride + after <= reach:
            after += stride - 1
        elif pool.up:
            count, size = pool.layer.shapes[0][i + 1], pool.taken[i + 1]
            after, here = (count - 1) * stride + reach - pool.pads[i] - size, True
        ends.append(after)
    return [*pool.pads[:2], *ends], here
