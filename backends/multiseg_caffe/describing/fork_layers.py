"""Shapes and neutral descriptions of layers of Caffe's forks, such as BN, Interp and Upsample."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Optional

from multiseg.errors import ModelError
from multiseg_caffe.describing.axes import Inferred, Shape, Step, image, listed
from multiseg_caffe.describing.windows import WrongLayer
from multiseg_caffe.proto import BNParameter

LEARN_EPSILON = 1e-9  # of SegNet's BN, which has no field for it
_TWO_BLOBS = ("scale_filler", "shift_filler", "bn_mode")  # fields of SegNet's BN
_FOUR_BLOBS = ("slope_filler", "bias_filler", "momentum", "eps", "frozen")  # fields of PSPNet's BN


def stores_statistics(layer: Any) -> bool:
    """Return whether a BN is that of PSPNet, with four blobs; that of SegNet has two. Without any field it is SegNet's.

    The number of blobs decides where the layer has some, as in a caffemodel. Raises WrongLayer for fields of both.
    """
    if len(layer.blobs) in (2, 4):
        return len(layer.blobs) == 4
    two, four = ([name for name in names if layer.bn_param.HasField(name)] for names in (_TWO_BLOBS, _FOUR_BLOBS))
    if two and four:
        raise WrongLayer(
            f"has fields of two different layers called BN: {', '.join(two)} (SegNet) and {', '.join(four)} (PSPNet)"
        )
    return bool(four) or len(layer.param) > 2


def uses_batch(layer: Any) -> bool:
    """Return whether a BN normalises by the statistics of the batch in training."""
    if stores_statistics(layer):
        return not layer.bn_param.frozen
    return bool(layer.bn_param.bn_mode == BNParameter.LEARN)


def check_installed(net: Any, types: Collection[str], path: str) -> None:
    """Raise ModelError if a network has a layer of forks that the installed Caffe lacks; ``types`` are those that it has."""
    missing = next((layer for layer in net.layer if layer.type in RULES and layer.type not in types), None)
    if missing is not None:
        raise ModelError(
            f"{path}: layer {missing.name!r} ({missing.type}): is a layer of Caffe's forks, which this Caffe lacks; "
            + (
                f"`multiseg install-caffe` builds one that has {', '.join(BUILT)}"
                if missing.type in BUILT
                else "train it in another framework, for which `multiseg export` writes the network"
            )
        )


def _bn_shapes(layer: Any, bottoms: list[Shape]) -> Inferred:
    if len(bottoms[0]) < 2:
        raise WrongLayer(f"needs (N, C) or (N, C, H, W), but its input is {bottoms[0]}")
    if len(layer.top) > 1:
        raise WrongLayer(
            "outputs the statistics of the batch as further tops, which multiseg does not support; remove them"
        )
    return [bottoms[0]], [(1, bottoms[0][1], 1, 1)] * (4 if stores_statistics(layer) else 2)


def _bn(layer: Any, bottoms: list[Shape]) -> list[Step]:
    p = layer.bn_param
    if stores_statistics(layer):
        momentum = round(1 - p.momentum, 6)
        return [("BatchNormalization", {"epsilon": p.eps, "affine": True, "momentum": momentum})]
    if p.bn_mode == BNParameter.INFERENCE:
        return [("Scale", {"bias_term": True})]
    by_batch = {"prediction_statistics": "batch", "stored": False}
    return [("BatchNormalization", {"epsilon": LEARN_EPSILON, "affine": True, **by_batch})]


def _interp_size(layer: Any, size: Shape) -> tuple[Shape, Shape]:
    """Return height and width of the part of the input that an Interp reads, and those of its output."""
    p = layer.interp_param
    if p.pad_beg > 0 or p.pad_end > 0:
        raise WrongLayer(f"has pad_beg {p.pad_beg} and pad_end {p.pad_end}; both crop, so they must be at most 0")
    read = tuple(n + p.pad_beg + p.pad_end for n in size)
    if min(read) < 1:
        raise WrongLayer(f"crops all of its input of {size[0]}x{size[1]}")
    if p.HasField("shrink_factor") or p.HasField("zoom_factor"):
        if p.shrink_factor < 1 or p.zoom_factor < 1:
            raise WrongLayer("has a shrink_factor or zoom_factor that is less than 1")
        shrunk = [(n - 1) // p.shrink_factor + 1 for n in read]
        return read, tuple(n + (n - 1) * (p.zoom_factor - 1) for n in shrunk)
    if p.height < 1 or p.width < 1:
        raise WrongLayer("needs interp_param { height: ... width: ... }, zoom_factor or shrink_factor")
    return read, (p.height, p.width)


def _interp_shapes(layer: Any, bottoms: list[Shape]) -> Inferred:
    count, channels, *size = image(bottoms[0])
    return [(count, channels, *_interp_size(layer, tuple(size))[1])], []


def _interp(layer: Any, bottoms: list[Shape]) -> list[Step]:
    read, out = _interp_size(layer, bottoms[0][2:])
    resize: Step = ("Resize", {"mode": "linear", "sizes": list(out), "coordinates": "align_corners"})
    if read == bottoms[0][2:]:
        return [resize]
    first = -layer.interp_param.pad_beg
    ends = [first + n for n in read]
    return [("Slice", {"axes": [2, 3], "starts": [first, first], "ends": ends}), resize]


def _scales(layer: Any) -> list[int]:
    p = layer.upsample_param
    return [p.scale_h or p.scale, p.scale_w or p.scale]


def _upsample_shapes(layer: Any, bottoms: list[Shape]) -> Inferred:
    p = layer.upsample_param
    count, channels, *size = image(bottoms[0])
    if bottoms[1] != bottoms[0]:
        raise WrongLayer(f"needs values and a mask of one shape, but they are {listed(bottoms)}")
    if p.HasField("scale_h") != p.HasField("scale_w") or (p.HasField("scale") and p.HasField("scale_h")):
        raise WrongLayer("needs upsample_param { scale: ... }, or scale_h and scale_w")
    less = (p.pad_out_h, p.pad_out_w)
    scaled = [n * scale - int(pad) for n, scale, pad in zip(size, _scales(layer), less)]  # noqa: B905
    out = [own or n for own, n in zip((p.upsample_h, p.upsample_w), scaled)]  # noqa: B905
    return [(count, channels, *out)], []


def _upsample(layer: Any, bottoms: list[Shape]) -> list[Step]:
    p = layer.upsample_param
    if p.upsample_h or p.upsample_w or p.pad_out_h or p.pad_out_w:
        tops, _ = _upsample_shapes(layer, bottoms)
        return [("MaxUnpool", {"sizes": list(tops[0][2:])})]
    return [("MaxUnpool", {"scales": [float(scale) for scale in _scales(layer)]})]


def _permutation(layer: Any, shape: Shape) -> list[int]:
    """Return the order of the axes of a Permute, which states the first of them; the others follow in their order."""
    order = list(layer.permute_param.order)
    if len(set(order)) < len(order) or any(not 0 <= index < len(shape) for index in order):
        raise WrongLayer(f"has order {order} for its input {shape}")
    return order + [index for index in range(len(shape)) if index not in order]


def _permute_shapes(layer: Any, bottoms: list[Shape]) -> Inferred:
    return [tuple(bottoms[0][index] for index in _permutation(layer, bottoms[0]))], []


def _permute(layer: Any, bottoms: list[Shape]) -> list[Step]:
    order = _permutation(layer, bottoms[0])
    if order[0] != 0:
        raise WrongLayer("works across the images of a batch; a description is of one image")
    return [("Transpose", {"perm": order})]


def _normalize_shapes(layer: Any, bottoms: list[Shape]) -> Inferred:
    return [image(bottoms[0])], [() if layer.norm_param.channel_shared else (bottoms[0][1],)]


def _normalize(layer: Any, bottoms: list[Shape]) -> list[Step] | None:
    """Return x / sqrt(sum of x^2 over all channels + eps) as an LRN whose size reaches all channels, and a Scale."""
    p = layer.norm_param
    if p.across_spatial or p.channel_shared:
        return None
    size = 2 * bottoms[0][1] - 1  # LRN divides its sum by the size
    lrn = {"size": size, "alpha": float(size), "beta": 0.5, "bias": p.eps}
    return [("LRN", lrn), ("Scale", {"bias_term": False})]


def _shuffle_shapes(layer: Any, bottoms: list[Shape]) -> Inferred:
    group = layer.shuffle_channel_param.group or 1
    if image(bottoms[0])[1] % group:
        raise WrongLayer(f"has {group} groups, which do not divide its {bottoms[0][1]} channels evenly")
    return [bottoms[0]], []


def _shuffle(layer: Any, bottoms: list[Shape]) -> list[Step]:
    _, channels, height, width = bottoms[0]
    group = layer.shuffle_channel_param.group or 1
    return [
        ("Reshape", {"shape": [group, channels // group, height * width]}),
        ("Transpose", {"perm": [0, 2, 1, 3]}),
        ("Reshape", {"shape": [channels, height, width]}),
    ]


def _spatial_dropout_shapes(layer: Any, bottoms: list[Shape]) -> Inferred:
    if not 0 <= layer.dropout_param.dropout_ratio < 1:
        raise WrongLayer(
            f"has dropout_ratio {layer.dropout_param.dropout_ratio:g}, which must be at least 0 and less than 1"
        )
    return [image(bottoms[0])], []


def _spatial_dropout(layer: Any, bottoms: list[Shape]) -> list[Step]:
    return [("Dropout", {"ratio": layer.dropout_param.dropout_ratio, "channelwise": True})]


def _crop_center_shapes(layer: Any, bottoms: list[Shape]) -> Inferred:
    sizes = list(layer.crop_center_param.crop_size)
    if len(sizes) != len(bottoms[0]):
        raise WrongLayer(f"has crop_size {len(sizes)} times for {len(bottoms[0])} axes")
    return [tuple(n - 2 * size for n, size in zip(bottoms[0], sizes))], []  # noqa: B905


def _crop_center(layer: Any, bottoms: list[Shape]) -> list[Step]:
    sizes = dict(enumerate(layer.crop_center_param.crop_size))
    cut = {axis: size for axis, size in sizes.items() if size}
    if not cut:
        return [("Identity", {})]
    return [("Slice", {"axes": [*cut], "starts": [*cut.values()], "ends": [-size for size in cut.values()]})]


# layers that the Caffe of install-caffe has; the others are described and exported only
BUILT = ("BN", "Interp", "SpatialDropout", "Upsample")
RULES: dict[str, Callable[[Any, list[Shape]], Inferred]] = {
    "BN": _bn_shapes,
    "Interp": _interp_shapes,
    "Upsample": _upsample_shapes,
    "SpatialDropout": _spatial_dropout_shapes,
    "Permute": _permute_shapes,
    "Normalize": _normalize_shapes,
    "ShuffleChannel": _shuffle_shapes,
    "CropCenter": _crop_center_shapes,
}
# None of a rule: the layer has no equivalent
STEPS: dict[str, Callable[[Any, list[Shape]], Optional[list[Step]]]] = {  # noqa: UP045 - worker code runs on Python 3.9
    "BN": _bn,
    "Interp": _interp,
    "Upsample": _upsample,
    "SpatialDropout": _spatial_dropout,
    "Permute": _permute,
    "Normalize": _normalize,
    "ShuffleChannel": _shuffle,
    "CropCenter": _crop_center,
}
