"""A network's data layers, which multiseg's own batches stand in for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from multiseg.errors import ModelError
from multiseg_caffe import prototxt
from multiseg_caffe.describing.shapes import READERS

# what the core feeds: blob name -> which of its arrays
DATA, LABEL = "data", "label"
TRANSFORMERS = ("Data", "ImageData", "MemoryData", "WindowData")
BATCHES = ("data_param", "image_data_param", "hdf5_data_param", "memory_data_param", "window_data_param")


@dataclass(frozen=True)
class Source:
    """One top of a data layer: which of the core's arrays it is, and its shape where the file says it."""

    top: str
    role: str
    layer: Any
    shape: tuple[int, ...] | None

    @property
    def scale(self) -> float:
        """What Caffe multiplies these images with as it reads them; of a layer's tops, the first holds images."""
        transforms = self.layer.type in TRANSFORMERS and self.layer.top[0] == self.top
        return float(self.layer.transform_param.scale) if transforms else 1.0


def find(net: Any, path: str) -> dict[str, Source]:
    """Data layers' tops. They are told by the names data and label, of the top or of the layer.

    Raises ModelError where a data layer's tops are neither, and where there are several inputs.
    """
    found: dict[str, Source] = {}
    for layer in net.layer:
        if layer.bottom or layer.type not in (*READERS, "Input", "DummyData", "Python"):
            continue
        for index, top in enumerate(layer.top):
            role = _role(layer, index)
            if role is None and layer.type in ("DummyData", "Python"):
                continue  # no data set's layer: part of the network
            if role is None:
                raise ModelError(
                    f"{path}: layer {layer.name!r}: top {top!r} is unknown; a data layer's tops are data and label"
                )
            other = next((name for name, source in found.items() if source.role == role and name != top), None)
            if other is not None:
                raise ModelError(f"{path}: has several inputs, {other!r} and {top!r}; multiseg's networks have one")
            found[top] = Source(top, role, layer, _shape(layer, index))
    return found


def _role(layer: Any, index: int) -> str | None:
    tops = list(layer.top)
    if tops[index] in (DATA, LABEL):
        return str(tops[index])
    if index == 0 and layer.name in (DATA, LABEL):
        return str(layer.name)
    if layer.type == "Input":
        return DATA
    if index == 1 and len(tops) == 2 and _role(layer, 0) == DATA:
        return LABEL
    return None


def _shape(layer: Any, index: int) -> tuple[int, ...] | None:
    if layer.type == "Input" and layer.input_param.shape:
        shapes = layer.input_param.shape
        return tuple(shapes[index if index < len(shapes) else 0].dim)
    p = layer.memory_data_param
    if layer.type == "MemoryData" and index == 0 and p.channels and p.height and p.width:
        return (p.batch_size, p.channels, p.height, p.width)
    return None


def batch_size(net: Any, state: str, path: str) -> int | None:
    """The batch size that the file's data layer names for this state."""
    layers = [layer for layer in prototxt.filtered(net, state, path).layer if layer.type in READERS]
    sizes = [getattr(layer, key).batch_size for layer in layers for key in BATCHES if layer.HasField(key)]
    return next((size for size in sizes if size), None)


def scaled(net: Any, blob: str, factor: float) -> None:
    """Put a layer that multiplies this blob, in place, before all others."""
    if factor == 1:
        return
    rest = list(net.layer)
    del net.layer[:]
    layer = net.layer.add(name=f"{blob}_scale", type="Power", bottom=[blob], top=[blob])
    layer.power_param.scale = factor
    net.layer.extend(rest)


def fed(net: Any, path: str, shapes: dict[str, list[int]]) -> Any:
    """The network with its data layers replaced by inputs of the given shapes, called data and label, which the core fills.

    Raises ModelError for a data layer that transforms images otherwise than by a scale (and a mean, which is the core's).
    """
    found = find(net, path)
    for source in found.values():
        for key in ("crop_size", "mirror"):
            if getattr(source.layer.transform_param, key):
                raise ModelError(
                    f"{path}: layer {source.layer.name!r}: transform_param {{ {key} }} is not supported; leave it out "
                    "(crop when the dataset is made)"
                )
    replaced = {source.layer.name for source in found.values()}
    result = prototxt.of_layers(net.name, (layer for layer in net.layer if layer.bottom or layer.name not in replaced))
    names = {top: source.role for top, source in found.items()}
    for layer in result.layer:
        for blobs in (layer.bottom, layer.top):
            blobs[:] = [names.get(blob, blob) for blob in blobs]
    for source in found.values():
        scaled(result, source.role, source.scale)
    rest = list(result.layer)
    del result.layer[:]
    for name, shape in shapes.items():
        layer = result.layer.add(name=name, type="Input", top=[name])
        layer.input_param.shape.add(dim=shape)
    result.layer.extend(rest)
    return result
