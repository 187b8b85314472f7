"""Write a program that computes an exported network in Caffe alone; see multiseg.topology.interfaces.AloneWriter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from multiseg_caffe import prototxt
from multiseg_caffe.weights import part


def lines(network: str, weights: str, input_shape: Sequence[int], output: str, parameter: str | None) -> list[str]:
    """See multiseg.topology.interfaces.AloneWriter."""
    name = Path(network).name
    text = ["import caffe"]
    if parameter is not None:  # without a loss, Caffe computes gradients only if this is set
        text += [
            f"open('backward_{name}', 'w').write(open({name!r}).read() + 'force_backward: true\\n')",
        ]
        name = f"backward_{name}"
    text += [
        f"net = caffe.Net({name!r}, {f'{Path(weights).name!r}, ' if Path(weights).exists() else ''}caffe.TEST)",
        "data = net.blobs[net.inputs[0]]",
        "data.reshape(*batch['input'].shape)",
        "net.reshape()",
        "data.data[...] = batch['input']",
        "net.forward()",
    ]
    if parameter is None:
        text.append(f"measured = net.blobs[{output!r}].data.copy()")
    else:
        layer, index = _place(network, parameter)
        text += [
            f"diff = net.blobs[{output!r}].diff",
            "diff[...] = batch['output_gradient'].reshape(diff.shape)",
            "net._backward(len(net.layers) - 1, 0)",
            f"measured = net.params[{layer!r}][{index}].diff.copy()",
        ]
    return [*text, "version = f'Caffe {caffe.__version__}'"]


def _place(network: str, parameter: str) -> tuple[str, int]:
    """Return the layer and the index of the blob of a neutral parameter."""
    name, _, wanted = parameter.rpartition(".")
    kind = next(layer.type for layer in prototxt.read(network).layer if layer.name == name)
    return name, next(index for index in range(3) if part(kind, index) == wanted)
