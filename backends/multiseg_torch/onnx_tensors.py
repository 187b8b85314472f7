"""Tensors within an ONNX file: their names, and what onnxruntime computes for them. Runs in the backend's process."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from multiseg.errors import ModelError, SettingsError
from multiseg.files import read_bytes
from multiseg.network import Array
from multiseg.topology.names import unused

LAYERS = "multiseg.layers"  # key of the metadata: JSON, the tensor of each of the network's values


def check_packages() -> None:
    """Raise SettingsError if a package is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            f"onnx: {sys.executable} cannot import ONNX's packages ({error}); install them with: pip install 'multiseg[onnx]'"
        ) from error


def rename(proto: Any, names: Mapping[str, str]) -> None:
    """Give tensors of a model other names; tensors that have one of these names already get a number."""
    graph = proto.graph
    used = {name for node in graph.node for name in (*node.input, *node.output) if name}
    used.update(entry.name for entry in [*graph.input, *graph.output, *graph.initializer])
    wanted, changes = set(names.values()), dict(names)
    for name in sorted((used & wanted) - set(names)):
        changes[name] = unused(name, used | wanted | set(changes.values()))
    _apply(graph, changes)


def _apply(graph: Any, changes: Mapping[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [changes.get(name, name) for name in node.input]
        node.output[:] = [changes.get(name, name) for name in node.output]
        for attribute in node.attribute:
            for part in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                _apply(part, changes)
    for entry in [*graph.input, *graph.output, *graph.initializer, *graph.value_info]:
        entry.name = changes.get(entry.name, entry.name)


def keep_outputs(proto: Any, count: int) -> None:
    """Remove the outputs after the first ``count``, and the nodes and constants that no output depends on then."""
    graph = proto.graph
    typed = list(graph.output)[count:]
    del graph.output[count:]
    needed = {entry.name for entry in graph.output}
    nodes = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(_reads(node))
            nodes.append(node)
    infos = [entry for entry in [*graph.value_info, *typed] if entry.name in needed]
    constants = [entry for entry in graph.initializer if entry.name in needed]
    for kept, field in ((nodes[::-1], graph.node), (infos, graph.value_info), (constants, graph.initializer)):
        copies = [type(entry).FromString(entry.SerializeToString()) for entry in kept]
        del field[:]
        field.extend(copies)


def _reads(node: Any) -> Iterator[str]:
    yield from node.input
    for attribute in node.attribute:
        for part in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
            for inner in part.node:
                yield from _reads(inner)
            yield from (entry.name for entry in part.output)


def names_of(proto: Any) -> set[str]:
    """Return the names of the tensors that the graph of a model computes."""
    return {name for node in proto.graph.node for name in node.output if name}


def run(content: bytes, title: str, batch: Sequence[Array]) -> list[Array]:
    """Return onnxruntime's outputs for a batch, an array for each input. Raises ModelError naming ``title``."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        names = [entry.name for entry in session.get_inputs()]
        results: list[Array] = session.run(None, dict(zip(names, batch)))
    except Exception as error:  # onnxruntime's exceptions have no common base class
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{title}: onnxruntime cannot run the exported network: {first}") from error
    return results


def computed(content: bytes, title: str, batch: Sequence[Array], names: Sequence[str]) -> list[Array]:
    """Return what onnxruntime computes for tensors of a file, as outputs of a copy of it; an empty array for an unknown name."""
    import onnx

    proto = onnx.load_from_string(content)
    known = names_of(proto)
    present = [name for name in names if name in known]
    if not present:
        return [np.zeros(0, np.float32) for _ in names]
    del proto.graph.output[:]
    for name in present:
        proto.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    arrays = dict(zip(present, run(proto.SerializeToString(), title, batch)))
    return [arrays.get(name, np.zeros(0, np.float32)) for name in names]


def described(path: str) -> dict[str, Any]:
    """Return ``metadata`` of an ONNX file, its ``inputs`` and ``outputs`` (name, and type as of numpy), its ``tensors``.

    Raises ModelError if the file is no ONNX file.
    """
    import onnx

    proto = _read(path)

    def types(entries: Any) -> list[list[str]]:
        known = onnx.helper.tensor_dtype_to_np_dtype
        return [[entry.name, str(known(entry.type.tensor_type.elem_type))] for entry in entries]

    constants = {entry.name for entry in proto.graph.initializer}
    return {
        "metadata": {entry.key: entry.value for entry in proto.metadata_props},
        "inputs": types(entry for entry in proto.graph.input if entry.name not in constants),
        "outputs": types(proto.graph.output),
        "tensors": sorted(names_of(proto)),
    }


def compute(path: str, batch: Sequence[Array], names: Sequence[str] | None = None) -> list[Array]:
    """Return onnxruntime's outputs of an ONNX file for a batch, or instead the tensors ``names``. Raises ModelError."""
    content = _read(path).SerializeToString()
    return run(content, path, batch) if names is None else computed(content, path, batch, names)


def _read(path: str) -> Any:
    """Return the model in a file, with nothing that it may refer to in other files."""
    check_packages()
    import onnx

    try:
        proto = onnx.load_from_string(read_bytes(path))
        onnx.checker.check_model(proto)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    except Exception as error:  # protobuf's, the checker's
        raise ModelError(f"{path}: is not a complete ONNX file") from error
    return proto
