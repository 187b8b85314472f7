"""Export a PyTorch network file to ONNX with torch.onnx; see multiseg.exporting.onnx. Runs in the backend's process."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from multiseg.errors import ModelError, setting
from multiseg.network import Array, check_weights
from multiseg.topology.names import unused
from multiseg_torch import files, onnx_graph, onnx_tensors
from multiseg_torch.describing import tracing
from multiseg_torch.onnx_tensors import compute, described
from multiseg_torch.weights import neutral_weights, unflattened

__all__ = ["compute", "described", "write"]

AXES = ("batch", None, "height", "width")  # names of the dynamic axes


def write(
    path: str, title: str, weights: Mapping[str, Array], images: Sequence[Sequence[Array]], inputs: Sequence[str],
    outputs: Sequence[str], metadata: Mapping[str, str], out: str, tolerance: float, image_type: str | None = None,
    argmax: bool = False, values: Sequence[str] = (),
) -> list[Array]:  # fmt: skip
    """Write the network of a Python file with these weights as the ONNX file ``out``; ``title`` names it in messages.

    ``images``: batches, a (N, C, H, W) for each input, the first of the network's size. The file accepts any batch size, and, if
    there is a second batch of another size, any height and width, unless the exporter or onnxruntime fails with it. ``inputs``
    and ``outputs`` are their names in the file. ``image_type`` and ``argmax`` are those of multiseg_torch.onnx_graph.extended;
    what is returned and compared is the network without these additions.

    ``values`` are the names of all outputs of the Python file, if it has more than ``outputs``, with which it begins: the others
    are no outputs of the ONNX file, but tensors in it of these names, and its metadata state the tensor of each value as
    ``multiseg.layers``. Returns onnxruntime's outputs for the first batch, followed by all of ``values`` as it computes them if
    each is an output, so that it cannot compute several layers as one; an empty array for one that is no tensor of its own.

    Raises SettingsError if ONNX's packages are missing;
    ModelError if the weights do not fit, the network cannot be exported, or outputs differ from PyTorch's by more than
    ``tolerance`` times the largest value.
    """
    onnx_tensors.check_packages()
    if (image_type is not None or argmax) and (len(inputs) > 1 or len(outputs) > 1):
        raise ModelError(
            f"{title}: has {len(inputs)} inputs and {len(outputs)} outputs; preprocessing and argmax are for networks with one "
            f"of each; choose an output with {setting('outputs', example='NAME')}"
        )
    taken = {onnx_graph.IMAGE if image_type is not None else None, onnx_graph.CLASSES if argmax else None}
    further = list(values[len(outputs) :])
    names = [f"{value}_of_network" if value in taken else value for value in (*inputs, *outputs, *further)]
    for place, name in enumerate(names):  # an output may be called like an input
        names[place] = unused(name, names[:place])
    model = _loaded(path, title, weights, images[0][0])
    expected = [_alone(model, batch, title) for batch in images]
    _normalise_each(model)
    _check_independence(model, title, images[0], len(outputs))
    for count in range(len(images), 0, -1):
        try:
            content = _exported(model, title, images[count - 1], names, metadata, count > 1, len(outputs), values)
            results = _run(content, title, images[:count])
            _compare(title, outputs, results, expected, tolerance)
            break
        except ModelError:
            if count == 1:
                raise
    tensors = onnx_tensors.computed(content, title, images[0], names[len(inputs) :] if values else [])
    if image_type is not None or argmax:
        content = onnx_graph.extended(content, title, image_type, argmax)
        _run(content, title, [[np.zeros(images[0][0].shape, image_type or "float32")]])
    Path(out).write_bytes(content)
    return [*results[0], *tensors]


class _OfEach(nn.Module):
    """Batch normalisation by the statistics of each image, which are those of the batch where an image is predicted alone."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)


def _normalise_each(model: nn.Module) -> None:
    """Replace the modules that normalise by the batch's statistics in prediction: multiseg predicts each image alone."""
    for parent in list(model.modules()):
        for name, module in parent.named_children():
            by_batch = module.running_mean is None if type(module) is nn.BatchNorm2d else False
            if by_batch or type(module).__name__ == "ByBatchBatchNorm2d":
                setattr(parent, name, _OfEach(module))


def _alone(model: nn.Module, images: Sequence[Array], title: str) -> list[Array]:
    """Return the outputs for images that are predicted one by one. Raises ModelError if one image alone is not possible."""
    try:
        results = [_forward(model, [array[place : place + 1] for array in images]) for place in range(len(images[0]))]
        return [np.concatenate(parts) for parts in zip(*results)]
    except ValueError as error:  # batch normalisation of one value per channel
        raise ModelError(f"{title}: cannot predict one image alone: {_first_line(error)}") from error


def _check_independence(model: nn.Module, title: str, images: Sequence[Array], outputs: int) -> None:
    """Raise ModelError if one of the first ``outputs`` depends on the other images of a batch.

    multiseg predicts images alone, ONNX cannot.
    """
    other = [np.concatenate([array[:1], 2 * array[:1] + 1]) for array in images]
    pairs = zip(_forward(model, [array[:1] for array in other]), _forward(model, other))
    for alone, together in list(pairs)[:outputs]:
        largest = np.abs(alone[0]).max(initial=0)
        if not np.isfinite(largest) or np.abs(alone[0] - together[0]).max(initial=0) <= 1e-3 * largest:
            continue
        tensors = [torch.from_numpy(array) for array in other]
        layers, *_ = tracing.layers_of(model, tensors, [str(place) for place in range(len(tensors))])
        names = [layer["name"] for layer in layers if "prediction_statistics" in layer.get("parameters", {})]
        raise ModelError(
            f"{title}: its output depends on the other images of a batch"
            + (f", because of the statistics that {' and '.join(map(repr, names))} uses in prediction" if names else "")
            + "; an ONNX file of it would mix images"
        )


def _loaded(path: str, title: str, weights: Mapping[str, Array], images: Array) -> nn.Module:
    """Return the file's module with these weights, in evaluation mode."""
    model = files.load(path, images.shape[1:]).model.eval()
    own = neutral_weights(model)
    arrays = unflattened(model, title, weights)
    check_weights(title, {name: tuple(value.shape) for name, value in own.items()}, arrays)
    for name, value in own.items():
        value.copy_(torch.from_numpy(np.array(arrays[name])))
    return model


@torch.no_grad()
def _forward(model: nn.Module, images: Sequence[Array]) -> list[Array]:
    """Return the outputs for an array of each input."""
    outputs = model(*(torch.from_numpy(array) for array in images))
    return [output.numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]


def _exported(
    model: nn.Module,
    title: str,
    images: Sequence[Array],
    names: Sequence[str],
    metadata: Mapping[str, str],
    sizes: bool,
    outputs: int,
    values: Sequence[str],
) -> bytes:
    """Return the bytes of an ONNX file; ``names`` are those of the model's inputs and outputs, of which the file has the first
    ``outputs`` as its own; ``values`` as in :func:`write`. Raise ModelError if that is not possible."""
    import onnx

    axes = [
        {axis: name for axis, name in enumerate(AXES) if name and (axis == 0 or (sizes and array.ndim == len(AXES)))}
        for array in images
    ]
    try:
        unlike_any = [f"multiseg:{number}" for number in range(len(names))]  # the exporter does not avoid its own names
        program = torch.onnx.export(
            model, tuple(torch.from_numpy(array) for array in images), dynamo=True, input_names=unlike_any[: len(images)],
            output_names=unlike_any[len(images) :], dynamic_shapes=tuple(axes), external_data=False, verbose=False,
        )  # fmt: skip
        proto = program.model_proto
        onnx_tensors.rename(proto, dict(zip(unlike_any, names)))
        onnx_tensors.keep_outputs(proto, outputs)
        for part in [*proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output]:
            del part.metadata_props[:]  # source locations: paths on this machine
        present = onnx_tensors.names_of(proto)
        layers = {value: name for value, name in zip(values, names[len(images) :]) if name in present}
        stated = {onnx_tensors.LAYERS: json.dumps(layers)} if layers else {}
        for key, text in {**metadata, **stated}.items():
            proto.metadata_props.add(key=key, value=text)
        onnx.checker.check_model(proto, full_check=True)
        content: bytes = proto.SerializeToString()
    except Exception as error:  # of many classes: the exporter's, the checker's, protobuf's for more than 2 GiB
        raise ModelError(f"{title}: cannot be exported to ONNX: {_first_line(error)}") from error
    return content


def _run(content: bytes, title: str, images: Sequence[Sequence[Array]]) -> list[list[Array]]:
    """Return onnxruntime's outputs for the batches, an array for each output."""
    return [onnx_tensors.run(content, title, batch) for batch in images]


def _compare(
    title: str,
    names: Sequence[str],
    results: Sequence[Sequence[Array]],
    expected: Sequence[Sequence[Array]],
    tolerance: float,
) -> None:
    pairs = [triple for batch in zip(results, expected) for triple in zip(names, *batch)]
    for name, output, other in pairs:
        of = f" {name!r}" if len(names) > 1 else ""
        alike = output.shape == other.shape and np.array_equal(np.isfinite(output), np.isfinite(other))
        finite = np.isfinite(other)
        largest = np.abs(other[finite]).max(initial=1e-30)
        apart = np.abs(output[finite] - other[finite]).max(initial=0) / largest if alike else np.inf
        if not apart <= tolerance:
            raise ModelError(
                f"{title}: onnxruntime's output{of} differs from PyTorch's by {apart:.1e} of its largest value, more than "
                f"{tolerance:g}; the file is not written"
            )


def _first_line(error: BaseException) -> Any:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
