"""Random small Caffe networks: a walk over layer types, each with parameters drawn at random."""

from __future__ import annotations

import random
from typing import Any

from google.protobuf import text_format
from multiseg_caffe import proto
from multiseg_caffe.describing import placing
from multiseg_caffe.describing import shapes as rules
from multiseg_caffe.describing.layers import described

from multiseg.errors import ModelError


def network(seed: int, batch: int, layers: int = 14) -> str:
    """A deploy prototxt of one input and so many layers, whose blobs' shapes vary in rank and size.

    For a batch of 1 only such layers are drawn as can be described: the others work across the images of a batch.
    """
    draw = random.Random(seed)
    shape = (batch, draw.choice([1, 3, 4, 8]), draw.randint(7, 20), draw.randint(7, 20))
    net = proto.NetParameter(name=f"random{seed}")
    net.layer.add(name="data", type="Input", top=["data"]).input_param.shape.add(dim=shape)
    shapes: dict[str, tuple[int, ...]] = {"data": shape}
    sharing: set[str] = set()  # blobs that are in another one's memory
    while len(net.layer) < layers:
        kind = draw.choice(sorted(KINDS))
        layer = proto.LayerParameter(name=f"layer{len(net.layer)}", type=kind)
        layer.bottom.append(draw.choice(sorted(shapes)))
        own = kind not in rules.IN_PLACE or layer.bottom[0] in sharing or draw.random() > 0.2
        layer.top.append(layer.name if own else layer.bottom[0])
        KINDS[kind](draw, layer, shapes)
        try:
            placed = placing.infer(_with(net, layer), "net", {})
            if batch == 1:
                described(placed[1:], "net", ["data"])
        except ModelError:
            continue  # parameters that do not fit
        made = placed[-1]
        if len(made.tops[0] or ()) < 4 and draw.random() < 0.7:
            continue  # images stay images, mostly
        if sum(1 for top in made.tops for size in top or () if size > 64) or len(made.tops[0] or ()) < 2:
            continue
        net.layer.add().CopyFrom(layer)
        sharing.update(layer.top if kind in ("Split", "Flatten", "Reshape") else ())
        shapes.update(zip(layer.top, made.tops, strict=True))
    return text_format.MessageToString(net)


def _with(net: Any, layer: Any) -> Any:
    copy = proto.NetParameter()
    copy.CopyFrom(net)
    copy.layer.add().CopyFrom(layer)
    return copy


def _convolution(draw: random.Random, layer: Any, shapes: dict[str, Any]) -> None:
    p = layer.convolution_param
    p.num_output, p.group = draw.choice([2, 4, 6]), draw.choice([1, 1, 2])
    p.bias_term = draw.random() < 0.7
    if draw.random() < 0.5:
        p.kernel_size.append(draw.randint(1, 5))
        p.stride.extend([draw.randint(1, 3)] * draw.randint(0, 2))
        p.pad.extend([draw.randint(0, 3)] * draw.randint(0, 1))
    else:
        p.kernel_h, p.kernel_w = draw.randint(1, 5), draw.randint(1, 5)
        p.stride_h, p.stride_w = draw.randint(1, 3), draw.randint(1, 3)
        p.pad_h, p.pad_w = draw.randint(0, 3), draw.randint(0, 3)
    p.dilation.extend([draw.randint(1, 2)] * draw.choice([0, 0, 1, 2]))


def _pooling(draw: random.Random, layer: Any, shapes: dict[str, Any]) -> None:
    p = layer.pooling_param
    p.pool = draw.choice([proto.PoolingParameter.MAX, proto.PoolingParameter.AVE])
    if draw.random() < 0.15:
        p.global_pooling = True
        return
    if draw.random() < 0.5:
        p.kernel_size, p.stride, p.pad = draw.randint(1, 5), draw.randint(1, 4), draw.randint(0, 3)
    else:
        p.kernel_h, p.kernel_w = draw.randint(1, 5), draw.randint(1, 5)
        p.stride_h, p.stride_w = draw.randint(1, 4), draw.randint(1, 4)
        p.pad_h, p.pad_w = draw.randint(0, 3), draw.randint(0, 3)
    if draw.random() < 0.3:
        p.round_mode = proto.PoolingParameter.FLOOR


def _inner_product(draw: random.Random, layer: Any, shapes: dict[str, Any]) -> None:
    p = layer.inner_product_param
    p.num_output, p.transpose, p.axis = draw.randint(1, 9), draw.random() < 0.3, draw.choice([1, 1, -1])


def _several(draw: random.Random, layer: Any, shapes: dict[str, Any]) -> None:
    alike = [name for name, shape in shapes.items() if shape == shapes[layer.bottom[0]]]
    layer.bottom.extend(draw.choices(alike, k=draw.randint(1, 2)))
    if layer.type == "Eltwise":
        layer.eltwise_param.operation = draw.randint(0, 2)
        if draw.random() < 0.3:
            layer.eltwise_param.coeff.extend(draw.choice([[1, -1, 0.5], [0.5, 1, 1]])[: len(layer.bottom)])
    elif draw.random() < 0.5:
        layer.concat_param.axis = draw.choice([1, 2, -1])


def _slice(draw: random.Random, layer: Any, shapes: dict[str, Any]) -> None:
    layer.top.append(f"{layer.name}b")
    p = layer.slice_param
    p.axis = draw.choice([1, 1, 2, -1])
    if draw.random() < 0.5:
        p.slice_point.append(draw.randint(1, 3))


def _crop(draw: random.Random, layer: Any, shapes: dict[str, Any]) -> None:
    layer.bottom.append(draw.choice(sorted(shapes)))
    layer.crop_param.axis = draw.choice([1, 2, 2, 3, -1])
    layer.crop_param.offset.extend([draw.randint(0, 2)] * draw.randint(0, 2))


def _reshape(draw: random.Random, layer: Any, shapes: dict[str, Any]) -> None:
    p = layer.reshape_param
    p.shape.dim.extend(draw.choice([[0, -1], [0, 0, -1], [0, 1, -1, 2], [-1], [1, -1, 1], [2, -1, 1]]))
    p.axis, p.num_axes = draw.choice([(0, -1), (0, -1), (1, -1), (1, 1), (-1, 0)])


def _flatten(draw: random.Random, layer: Any, shapes: dict[str, Any]) -> None:
    layer.flatten_param.axis, layer.flatten_param.end_axis = draw.choice([(1, -1), (1, -1), (1, 2), (2, -1)])


def _scale(draw: random.Random, layer: Any, shapes: dict[str, Any]) -> None:
    p = layer.scale_param if layer.type == "Scale" else layer.bias_param
    p.axis, p.num_axes = draw.choice([(1, 1), (1, 1), (1, -1), (2, 1), (1, 2), (1, 0)])
    if layer.type == "Scale":
        p.bias_term = draw.random() < 0.5


def _reduction(draw: random.Random, layer: Any, shapes: dict[str, Any]) -> None:
    layer.reduction_param.operation, layer.reduction_param.axis = draw.randint(1, 4), draw.choice([2, 3, -1])


def _argmax(draw: random.Random, layer: Any, shapes: dict[str, Any]) -> None:
    if draw.random() < 0.5:
        layer.argmax_param.axis = 1
    layer.argmax_param.out_max_val = draw.random() < 0.5


def _tile(draw: random.Random, layer: Any, shapes: dict[str, Any]) -> None:
    layer.tile_param.axis, layer.tile_param.tiles = draw.choice([1, 2]), draw.randint(1, 3)


def _spp(draw: random.Random, layer: Any, shapes: dict[str, Any]) -> None:
    layer.spp_param.pyramid_height = draw.randint(1, 3)


def _lrn(draw: random.Random, layer: Any, shapes: dict[str, Any]) -> None:
    layer.lrn_param.local_size, layer.lrn_param.norm_region = draw.choice([3, 5]), draw.randint(0, 1)


def _prelu(draw: random.Random, layer: Any, shapes: dict[str, Any]) -> None:
    layer.prelu_param.channel_shared = draw.random() < 0.5


def _elementwise(draw: random.Random, layer: Any, shapes: dict[str, Any]) -> None:
    if layer.type == "ReLU":
        layer.relu_param.negative_slope = draw.choice([0, 0.25])
    elif layer.type == "ELU":
        layer.elu_param.alpha = draw.choice([0.5, 1])
    elif layer.type == "Power":
        p = layer.power_param
        p.power, p.scale, p.shift = draw.choice([(1, 1, 0), (1, 0.5, 0), (1, 1, -0.5), (2, 1, 0), (2, 0.25, 0.5)])
    else:
        q = layer.exp_param if layer.type == "Exp" else layer.log_param
        q.base, q.scale, q.shift = draw.choice([(-1, 0.125, 0), (2, 0.125, 0.5), (3, 0.25, 1)])


def _plain(draw: random.Random, layer: Any, shapes: dict[str, Any]) -> None:
    pass


KINDS = {
    "Convolution": _convolution,
    "Deconvolution": _convolution,
    "Pooling": _pooling,
    "InnerProduct": _inner_product,
    "Concat": _several,
    "Eltwise": _several,
    "Slice": _slice,
    "Crop": _crop,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Scale": _scale,
    "Bias": _scale,
    "Reduction": _reduction,
    "ArgMax": _argmax,
    "Tile": _tile,
    "SPP": _spp,
    "LRN": _lrn,
    "PReLU": _prelu,
    **dict.fromkeys(
        ("BatchNorm", "MVN", "Softmax", "Dropout", "TanH", "Sigmoid", "AbsVal", "BNLL", "Split", "Swish"), _plain
    ),
    **dict.fromkeys(("ReLU", "ELU", "Power", "Exp", "Log"), _elementwise),
}
