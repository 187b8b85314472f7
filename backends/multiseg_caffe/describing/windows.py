"""Read kernel, stride, padding and dilation of Caffe's convolutions and poolings, with Caffe's defaults."""

from __future__ import annotations

from typing import Any, NamedTuple

Pair = tuple[int, int]  # (height, width)


class WrongLayer(ValueError):
    """A layer that Caffe would reject, or that multiseg does not support; the message is the reason, without the layer's name."""


class Window(NamedTuple):
    """The geometry of a convolution or pooling, each item as (height, width)."""

    kernel: Pair
    stride: Pair
    pad: Pair
    dilation: Pair = (1, 1)


def of_convolution(p: Any) -> Window:
    """Return the window of a ConvolutionParameter (src/caffe/layers/base_conv_layer.cpp). Raises WrongLayer."""
    if not p.num_output:
        raise WrongLayer("has no num_output")
    if not p.kernel_size and not (p.kernel_h and p.kernel_w):
        raise WrongLayer("has no kernel_size, nor kernel_h and kernel_w")
    window = Window(
        _sizes(p, "kernel", 0, "kernel_size"), _sizes(p, "stride", 1), _sizes(p, "pad", 0), _sizes(p, "dilation", 1)
    )
    if min(window.kernel + window.stride + window.dilation) < 1:
        raise WrongLayer("has a kernel, stride or dilation of 0")
    return window


def _sizes(p: Any, name: str, default: int, field: str = "") -> Pair:
    """Return a size that is given by a repeated field (``field``, by default ``name``), or as ``name_h`` and ``name_w``."""
    values = list(getattr(p, field or name))
    if name != "dilation" and (p.HasField(f"{name}_h") or p.HasField(f"{name}_w")):
        if values:
            raise WrongLayer(f"has both {field or name} and {name}_h, {name}_w; Caffe accepts only one of them")
        return (getattr(p, f"{name}_h"), getattr(p, f"{name}_w"))
    if len(values) > 2:
        raise WrongLayer(f"specifies {field or name} {len(values)} times; images have two spatial axes")
    return (values[0], values[-1]) if values else (default, default)


def of_pooling(p: Any, size: Pair) -> Window:
    """Return the window of a PoolingParameter for images of ``size`` (src/caffe/layers/pooling_layer.cpp). Raises WrongLayer."""
    pad, stride = _pair(p, "pad"), _pair(p, "stride")
    if p.global_pooling:
        if p.HasField("kernel_size") or p.HasField("kernel_h") or p.HasField("kernel_w"):
            raise WrongLayer("has global_pooling and a kernel; Caffe accepts only one of them")
        if pad != (0, 0) or stride != (1, 1):
            raise WrongLayer("has global_pooling, which requires pad 0 and stride 1")
        return Window(size, stride, pad)
    if not p.HasField("kernel_size") and not (p.HasField("kernel_h") and p.HasField("kernel_w")):
        raise WrongLayer("has no kernel_size, nor kernel_h and kernel_w")
    window = Window(_pair(p, "kernel", "kernel_size"), stride, pad)
    if min(window.kernel + window.stride) < 1:
        raise WrongLayer("has a kernel or stride of 0")
    if any(a >= b for a, b in zip(pad, window.kernel)):  # noqa: B905 - worker code runs on Python 3.9
        kernel = "x".join(map(str, window.kernel))
        raise WrongLayer(f"has pad {pad[0]}x{pad[1]}, which must be smaller than its {kernel} kernel")
    return window


def lies_outside(window: Window, size: Pair, pooled: Pair) -> bool:
    """Return whether a pooling of images of ``size`` into ``pooled`` has a window without any pixel.

    Caffe rounds the number of windows up, and drops those outside the image only if the layer has a pad.
    """
    return any((pooled[i] - 1) * window.stride[i] - window.pad[i] >= size[i] for i in range(2))


def _pair(p: Any, name: str, field: str = "") -> Pair:
    """Return a size that is given as one field (``field``, by default ``name``), or as ``name_h`` and ``name_w``."""
    has_height, has_width = p.HasField(f"{name}_h"), p.HasField(f"{name}_w")
    if has_height != has_width or (has_height and p.HasField(field or name)):
        raise WrongLayer(f"needs {field or name}, or both {name}_h and {name}_w")
    square: int = getattr(p, field or name)
    return (getattr(p, f"{name}_h"), getattr(p, f"{name}_w")) if has_height else (square, square)
