"""Layers whose number of outputs a file leaves open: DIGITS sets them to the number of classes."""

from __future__ import annotations

from typing import Any

from multiseg.errors import ModelError, setting

PARAMETERS = {
    "InnerProduct": "inner_product_param", "Convolution": "convolution_param", "Deconvolution": "convolution_param",
}  # fmt: skip


def open_layers(net: Any) -> list[Any]:
    """Return the layers without ``num_output`` that no layer with one follows, in any state."""
    found = []
    followed: set[str] = set()  # the blobs that the layers with one depend on
    for layer in reversed(net.layer):
        has_outputs = layer.type in PARAMETERS
        if followed.intersection(layer.top) or (has_outputs and _has(layer)):
            followed.update(layer.bottom)
        elif has_outputs:
            found.append(layer)
    return found[::-1]


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
