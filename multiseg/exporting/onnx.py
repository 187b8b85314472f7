"""Export a network with its weights as an ONNX file, with a backend whose framework supports it.

described network -> the backend's own network file, in a temporary folder -> its framework's exporter, with the weights

The ONNX file has the same inputs as the network: axes N, C, H, W, colours in the order that the weights were trained with, the
mean subtracted. Its metadata record this. It is written only if onnxruntime computes the same outputs as the framework, and each
layer as float64 does (multiseg.exporting.onnx_layers): its tensors have the names of the network's values.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from multiseg import backend as registry
from multiseg.backend import Backend
from multiseg.dataset.dataset import FLOAT
from multiseg.errors import BackendUnavailable, ModelError, setting
from multiseg.exporting import inputs, onnx_layers, source
from multiseg.files import write_bytes
from multiseg.files.scratch import TemporaryFolder
from multiseg.layout import Floats, Layout, swap_red_blue
from multiseg.model_files import kinds, reading, writing
from multiseg.run.run import Run
from multiseg.topology import Topology
from multiseg.topology.cutting import cut
from multiseg.topology.geometry import Geometry, NotLocal
from multiseg.topology.matching import match
from multiseg.topology.writing import ONLY
from multiseg.worker import choice, pool
from multiseg.worker.client import Worker

KIND = "onnx"
TOLERANCE = (
    1e-4  # relative to the largest output: rounding of float32 sums in other orders, in networks of usual depths
)
ON_A_GPU = 1e-2  # against a framework on a GPU, whose convolutions may keep 10 bits of each factor (TF32)

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Trained:
    """Weights by the names of a topology or of its exported file, with the format of the network's input."""

    weights: Mapping[str, Array]
    channel_order: str
    metadata: Mapping[str, str]
    run: Run | None


def check_name(path: Path) -> None:
    """Raise ModelError if a file name does not end in .onnx."""
    if path.suffix != ".onnx":
        raise ModelError(f"{path}: the name of an ONNX file must end in .onnx")


def export(
    network: Path | Run | Topology,
    out: Path,
    input_shape: Any,
    weights: Path | Run | None,
    worker: Worker | None = None,
    *,
    with_preprocessing: bool = False,
    with_argmax: bool = False,
    outputs: Sequence[str] = (),
    report: Callable[[str], None] | None = None,
) -> Path:
    """Write ``network`` with ``weights`` (default: its own) to ``out`` atomically; see multiseg.export.

    ``with_preprocessing`` and ``with_argmax`` add to the graph what multiseg does before and after the network.
    ``worker`` is a running worker of the backend that writes ONNX, or None to start one.
    """
    check_name(out)
    writing.check_output(out, [inputs.file_of(network), inputs.file_of(weights)])
    backend = writer()
    with ExitStack() as stack:
        run = inputs.run_of(network, stack)
        topology = inputs.described(network, run, input_shape, outputs)
        with_mean = inputs.with_mean_of(run, topology)
        trained = _trained(network, topology, weights, run, stack, outputs)
        values = (*topology.outputs, *onnx_layers.further_values(topology))
        described = replace(topology, outputs=values, output_titles=(), objective=None)
        try:
            text = source.source(backend, described, classes=False)
        except ModelError as error:
            reason = error.template.removeprefix(f"{topology.source}: {backend.title} ")
            raise ModelError(f"{topology.source}: ONNX, written by way of {backend.title}, {reason}") from error
        images = _images(topology, text)
        folder = stack.enter_context(TemporaryFolder()).path
        file = folder / f"network{backend.formats[0]}"
        file.write_text(text)
        arguments = {
            "path": str(file),
            "title": topology.source,
            "weights": _named(backend, topology, trained.weights),
            "images": images,
            "inputs": list(topology.inputs),
            "outputs": list(topology.titles),
            "metadata": _metadata(with_mean, trained),
            "out": str(folder / "network.onnx"),
            "tolerance": TOLERANCE,
            **({"image_type": _image_type(trained.run)} if with_preprocessing else {}),
            **({"argmax": True} if with_argmax else {}),
            "values": list(values),
        }
        assert backend.onnx is not None
        module, _, function = backend.onnx.partition(":")
        worker = worker or stack.enter_context(pool.start(backend))
        arrays = worker.call("read", module=module, function=function, arguments=arguments)
        if trained.run is not None:
            names = cut(trained.run.topology, outputs).outputs
            _check_against(trained.run, topology, names, images[0][0], arrays[: len(names)])
        weights_by_layer = _of_layers(backend, topology, trained.weights)
        computed = {
            name: array for name, array in zip(values, arrays[len(topology.outputs) :], strict=True) if array.size
        }
        compared = onnx_layers.compare(topology, weights_by_layer, images[0], computed)
        if report is not None:
            report(str(compared))
        write_bytes(out, (folder / "network.onnx").read_bytes())
    return out


def _image_type(run: Run | None) -> str:
    """Return the type of the images that are the input of a file with preprocessing: uint8, or float32 for deeper images."""
    return "float32" if run is not None and run.values == FLOAT else "uint8"


def writer() -> Backend:
    """Return the backend that writes ONNX files. Raises BackendUnavailable if there is none."""
    for backend in map(registry.get, registry.names()):
        if backend.onnx is not None and backend.exporter is not None:
            return backend
    raise BackendUnavailable(
        f"no installed backend writes ONNX files; installed are: {', '.join(registry.names()) or 'none'}"
    )


def _trained(
    network: Path | Run | Topology, topology: Topology, weights: Path | Run | None, run: Run | None, stack: ExitStack,
    outputs: Sequence[str],
) -> Trained:  # fmt: skip
    """Return ``weights``, else those of the run, else those in the network file itself. Raises ModelError if there are none."""
    source_run = run if weights is None else inputs.run_of(weights, stack)
    if source_run is not None:
        return _of_run(source_run, topology, outputs)
    file = network if isinstance(network, Path) else None
    if weights is None and file is not None and _holds_weights(choice.read(file).file):
        weights = choice.read(file).file
    if weights is None:
        raise ModelError(
            f"{topology.source}: contains no weights, which an ONNX file requires; "
            f"specify {setting('weights', example='FILE')} or a run folder"
        )
    assert isinstance(weights, Path)
    channels, height, width = topology.input_shape
    neutral = reading.read_neutral(weights, run.model if run else file, (channels, height, width))
    neutral = neutral.without_prefix(topology.weights)
    return Trained(neutral.weights, neutral.channel_order or _channel_order(topology), {"weights": weights.name}, None)


def _holds_weights(path: Path) -> bool:
    try:
        kinds.kind_of(path, "weights")
    except ModelError:
        return False
    return True


def _of_run(run: Run, topology: Topology, outputs: Sequence[str]) -> Trained:
    """Return the weights of a run, cut to ``outputs``. Raises ModelError if its network differs from ``topology``."""
    names = match(topology, cut(run.topology, outputs)).parameters
    weights = {names.get(name, name): value for name, value in run.worker().call("get_weights").items()}
    assert run.snapshot is not None
    metadata = {"run": run.name, "backend": run.backend, "epoch": f"{run.snapshot.epoch:g}"}
    if run.layout.mean is not None:
        metadata["mean"] = _of_input(run.layout.mean, run.layout)
    if run.layout.std is not None:
        metadata["std"] = _of_input(run.layout.std, run.layout)
    return Trained(weights, run.layout.channel_order, metadata, run)


def _of_input(values: Floats, layout: Layout) -> str:
    """Return values (C,) or (C, H, W), RGB, as metadata: (C, 1, 1) or (C, H, W) in the channel order of the input."""
    image = values.reshape(len(values), *(values.shape[1:] or (1, 1)))
    ordered = swap_red_blue(image) if layout.channel_order == "BGR" else image
    return json.dumps([[[float(f"{value:.9g}") for value in row] for row in channel] for channel in ordered])


def _channel_order(topology: Topology) -> str:
    """Return the order of the colours for networks of the file's kind."""
    kinds = [(backend, kind.name) for backend in map(registry.get, registry.names()) for kind in backend.kinds]
    return next((backend.channel_order for backend, name in kinds if name == topology.kind), "RGB")


def _named(backend: Backend, topology: Topology, weights: Mapping[str, Array]) -> dict[str, Array]:
    """Return weights by the names of the exported file; unknown names stay as they are, and the ONNX writer rejects them."""
    names = _names(backend, topology)
    if set(names) <= set(weights):
        return {names[name]: weights[name] for name in names}
    if set(names.values()) <= set(weights):
        return {name: weights[name] for name in names.values()}
    return {names.get(name, name): value for name, value in weights.items()}


def _of_layers(backend: Backend, topology: Topology, weights: Mapping[str, Array]) -> dict[str, Array]:
    """Return weights by the names of the topology, as far as they have names."""
    named = _named(backend, topology, weights)
    return {name: named[own] for name, own in _names(backend, topology).items() if own in named}


def _names(backend: Backend, topology: Topology) -> dict[str, str]:
    """Return the names of the parameters in the exported file by their names in the topology."""
    assert backend.exporter is not None
    modules = importlib.import_module(backend.exporter.partition(":")[0]).names(topology)
    return {
        f"{layer.name}.{part}": f"{modules[layer.name]}.{part}"
        for layer in topology.layers
        if layer.name in modules
        for part in layer.weights
    }


def _images(topology: Topology, text: str) -> list[list[Array]]:
    """Return batches for export and comparison, an array for each input: of the described size, and a larger one if possible."""
    channels, height, width = topology.input_shape
    sizes = [(height, width)]
    try:
        strides = Geometry.of(topology).strides
        if ONLY not in text:
            sizes.append((height + strides[0], width + 2 * strides[1]))
    except NotLocal:
        pass
    draw = np.random.default_rng(0)
    # the second image is negative: a ReLU that is 0 for one of the images may not be for the other
    batches = []
    for number, size in enumerate(sizes):
        shapes = [(channels, *size), *topology.more_inputs.values()]
        pixels = [draw.uniform(0, 255, (2 + number, *shape)) for shape in shapes]
        batches.append([np.float32(array * _signs(array)) for array in pixels])
    return batches


def _signs(array: Array) -> Array:
    """Return 1 and -1 in turn for the images of a batch."""
    return (-1.0) ** np.arange(len(array)).reshape(-1, *[1] * (array.ndim - 1))


def _metadata(topology: Topology, trained: Trained) -> dict[str, str]:
    mean = (
        {}
        if topology.mean is None or trained.run is not None
        else {"mean": _mean(topology.mean, trained.channel_order)}
    )
    metadata = {
        "source": topology.source,
        "kind": topology.kind,
        "channel_order": trained.channel_order,
        **mean,
        **trained.metadata,
    }
    return {f"multiseg.{key}": value for key, value in metadata.items()}


def _mean(mean: Sequence[float], channel_order: str) -> str:
    """Return a mean of one number per channel, colours as B, G, R, as metadata: (channels, 1, 1) in the order of the input."""
    ordered = mean[::-1] if channel_order == "RGB" and len(mean) == 3 else mean
    return json.dumps([[[float(f"{value:.9g}")]] for value in ordered])


def _check_against(run: Run, topology: Topology, names: Sequence[str], images: Array, outputs: Sequence[Array]) -> None:
    """Raise ModelError unless the run's framework computes the same ``outputs``, its values ``names``, for the images."""
    layout = Layout(
        registry.get(run.backend).data_order, "RGB", None
    )  # their colours are in the network's order already
    # the run's own output, or the layers that it is cut to
    within = tuple(names) != run.topology.outputs
    prediction, _, activations = run.worker().call(
        "predict", features=layout.features(images), labels=None, activations=within
    )
    tolerance = TOLERANCE if run.environment.get("device") == "cpu" else ON_A_GPU
    for name, output in zip(names, outputs, strict=True):
        expected = layout.activation(activations[name] if within else prediction).reshape(output.shape)
        difference = float(np.abs(output - expected).max() / max(np.abs(expected).max(), 1e-30))
        if not difference <= tolerance:
            raise ModelError(
                f"{topology.source}: the ONNX file's output differs from {run.title}'s by {difference:.1e} of its largest "
                f"value, more than {tolerance:g}; the file was not written"
            )
