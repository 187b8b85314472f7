"""Networks for tests: written by hand, or drawn at random, and said in other words."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import strategies as st

from multiseg.topology import Topology

Node = dict[str, Any]


def layer(name: str, type: str, *inputs: str, outputs: list[str] | None = None, **parameters: Any) -> Node:
    """A layer as a backend's reader describes it."""
    more = {"outputs": outputs} if outputs else {}
    return {"name": name, "type": type, "inputs": list(inputs), "parameters": parameters, **more}


def topology(
    layers: list[Node], source: str = "a.prototxt", shape: tuple[int, ...] = (3, 24, 24), loss: str | None = None
) -> Topology:
    """A network that reads "data" and gives its last layer's output."""
    description = {
        "input": "data",
        "input_shape": shape,
        "layers": layers,
        "outputs": [layers[-1]["name"]],
        "loss": loss,
    }
    return Topology.of(source, "test", description)


def fcn(stride: int = 16) -> list[Node]:
    """The tutorial's network."""
    return [
        layer("conv1", "Conv", "data", num_output=32, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        layer("relu1", "Relu", "conv1"),
        layer("conv2", "Conv", "relu1", num_output=1024, kernel_shape=[16, 16], strides=[stride, stride]),
        layer("relu2", "Relu", "conv2"),
        layer("deconv", "ConvTranspose", "relu2", num_output=1, kernel_shape=[16, 16], strides=[16, 16]),
    ]


ACTIVATIONS = ("Relu", "Tanh", "Sigmoid", "Elu", "Abs")


class _Writer:
    """Appends layers to a network, keeping the shape of what was written last."""

    def __init__(self, choose: random.Random) -> None:
        self.choose, self.layers, self.last, self.channels, self.side = choose, [], "data", 3, 24

    def add(self, type: str, *inputs: str, **parameters: Any) -> str:
        name = f"{type.lower()}{len(self.layers) + 1}"
        self.layers.append(layer(name, type, *(inputs or (self.last,)), **parameters))
        self.last = name
        return name

    def convolution(self) -> None:
        kernel, pad = self.choose.choice([(1, 0), (3, 1), (5, 2), (3, 0)])
        group = 2 if self.channels % 2 == 0 and self.choose.random() < 0.3 else 1
        if self.side <= kernel:
            kernel, pad = 1, 0
        self.channels = self.choose.choice([4, 6, 8])
        bias = self.choose.random() < 0.8
        self.add(
            "Conv", num_output=self.channels, kernel_shape=[kernel] * 2, pads=[pad] * 4, group=group, bias_term=bias
        )
        self.side += 2 * pad - kernel + 1

    def shrink(self) -> None:
        if self.side % 2 or self.side < 8:
            return
        kind = self.choose.choice(["MaxPool", "AveragePool", "Conv"])
        if kind == "Conv":
            self.add(kind, num_output=self.channels, kernel_shape=[4, 4], strides=[2, 2], pads=[1] * 4)
        else:
            self.add(kind, kernel_shape=[2, 2], strides=[2, 2])
        self.side //= 2

    def grow(self) -> None:
        if self.side > 16:
            return
        self.channels = 4
        self.add("ConvTranspose", num_output=4, kernel_shape=[4, 4], strides=[2, 2], pads=[1] * 4)
        self.side *= 2

    def in_place(self) -> None:
        kinds = [*ACTIVATIONS, "Dropout", "LRN", "BatchNormalization", "LeakyRelu"]
        kind = self.choose.choice([each for each in kinds if each != self.layers[-1]["type"]])
        known = {"LRN": {"size": 5}, "Dropout": {"ratio": 0.4}, "LeakyRelu": {"alpha": 0.1}}
        self.add(kind, **known.get(kind, {}))

    def branches(self) -> None:
        start, ends, widths = self.last, [], []
        for width in self.choose.sample([4, 6, 8, 10], self.choose.choice([2, 3])):
            self.last = start
            self.add("Conv", num_output=width, kernel_shape=[3, 3], pads=[1] * 4)
            ends.append(self.add(self.choose.choice(ACTIVATIONS)))
            widths.append(width)
        self.channels = sum(widths)
        self.add("Concat", *ends, axis=1)

    def skip(self) -> None:
        start = self.last
        self.add("Conv", num_output=self.channels, kernel_shape=[3, 3], pads=[1] * 4)
        middle = self.add(self.choose.choice(ACTIVATIONS))
        self.add("Conv", num_output=self.channels, kernel_shape=[1, 1])
        inputs = [start, middle, self.last] if self.choose.random() < 0.5 else [start, self.last]
        self.add("Sum", *inputs)

    def head(self) -> None:
        if self.choose.random() < 0.4:
            self.add("GlobalAveragePool")
        self.add("Flatten")
        self.add("Gemm", num_output=10)
        self.add("Softmax", axis=1)


def random_network(seed: int, most: int = 12) -> list[Node]:
    """Layers drawn by a seed: a chain with branches and skips."""
    choose = random.Random(seed)
    writer = _Writer(choose)
    writer.convolution()
    for _ in range(choose.randint(2, most)):
        getattr(writer, choose.choice(["convolution", "shrink", "grow", "in_place", "in_place", "branches", "skip"]))()
    if choose.random() < 0.5:
        writer.head()
    return writer.layers


seeds = st.integers(0, 10**6)


def said_otherwise(layers: list[Node], seed: int) -> list[Node]:
    """The same network as somebody else writes it: other names, another order, other layers that do the same."""
    choose = random.Random(seed)
    shapes = topology(layers).shapes
    new: list[Node] = []
    for node in layers:
        new += _rewritten(node, shapes, choose) if choose.random() < 0.7 else [node]
    return _shuffled(renamed(new, choose), choose)


def _rewritten(node: Node, shapes: dict[str, Any], choose: random.Random) -> list[Node]:
    name, kind, inputs, said = node["name"], node["type"], node["inputs"], node["parameters"]
    inner = f"{name}_inner"
    before = shapes[inputs[0]]
    if kind == "Conv" and "pads" in said:
        ways = ["pad", "same"] if said["kernel_shape"][0] % 2 and said.get("strides", [1])[0] == 1 else ["pad"]
        bare = {key: value for key, value in said.items() if key != "pads"}
        if choose.choice(ways) == "same" and said["pads"][0] == said["kernel_shape"][0] // 2:
            return [layer(name, kind, *inputs, **bare, auto_pad="SAME_UPPER")]
        return [layer(inner, "Pad", *inputs, pads=said["pads"], mode="constant"), layer(name, kind, inner, **bare)]
    if kind == "ConvTranspose":
        bare = {key: value for key, value in said.items() if key != "pads"}
        pad = said["pads"][0]
        height, width = shapes[name][1:]
        cut = layer(name, "Slice", inner, axes=[2, 3], starts=[pad, pad], ends=[pad + height, pad + width])
        return [layer(inner, kind, *inputs, **bare), cut]
    if kind == "BatchNormalization":
        return [layer(inner, kind, *inputs, affine=False), layer(name, "Scale", inner, bias_term=True)]
    if kind == "Relu":
        return [choose.choice([layer(name, "LeakyRelu", *inputs, alpha=0.0), layer(name, "Clip", *inputs, min=0.0)])]
    if kind == "Elu":
        return [layer(name, kind, *inputs, alpha=1.0)]
    if kind == "LRN":
        return [layer(name, kind, *inputs, **said, alpha=9.999999747378752e-05, beta=0.75, bias=1)]
    if kind == "Flatten":
        return [layer(name, "Reshape", *inputs, shape=[-1])]
    if kind in ("MaxPool", "AveragePool"):
        return [layer(name, kind, *inputs, **said, ceil_mode=True, count_include_pad=choose.random() < 0.5)]
    if kind == "GlobalAveragePool":
        if choose.random() < 0.5:
            return [layer(name, "ReduceMean", *inputs, axes=[2, 3], keepdims=True)]
        return [layer(name, "AveragePool", *inputs, kernel_shape=list(before[1:]))]
    if kind == "Sum":
        mixed = choose.sample(inputs, len(inputs))
        if len(inputs) == 2:
            return [layer(name, "Add", *mixed)]
        return [layer(inner, "Add", *mixed[:2]), layer(name, "Sum", mixed[2], inner, coefficients=[1.0, 1.0])]
    if kind == "Concat" and len(inputs) == 3:
        return [layer(inner, kind, *inputs[:2], axis=-3), layer(name, kind, inner, inputs[2], axis=1)]
    return [layer(inner, kind, *inputs, **said), layer(name, "Identity", inner)]


def renamed(layers: list[Node], choose: random.Random) -> list[Node]:
    """The same network under other names."""
    numbers = choose.sample(range(len(layers)), len(layers))
    names = {"data": "data", **{node["name"]: f"n{number}" for node, number in zip(layers, numbers, strict=True)}}
    return [{**node, "name": names[node["name"]], "inputs": [names[i] for i in node["inputs"]]} for node in layers]


def _shuffled(layers: list[Node], choose: random.Random) -> list[Node]:
    """Another order in which each still follows what it reads; the last stays the last."""
    made, waiting, order = {"data"}, layers[:-1], []
    while waiting:
        ready = [node for node in waiting if set(node["inputs"]) <= made]
        node = choose.choice(ready)
        waiting = [each for each in waiting if each is not node]
        order.append(node)
        made.add(node["name"])
    return [*order, layers[-1]]
