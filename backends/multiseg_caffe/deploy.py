"""The deploy network of a file: from images to predictions, without data layers, losses and metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from multiseg_caffe import losses, prototxt, sources


@dataclass(frozen=True)
class Deployed:
    """A deploy network.

    ``net`` (NetParameter) has no data layers; its input is the blob ``image``, of ``shape`` (N, C, H, W), None if the file
    does not specify it. ``outputs`` are the blobs that no layer consumes.
    """

    net: Any
    image: str
    shape: tuple[int, ...] | None
    outputs: list[str]


def deployed(file: Any, path: str) -> Deployed:
    """Return the network of the file's deploy state.

    In files without such a state (train_val.prototxt), data layers, losses, metrics and all layers that depend on labels are
    removed. If several outputs remain, the prediction is the first input of the loss with the largest weight.
    """
    net = prototxt.filtered(file, "deploy", path)
    inputs = sources.find(net, path)
    image = next((top for top, source in inputs.items() if source.role == sources.DATA), sources.DATA)
    data_layers = {source.layer.name for source in inputs.values()}
    body = prototxt.of_layers(net.name, (layer for layer in net.layer if layer.bottom or layer.name not in data_layers))
    body, removed = losses.without(body, {sources.LABEL, *(top for top in inputs if top != image)})
    outputs = prototxt.outputs(body)
    if removed and len(outputs) != 1:
        heads = losses.heads(removed, {top for layer in body.layer for top in layer.top})
        if len(heads) == 1:
            outputs = heads
            body = _leading_to(body, heads[0])
    sources.scaled(body, image, sources.image_scale(file, path))
    return Deployed(body, image, inputs[image].shape if image in inputs else None, outputs)


def _leading_to(net: Any, blob: str) -> Any:
    """Return a network of the layers that ``blob`` depends on."""
    needed, kept = {blob}, []
    for layer in reversed(net.layer):
        if needed.intersection(layer.top):
            needed.update(layer.bottom)
            kept.append(layer)
    return prototxt.of_layers(net.name, reversed(kept))
