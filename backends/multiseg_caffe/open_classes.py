"""Layers whose number of outputs a file leaves open: DIGITS sets them to the number of classes."""

from __future__ import annotations

from typing import Any

from multiseg.errors import ModelError, setting

PARAMETERS = {
    "InnerProduct": "inner_product_param", "Convolution": "convolution_param", "Deconvolution": "convolution_param",
}  # fmt: skip


def open_layers(net: Any) -> list[Any]:
    """Return the layers without ``num_output`` that no layer with one follows, in any state."""
    stated = [layer for layer in net.layer if layer.type in PARAMETERS and _has(layer)]
    missing = [layer for layer in net.layer if layer.type in PARAMETERS and not _has(layer)]
    if not missing:
        return []
    before: dict[
        str, set[str]
    ] = {}  # the blobs that each blob depends on; an in-place layer adds to those of its input
    for layer in net.layer:
        sources = set(layer.bottom).union(*(before.get(bottom, set()) for bottom in layer.bottom))
        for top in layer.top:
            before[top] = before.get(top, set()) | sources
    followed = {blob for layer in stated for bottom in layer.bottom for blob in {bottom, *before.get(bottom, ())}}
    return [layer for layer in missing if not followed.intersection(layer.top)]


def fill(net: Any, classes: int) -> None:
    """Set the number of outputs of the open layers to ``classes``; one group for each output remains so."""
    for layer in open_layers(net):
        getattr(layer, PARAMETERS[layer.type]).num_output = classes


def check(net: Any, path: str) -> None:
    """Raise ModelError that names the open layers, which need the number of classes."""
    layers = open_layers(net)
    if layers:
        names = " and ".join(repr(layer.name) for layer in layers)
        raise ModelError(
            f"{path}: leaves num_output of {'layer' if len(layers) == 1 else 'layers'} {names} open, which is the number of "
            f"classes; specify {setting('classes', example='N')}, or a dataset whose labels are classes"
        )


def _has(layer: Any) -> bool:
    return bool(getattr(layer, PARAMETERS[layer.type]).num_output)
