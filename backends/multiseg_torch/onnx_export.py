"""Export a PyTorch network file to ONNX with torch.onnx; see multiseg.exporting.onnx. Runs in the backend's process."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from multiseg.errors import ModelError, SettingsError
from multiseg.network import Array, check_weights
from multiseg_torch import files, onnx_graph
from multiseg_torch.describing import tracing
from multiseg_torch.weights import neutral_weights, unflattened

AXES = ("batch", None, "height", "width")  # names of the dynamic axes


def write(
    path: str, title: str, weights: Mapping[str, Array], images: Sequence[Array], values: Sequence[str],
    metadata: Mapping[str, str], out: str, tolerance: float, image_type: str | None = None, argmax: bool = False,
) -> list[Array]:  # fmt: skip
    """Write the network of a Python file with these weights as the ONNX file ``out``; ``title`` names it in messages.

    ``images``: batches (N, C, H, W), the first of the network's size. The file accepts any batch size, and, if there is a second
    batch of another size, any height and width, unless the exporter or onnxruntime fails with it. ``values`` are the names of
    input and output. ``image_type`` and ``argmax`` are those of multiseg_torch.onnx_graph.extended; what is returned and compared
    is the network without these additions. Returns onnxruntime's output for the first batch.
    Raises SettingsError if ONNX's packages are missing;
    ModelError if the weights do not fit, the network cannot be exported, or outputs differ from PyTorch's by more than
    ``tolerance`` times the largest value.
    """
    _check_packages()
    taken = {onnx_graph.IMAGE if image_type is not None else None, onnx_graph.CLASSES if argmax else None}
    values = [f"{value}_of_network" if value in taken else value for value in values]
    model = _loaded(path, title, weights, images[0])
    expected = [_alone(model, batch, title) for batch in images]
    _normalise_each(model)
    _check_independence(model, title, images[0])
    for count in range(len(images), 0, -1):
        try:
            content = _exported(model, title, images[count - 1], values, metadata, sizes=count > 1)
            outputs = _run(content, title, images[:count])
            _compare(title, outputs, expected, tolerance)
            break
        except ModelError:
            if count == 1:
                raise
    if image_type is not None or argmax:
        content = onnx_graph.extended(content, title, image_type, argmax)
        _run(content, title, [np.zeros(images[0].shape, image_type or "float32")])
    Path(out).write_bytes(content)
    return outputs[:1]


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


def _alone(model: nn.Module, images: Array, title: str) -> Array:
    """Return the outputs for images that are predicted one by one. Raises ModelError if one image alone is not possible."""
    try:
        return np.concatenate([_forward(model, images[place : place + 1]) for place in range(len(images))])
    except ValueError as error:  # batch normalisation of one value per channel
        raise ModelError(f"{title}: cannot predict one image alone: {_first_line(error)}") from error


def _check_independence(model: nn.Module, title: str, images: Array) -> None:
    """Raise ModelError if an answer depends on the other images of its batch; multiseg predicts them alone, ONNX cannot."""
    other = np.concatenate([images[:1], 2 * images[:1] + 1])
    alone, together = _forward(model, other[:1])[0], _forward(model, other)[0]
    largest = np.abs(alone).max(initial=0)
    if np.isfinite(largest) and not np.abs(alone - together).max(initial=0) <= 1e-3 * largest:
        layers, _ = tracing.layers_of(model, torch.from_numpy(other))
        names = [layer["name"] for layer in layers if "prediction_statistics" in layer.get("parameters", {})]
        raise ModelError(
            f"{title}: its output depends on the other images of a batch"
            + (f", because of the statistics that {' and '.join(map(repr, names))} uses in prediction" if names else "")
            + "; an ONNX file of it would mix images"
        )


def _check_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            f"onnx: {sys.executable} cannot import ONNX's packages ({error}); install them with: pip install 'multiseg[onnx]'"
        ) from error


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
def _forward(model: nn.Module, images: Array) -> Array:
    output: Array = model(torch.from_numpy(images)).numpy()
    return output


def _exported(
    model: nn.Module, title: str, images: Array, values: Sequence[str], metadata: Mapping[str, str], sizes: bool
) -> bytes:
    """Return the network as the bytes of an ONNX file. Raise ModelError if it cannot be exported."""
    import onnx

    axes = {axis: name for axis, name in enumerate(AXES) if name and (sizes or axis == 0)}
    try:
        program = torch.onnx.export(
            model, (torch.from_numpy(images),), dynamo=True, input_names=[values[0]], output_names=[values[1]],
            dynamic_shapes=(axes,), external_data=False, verbose=False,
        )  # fmt: skip
        proto = program.model_proto
        for part in [*proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output]:
            del part.metadata_props[:]  # source locations: paths on this machine
        for key, text in metadata.items():
            proto.metadata_props.add(key=key, value=text)
        onnx.checker.check_model(proto, full_check=True)
        content: bytes = proto.SerializeToString()
    except Exception as error:  # of many classes: the exporter's, the checker's, protobuf's for more than 2 GiB
        raise ModelError(f"{title}: cannot be exported to ONNX: {_first_line(error)}") from error
    return content


def _run(content: bytes, title: str, images: Sequence[Array]) -> list[Array]:
    """Return onnxruntime's outputs for the batches."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return [session.run(None, {name: batch})[0] for batch in images]
    except Exception as error:  # onnxruntime's exceptions have no common base class
        raise ModelError(f"{title}: onnxruntime cannot run the exported network: {_first_line(error)}") from error


def _compare(title: str, outputs: Sequence[Array], expected: Sequence[Array], tolerance: float) -> None:
    for output, other in zip(outputs, expected):
        alike = output.shape == other.shape and np.array_equal(np.isfinite(output), np.isfinite(other))
        finite = np.isfinite(other)
        largest = np.abs(other[finite]).max(initial=1e-30)
        apart = np.abs(output[finite] - other[finite]).max(initial=0) / largest if alike else np.inf
        if not apart <= tolerance:
            raise ModelError(
                f"{title}: onnxruntime's output differs from PyTorch's by {apart:.1e} of its largest value, more than "
                f"{tolerance:g}; the file is not written"
            )


def _first_line(error: BaseException) -> Any:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
