"""The network in a file as it is deployed: from images to predictions, without data layers, losses and metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from multiseg_caffe import losses, prototxt, sources


@dataclass(frozen=True)
class Deployed:
    """``net`` has no data layers; it reads the blob ``image``, of ``shape`` (N, C, H, W) where the file says it."""

    net: Any
    image: str
    shape: tuple[int, ...] | None
    outputs: list[str]


def deployed(file: Any, path: str) -> Deployed:
    """What the file's deploy state computes.

    Files that mark no such state (train_val.prototxt) are cut down to it: without data layers, losses, metrics and all
    that depends on labels. Where this leaves several ends, the prediction is what the loss of the greatest weight compares.
    """
    net = prototxt.filtered(file, "deploy", path)
    found = sources.find(net, path)
    image = next((top for top, source in found.items() if source.role == sources.DATA), sources.DATA)
    layers = {source.layer.name for source in found.values()}
    body = prototxt.of_layers(net.name, (layer for layer in net.layer if layer.bottom or layer.name not in layers))
    body, removed = losses.without(body, {sources.LABEL, *(top for top in found if top != image)})
    ends = prototxt.outputs(body)
    if removed and len(ends) != 1:
        heads = losses.heads(removed, {top for layer in body.layer for top in layer.top})
        if len(heads) == 1:
            ends = heads
            body = _leading_to(body, heads[0])
    own = found.get(image)
    if own is None:  # DIGITS' files have data layers for the other states alone
        for source in sources.find(prototxt.filtered(file, "val", path), path).values():
            own = source if source.role == sources.DATA else own
    sources.scaled(body, image, own.scale if own else 1.0)
    return Deployed(body, image, found[image].shape if image in found else None, ends)


def _leading_to(net: Any, blob: str) -> Any:
    """Only the layers that this blob depends on."""
    needed, kept = {blob}, []
    for layer in reversed(net.layer):
        if needed.intersection(layer.top):
            needed.update(layer.bottom)
            kept.append(layer)
    return prototxt.of_layers(net.name, reversed(kept))
