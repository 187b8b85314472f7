"""The deploy network of a file: from images to predictions, without data layers, losses and metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from multiseg.errors import ModelError
from multiseg_caffe import losses, prototxt, sources


@dataclass(frozen=True)
class Deployed:
    """A deploy network.

    ``net`` (NetParameter) has no data layers; its input is the blob ``image``, of ``shape`` (N, C, H, W), None if the file
    does not specify it. ``outputs`` are the blobs that no layer consumes, ``more`` the inputs after the first, with their shapes.
    """

    net: Any
    image: str
    shape: tuple[int, ...] | None
    outputs: list[str]
    more: dict[str, tuple[int, ...] | None] = field(default_factory=dict)

    def input_shapes(self, shape: Sequence[int], path: str) -> dict[str, tuple[int, ...]]:
        """Return the shapes of all inputs for one image of ``shape`` (C, H, W).

        Further inputs have the size of the image if they have that of the first in the file, or none there; else their own.
        Raises ModelError for an input whose size is unknown.
        """
        shapes = {self.image: (1, *shape)}
        for name, own in self.more.items():
            if own is None and self.shape is not None:
                raise ModelError(
                    f"{path}: does not specify the size of its input {name!r}; add input_shape {{ dim: ... }}"
                )
            if own is None:
                shapes[name] = (1, *shape)
            elif self.shape is not None and len(own) == 4 and own[2:] == self.shape[2:]:
                shapes[name] = (1, own[1], *shape[1:])
            else:
                shapes[name] = (1, *own[1:])
        return shapes


def deployed(file: Any, path: str, chosen: Sequence[str] = ()) -> Deployed:
    """Return the network of the file's deploy state.

    In files without such a state (train_val.prototxt), data layers, losses, metrics and all layers that depend on labels are
    removed. If several outputs remain, and none are ``chosen`` by name, the prediction is the first input of the loss with the
    largest weight.
    """
    net = prototxt.filtered(file, "deploy", path)
    inputs = sources.find(net, path)
    image = next((top for top, source in inputs.items() if source.role == sources.DATA), sources.DATA)
    data_layers = {source.layer.name for source in inputs.values()}
    body = prototxt.of_layers(net.name, (layer for layer in net.layer if layer.bottom or layer.name not in data_layers))
    body, removed = losses.without(
        body, {sources.LABEL, *(top for top, source in inputs.items() if source.role == sources.LABEL)}
    )
    outputs = prototxt.outputs(body)
    if removed and len(outputs) != 1 and not chosen:
        heads = losses.heads(removed, {top for layer in body.layer for top in layer.top})
        if len(heads) == 1:
            outputs = heads
            body = _leading_to(body, heads[0])
    read = {bottom for layer in body.layer for bottom in layer.bottom}
    more = {top: source.shape for top, source in inputs.items() if source.role == sources.MORE and top in read}
    if image not in read and more:  # the first input is needed by no output
        image = next(iter(more))
    shape = inputs[image].shape if image in inputs else None
    more.pop(image, None)
    sources.scaled(body, image, sources.image_scale(file, path))
    return Deployed(body, image, shape, outputs, more)


def _leading_to(net: Any, blob: str) -> Any:
    """Return a network of the layers that ``blob`` depends on."""
    needed, kept = {blob}, []
    for layer in reversed(net.layer):
        if needed.intersection(layer.top):
            needed.update(layer.bottom)
            kept.append(layer)
    return prototxt.of_layers(net.name, reversed(kept))
