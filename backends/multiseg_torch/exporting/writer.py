"""Write a described network as readable source of a PyTorch module. Does not import torch."""

from __future__ import annotations

from typing import ClassVar

from multiseg.topology import Layer, Topology
from multiseg.topology.notes import notes_of
from multiseg.topology.objective import objective_of
from multiseg.topology.pooling import pooling
from multiseg.topology.python_source import PythonWriter, bounds, grouped
from multiseg.topology.vocabulary import window_pads
from multiseg.topology.writing import (
    Refused,
    axis,
    deconvolution_pads,
    finite,
    number,
    pair,
    parameter,
    slices,
    statistics,
)  # fmt: skip
from multiseg_torch.exporting.frame import ModuleFrame
from multiseg_torch.exporting.text import (
    FUNCTIONS,
    ON_EACH,
    constant_pad,
    padding,
    windows,
    zero_pad,
)


def source(topology: Topology, classes: bool = False) -> str:
    """Return the network as Python source with a function ``network(params)``.

    Its loss is multiseg.topology.objective.objective_of(topology, classes), or the mean smooth L1 difference if that is None.
    Raises ModelError, naming the layers that PyTorch cannot express.
    """
    writer = _Torch(topology, objective_of(topology, classes))
    writer.notes = notes_of(topology, classes)
    writer.write()
    return writer.text()


def names(topology: Topology) -> dict[str, str]:
    """Return the attribute names in the file of the layers that lead to the output, by layer name."""
    return _Torch(topology).modules


class _Torch(ModuleFrame):
    def convolution(self, layer: Layer) -> None:
        input_shape, parameters = self.input_shape(layer), layer.parameters
        top, left, bottom, right = window_pads(parameters, input_shape[1:])
        here = "auto_pad" in parameters and max(parameter(layer, "strides")) > 1
        even = (top, left) == (bottom, right) and min(top, left) >= 0
        arguments = windows(layer, [top, left] if even else [0, 0])
        constructor = f"nn.Conv2d({input_shape[0]}, {parameters['num_output']}, {arguments}{grouped(layer)})"
        self._module(layer, constructor, here, "" if even else zero_pad([top, left, bottom, right]))

    def deconvolution(self, layer: Layer) -> None:
        input_shape, (top, left, bottom, right), more = self.input_shape(layer), *deconvolution_pads(layer)
        pads = [max(min(top, bottom), 0), max(min(left, right), 0)]
        arguments = windows(layer, pads)
        reach = [max(s, d) for s, d in zip(parameter(layer, "strides"), parameter(layer, "dilations"), strict=True)]
        if min(more) < 0 or any(m >= r for m, r in zip(more, reach, strict=True)):
            raise Refused(f"output padding {pair(more)} must be smaller than stride or dilation")
        if any(more):
            arguments += f", output_padding={pair(more)}"
        edges = [top - pads[0], left - pads[1], bottom - pads[0], right - pads[1]]
        if min(edges) < 0:
            raise Refused("has negative padding")
        rows, columns = (bounds(edges[i], -edges[i + 2] or None) for i in range(2))
        after = f"[:, :, {rows}, {columns}]" if any(edges) else ""
        constructor = (
            f"nn.ConvTranspose2d({input_shape[0]}, {layer.parameters['num_output']}, {arguments}{grouped(layer)})"
        )
        self._module(layer, constructor, after=after)

    def dense(self, layer: Layer) -> None:
        bias = "" if parameter(layer, "bias_term") else ", bias=False"
        self._module(layer, f"nn.Linear({self.input_shape(layer)[0]}, {layer.parameters['num_output']}{bias})")

    def pool(self, layer: Layer) -> None:
        pool = pooling(layer, self.input_shape(layer))
        average = layer.type == "AveragePool"
        if average and max(pool.dilations) > 1:
            raise Refused("has dilation, which PyTorch's average pooling does not support")
        ways = [
            (pool.rounded(counts), counts, False)
            for counts in ((pool.counted, not pool.counted) if average else (True,))
        ]
        if not average or pool.counted:
            ways.append((pool.rounded_apart(), True, True))
        for found, counts, apart in ways:
            pads = [0, 0] if apart else pool.pads[:2]
            if found is None or any(2 * p > k for p, k in zip(pads, pool.reach, strict=True)):
                continue
            arguments = f"{pair(pool.kernel)}, stride={pair(pool.strides)}" + padding(pads)
            if max(pool.dilations) > 1:
                arguments += f", dilation={pair(pool.dilations)}"
            arguments += ", ceil_mode=True" if found[0] else ""
            arguments += ", count_include_pad=False" if average and not counts else ""
            if len(layer.outputs) > 1:
                if apart:  # the indices would be those of the padded image
                    continue
                arguments += ", return_indices=True"
            before = "" if not apart else zero_pad(pool.pads) if average else constant_pad(pool.pads, 'float("-inf")')
            self._module(layer, f"nn.{'Avg' if average else 'Max'}Pool2d({arguments})", not found[1], before)
            return
        raise Refused("its windows or divisors cannot be expressed by padding and rounding")

    def unpool(self, layer: Layer) -> None:
        (high, wide), (out_high, out_wide) = self.input_shape(layer)[1:], layer.shapes[0][1:]
        if out_high % high == 0 and out_wide % wide == 0:
            self._module(layer, f"nn.MaxUnpool2d({pair([out_high // high, out_wide // wide])})")
            return
        x, indices = self._inputs(layer)
        window = next(
            (other for other in self.layers if layer.inputs[1] in other.outputs and other.type == "MaxPool"), None
        )
        if window is None:
            raise Refused("its indices are not those of a max pooling")
        kernel, strides = window.parameters["kernel_shape"], parameter(window, "strides")
        whole = [(n - 1) * s + k for n, s, k in zip((high, wide), strides, kernel, strict=True)]
        if any(abs(m - n) >= s for m, n, s in zip((out_high, out_wide), whole, strides, strict=True)):
            raise Refused(f"makes {out_high}x{out_wide} of {high}x{wide}, which PyTorch does not support")
        arguments = f"{pair(kernel)}, {pair(strides)}, output_size=({out_high}, {out_wide})"
        self._assign(layer, f"F.max_unpool2d({x}, {indices}, {arguments})", here=True)

    def batch_norm(self, layer: Layer) -> None:
        affine = parameter(layer, "affine")
        input_shape = self.input_shape(layer)
        name = f"BatchNorm{'2d' if len(input_shape) == 3 else '1d'}"
        arguments = f"{input_shape[0]}, eps={number(parameter(layer, 'epsilon'))}" + (
            "" if affine else ", affine=False"
        )
        momentum = layer.parameters.get("momentum")
        if momentum is not None:
            arguments += f", momentum={None if momentum == 'cumulative' else number(momentum)}"
        used = statistics(layer)
        kept = parameter(layer, "stored")
        if used == ("batch", "batch") and not kept:
            arguments += ", track_running_stats=False"
        prefix = (
            "nn."
            if used == ("batch", "stored") or not kept
            else "Frozen"
            if used == ("stored", "stored")
            else "ByBatch"
        )
        absent = {"weight": "bias", "bias": "weight"}.get(affine)  # of the two, one that the layer does not have
        norm = f"{prefix}{name}({arguments})"
        self._module(layer, f'without({norm}, "{absent}")' if absent else norm)

    def scale(self, layer: Layer) -> None:
        bias = ", bias=True" if layer.parameters.get("bias_term", False) else ""
        self._module(layer, f"Scale({self.input_shape(layer)[0]}{bias})")

    def lrn(self, layer: Layer) -> None:
        size, within = layer.parameters["size"], parameter(layer, "within_channel")
        alpha, beta, bias = (number(parameter(layer, key)) for key in ("alpha", "beta", "bias"))
        if size % 2 == 0:
            raise Refused(f"has the even size {size}, which PyTorch centres differently")
        if not within:
            self._module(layer, f"nn.LocalResponseNorm({size}, alpha={alpha}, beta={beta}, k={bias})")
            return
        x = self._inputs(layer)[0]
        mean = f"F.avg_pool2d({x} * {x}, {size}, stride=1, padding={size // 2})"
        self._assign(layer, f"{x} * ({bias} + {alpha} * {mean}) ** -{beta}")

    def resize(self, layer: Layer) -> None:
        input_shape, made = self.input_shape(layer), layer.shapes[0]
        mode, coordinates = layer.parameters["mode"], parameter(layer, "coordinates")
        scales = list(layer.parameters.get("scales") or [])
        options = {
            ("nearest", "asymmetric"): "mode='nearest'",
            ("nearest", "half_pixel"): "mode='nearest-exact'",
            ("linear", "align_corners"): "mode='bilinear', align_corners=True",
            ("linear", "half_pixel"): "mode='bilinear'",
        }.get((mode, coordinates))
        if options is None:
            raise Refused(f"has {mode} resizing with {coordinates} coordinates, which PyTorch does not support")
        options = options.replace("'", '"')
        whole = bool(scales) and all(n * s == m for n, m, s in zip(input_shape[1:], made[1:], scales, strict=True))
        if whole and coordinates != "align_corners":
            factor = number(scales[0]) if scales[0] == scales[1] else f"({', '.join(map(number, scales))})"
            self._module(layer, f"nn.Upsample(scale_factor={factor}, {options})")
        elif scales and not whole and coordinates != "align_corners":
            raise Refused(
                f"scales {tuple(scales)} do not give a whole number of pixels for {input_shape[1]}x{input_shape[2]}"
            )
        else:
            self._module(layer, f"nn.Upsample(size=({made[1]}, {made[2]}), {options})", here=True)

    def pad(self, layer: Layer) -> None:
        top, left, bottom, right = layer.parameters["pads"]
        mode = parameter(layer, "mode")
        sides = f"({left}, {right}, {top}, {bottom})"
        if mode == "constant":
            value = parameter(layer, "value") or 0.0
            pads = [top, left, bottom, right]
            self._module(layer, constant_pad(pads, number(value)) if value else zero_pad(pads))
        elif mode in ("reflect", "edge"):
            if min(top, left, bottom, right) < 0:
                raise Refused("has negative padding")
            self._module(layer, f"nn.{'Reflection' if mode == 'reflect' else 'Replication'}Pad2d({sides})")
        else:
            raise Refused(f"has padding of mode {mode}, which PyTorch does not support")

    def reshape(self, layer: Layer) -> None:
        x = self._inputs(layer)[0]
        sizes = [f"{x}.shape[{i}]" if size == 0 else str(size) for i, size in enumerate(layer.parameters["shape"], 1)]
        self._assign(layer, f"{x}.reshape({', '.join([f'{x}.shape[0]', *sizes])})")

    def squeeze(self, layer: Layer) -> None:
        x, input_shape = self._inputs(layer)[0], self.input_shape(layer)
        given = parameter(layer, "axes")
        axes = (
            [i for i, n in enumerate(input_shape, 1) if n == 1]
            if given is None
            else [axis(layer, input_shape, i) for i in given]
        )
        which = f"({', '.join(map(str, axes))},)" if len(axes) != 1 else str(axes[0])
        self._assign(layer, f"{x}.squeeze({which})" if axes else x)

    def transpose(self, layer: Layer) -> None:
        self._assign(layer, f"{self._inputs(layer)[0]}.permute({', '.join(map(str, layer.parameters['perm']))})")

    def cut(self, layer: Layer) -> None:
        input_shape = self.input_shape(layer)
        found = slices(layer, input_shape)
        ranges = [bounds(*found[i]) if i in found else ":" for i in range(1, len(input_shape) + 1)]
        self._assign(layer, f"{self._inputs(layer)[0]}[{', '.join([':', *ranges])}]")

    def crop(self, layer: Layer) -> None:
        x, like = self._inputs(layer)
        input_shape = self.input_shape(layer)
        first = axis(layer, input_shape)
        offset = list(layer.parameters["offset"]) * (len(input_shape) + 1)
        ranges = [":"] * first
        for place in range(first, len(input_shape) + 1):
            start = offset[place - first]
            ranges.append(f"{start}:{start} + {like}.shape[{place}]" if start else f":{like}.shape[{place}]")
        self._assign(layer, f"{x}[{', '.join(ranges)}]")

    def concat(self, layer: Layer) -> None:
        self._assign(layer, f"torch.cat([{', '.join(self._inputs(layer))}], {axis(layer, self.input_shape(layer))})")

    def split(self, layer: Layer) -> None:
        sizes = ", ".join(map(str, layer.parameters["split"]))
        along = axis(layer, self.input_shape(layer))
        comma = "[0]" if len(layer.outputs) == 1 else ""
        self._assign(layer, f"torch.split({self._inputs(layer)[0]}, [{sizes}], {along}){comma}")

    def reduce(self, layer: Layer) -> None:
        axes = [axis(layer, self.input_shape(layer), each) for each in layer.parameters["axes"]]
        keep = ", keepdim=True" if parameter(layer, "keepdims") else ""
        function = "mean" if layer.type == "ReduceMean" else "sum"
        self._assign(layer, f"{self._inputs(layer)[0]}.{function}({tuple(axes) if len(axes) > 1 else axes[0]}{keep})")

    def power(self, layer: Layer) -> None:
        exponent = number(layer.parameters["exponent"])
        self._assign(layer, f"{self._inputs(layer)[0]} ** {exponent.removesuffix('.0')}")

    def clip(self, layer: Layer) -> None:
        low, high = (finite(parameter(layer, key)) for key in ("min", "max"))
        if (low, high) == (0, 6):
            self._module(layer, "nn.ReLU6()")
            return
        limits = [f"{key}={number(limit)}" for key, limit in (("min", low), ("max", high)) if limit is not None]
        x = self._inputs(layer)[0]
        self._assign(layer, f"torch.clamp({x}, {', '.join(limits)})" if limits else x)

    def identity(self, layer: Layer) -> None:
        self._module(layer, "nn.Identity()")

    def softmax(self, layer: Layer) -> None:
        self._module(layer, f"nn.{layer.type}(dim={axis(layer, self.input_shape(layer))})")

    def swish(self, layer: Layer) -> None:
        alpha, x = float(parameter(layer, "alpha")), self._inputs(layer)[0]
        if alpha == 1:
            self._module(layer, "nn.SiLU()")
        else:
            self._assign(layer, f"{x} * torch.sigmoid({number(alpha)} * {x})")

    def on_each(self, layer: Layer) -> None:
        self._module(layer, ON_EACH[layer.type](layer))

    def function(self, layer: Layer) -> None:
        self._assign(layer, FUNCTIONS[layer.type].format(self._inputs(layer)[0]))

    rules: ClassVar = {
        "Conv": convolution, "ConvTranspose": deconvolution, "Gemm": dense, "MaxPool": pool, "AveragePool": pool,
        "MaxUnpool": unpool, "BatchNormalization": batch_norm, "Scale": scale, "LRN": lrn, "Resize": resize, "Pad": pad,
        "Reshape": reshape, "Squeeze": squeeze, "Transpose": transpose, "Slice": cut, "Crop": crop,
        "Concat": concat, "Split": split, "ReduceMean": reduce, "ReduceSum": reduce,
        **PythonWriter.shared,
        "Pow": power, "Clip": clip, "Swish": swish, "Identity": identity, "Softmax": softmax, "LogSoftmax": softmax,
        **dict.fromkeys(
            ("Relu", "LeakyRelu", "Elu", "PRelu", "ThresholdedRelu", "Sigmoid", "Tanh", "Softplus", "Dropout", "Flatten",
             "GlobalAveragePool", "GlobalMaxPool"), on_each
        ),
        **dict.fromkeys(("Abs", "Exp", "Log", "Neg", "Sqrt"), function),
    }  # fmt: skip
