"""Read files that contain a TensorFlow graph: GraphDef, MetaGraph with its checkpoint, SavedModel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import tensorflow
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2, trackable_object_graph_pb2
from tensorflow.python.saved_model.loader_impl import SavedModelLoader

from multiseg.backend import trusts_graphs
from multiseg.errors import ModelError
from multiseg.files import read_bytes, read_json
from multiseg.schema import TEXT
from multiseg_tensorflow import allowed, kinds
from multiseg_tensorflow.tensors import VARIABLES
from multiseg_tensorflow.user_file import first_line

tf = tensorflow.compat.v1

# what TensorFlow raises for damaged graphs and checkpoints
LOAD_ERRORS = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, OSError, RuntimeError, MemoryError, DecodeError,
    tf.errors.OpError,
)  # fmt: skip
SERVE, SIGNATURE = "serve", "serving_default"


@dataclass
class Stored:
    """A graph read from a file.

    ``values`` are the values of its variables, by the name of the variable's operation. ``input`` and ``output`` are the
    names of tensors if the file, or the JSON file next to it, specifies them; ``specified`` are the values of placeholders in
    the JSON file. ``inputs`` and ``outputs`` are the names of tensors by their keys in a signature with several of them.
    """

    graph: Any
    values: Mapping[str, Any] = field(default_factory=dict)
    input: str | None = None
    output: str | None = None
    specified: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)


def read(path: Path, head: bytes, seed: int) -> Stored:
    """Return the graph in a file whose first bytes are ``head``; ``seed`` initialises variables without a stored value.

    Raises ModelError that names the file.
    """
    if kinds.is_saved_model(head, path):
        stored = _saved_model(path)
    elif kinds.is_meta_graph(head, path):
        stored = _meta_graph(path, seed)
    else:
        stored = Stored(_import_graph(path, parse(path, tf.GraphDef())))
    names = _read_names(path)
    stored.specified = names.pop("values", {})
    for key, name in names.items():
        setattr(stored, key, name)
    return stored


def names_file(path: Path) -> Path:
    """Return the path of the JSON file that names a graph's tensors: "input", "output", "values"."""
    return path.with_name(path.name + ".json")


def parse(path: Path, message: Any) -> Any:
    """Parse a file, binary or text, into ``message`` and return it. Raises ModelError if the file is damaged."""
    try:
        data = read_bytes(path)
        if path.suffix in (".pbtxt", ".txt") or data.lstrip()[:2] in (b"no", b"me", b"gr", b"#"):
            return text_format.Parse(data.decode(), message)
        message.ParseFromString(data)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    except (DecodeError, UnicodeDecodeError, text_format.ParseError) as error:
        raise ModelError(
            f"{path}: is damaged or truncated, it is not a valid {type(message).__name__} ({first_line(error)}); write or "
            "copy it again"
        ) from error
    return message


def _import_graph(path: Path, definition: Any) -> Any:
    """Return the graph of a definition. Raise ModelError if TensorFlow cannot import it."""
    graph = tf.Graph()
    with graph.as_default():
        try:
            tf.import_graph_def(definition, name="")
        except LOAD_ERRORS as error:
            _raise_load_error(path, error)
    return graph


def _raise_load_error(path: Path, error: Exception) -> NoReturn:
    """Raise ModelError for an error of TensorFlow while it loads a graph."""
    reason = first_line(error)
    if "Op type not registered" in str(error):
        operation = str(error).partition(chr(39))[2].partition(chr(39))[0]
        reason = (
            f"it needs the operation {operation!r}, which TensorFlow {tensorflow.__version__} does not have; export the "
            "graph without it"
        )
    raise ModelError(f"{path}: TensorFlow cannot load this graph: {reason}") from error


def _meta_graph(path: Path, seed: int) -> Stored:
    """Read a MetaGraph and the checkpoint with its name; variables without a value there are initialised with ``seed``."""
    meta = parse(path, tf.MetaGraphDef())
    for index, node in enumerate(meta.graph_def.node):
        if "seed" in node.attr and not node.attr["seed"].i and not node.attr["seed2"].i:
            node.attr["seed"].i, node.attr["seed2"].i = seed, index
    for node in meta.graph_def.node:
        node.device = ""
    graph = tf.Graph()
    with graph.as_default():
        try:
            tf.train.import_meta_graph(meta)
        except LOAD_ERRORS as error:
            _raise_load_error(path, error)
        variables = tf.global_variables()
        prefix = path.with_suffix("")
        values: dict[str, Any] = {}
        if kinds.checkpoint_prefix(prefix) is not None:
            arrays = checkpoint(prefix)
            variables = [variable for variable in variables if variable.op.name not in arrays]
            names = {op.name for op in graph.get_operations() if op.type in VARIABLES}
            values = {name: value for name, value in arrays.items() if name in names}
        initialiser = tf.variables_initializer(variables)
        read = {variable.op.name: graph.as_graph_element(variable) for variable in variables}
        allowed.check(path, graph, [initialiser, *(value.op for value in read.values())])
        with tf.Session() as session:
            session.run(initialiser)
            values.update(session.run(read))
    return Stored(graph, values, **_signature(meta.signature_def))


def checkpoint(prefix: Path) -> dict[str, Any]:
    """Return all arrays of a checkpoint, by their names in it. Raises ModelError if it is damaged or incomplete."""
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        types = reader.get_variable_to_dtype_map()
        return {name: reader.get_tensor(name) for name, dtype in types.items() if dtype != tf.string}
    except LOAD_ERRORS as error:
        missing = not list(prefix.parent.glob(f"{prefix.name}.data-*"))
        reason = f"its data file {prefix.name}.data-00000-of-00001 is missing" if missing else first_line(error)
        raise ModelError(
            f"{prefix}: is not a complete checkpoint: {reason}; copy all files whose names begin with {prefix.name}"
        ) from error


def _saved_model(folder: Path) -> Stored:
    """Read the graph to serve, or the first one, of a SavedModel."""
    if not folder.is_dir():
        raise ModelError(f"{folder}: is a part of a SavedModel; specify its folder, {folder.parent}")
    file = next(folder / name for name in kinds.SAVED_MODEL if (folder / name).is_file())
    models = list(parse(file, saved_model_pb2.SavedModel()).meta_graphs)
    if not models:
        raise ModelError(f"{folder}: this SavedModel contains no graph; export it again")
    model = next((meta for meta in models if SERVE in meta.meta_info_def.tags), models[0])
    graph = tf.Graph()
    values: dict[str, Any] = {}
    with graph.as_default(), tf.Session() as session:
        has_variables = any(node.op in VARIABLES for node in model.graph_def.node)
        if has_variables and not (folder / "variables" / "variables.index").is_file():
            raise ModelError(f"{folder}: this SavedModel has no variables/variables.index; copy the whole folder")
        try:
            _restore(session, folder, list(model.meta_info_def.tags))
        except (tf.errors.DataLossError, tf.errors.NotFoundError, tf.errors.OutOfRangeError) as error:
            raise ModelError(
                f"{folder}: its variables cannot be read: {first_line(error)}; copy the whole folder again"
            ) from error
        except LOAD_ERRORS as error:
            _raise_load_error(folder, error)
        for op in [op for op in graph.get_operations() if op.type in VARIABLES]:
            value = _value(op)
            allowed.check(folder, graph, [value.op])
            try:
                values[op.name] = session.run(value)
            except tf.errors.OpError:
                continue  # a temporary variable of loading
        unread = {op.name for op in graph.get_operations() if op.type in VARIABLES} - values.keys()
    if unread:
        values.update(_object_values(folder / "variables" / "variables", unread))
    return Stored(graph, values, **_signature(model.signature_def))


def _restore(session: Any, folder: Path, tags: list[str]) -> None:
    """Load the graph of a SavedModel and restore its variables. Its initialisation is run only if the user trusts graphs."""
    if trusts_graphs():
        tf.saved_model.loader.load(session, tags, str(folder))
        return
    loader = SavedModelLoader(str(folder))
    saver, _ = loader.load_graph(session.graph, tags)
    if saver is not None:
        restoring = session.graph.get_operation_by_name(saver.saver_def.restore_op_name)
        file = session.graph.get_tensor_by_name(saver.saver_def.filename_tensor_name)
        allowed.check(folder, session.graph, [restoring], [file.op], restores=True)
    loader.restore_variables(session, saver)


def _object_values(prefix: Path, names: set[str]) -> dict[str, Any]:
    """Return the values of variables that are in a SavedModel's checkpoint but that its graph does not restore.

    tf.saved_model.save writes Keras 3 models so. The values are found by the names in the checkpoint's object graph.
    """
    reader = tf.train.load_checkpoint(str(prefix))
    objects = trackable_object_graph_pb2.TrackableObjectGraph()
    objects.ParseFromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
    entries = [entry for node in objects.nodes for entry in node.attributes if entry.full_name in names]
    counts = Counter(entry.full_name for entry in entries)
    return {
        entry.full_name: reader.get_tensor(entry.checkpoint_key) for entry in entries if counts[entry.full_name] == 1
    }


def _value(op: Any) -> Any:
    """Return the tensor of a variable's value."""
    if op.type == "VarHandleOp":
        return tf.raw_ops.ReadVariableOp(resource=op.outputs[0], dtype=op.get_attr("dtype"))
    return op.outputs[0]


def _signature(signatures: Any) -> dict[str, Any]:
    """Return the input and the output of the serving signature, or the ``inputs`` or ``outputs`` if there are several."""
    usable = {name: signature for name, signature in signatures.items() if signature.inputs and signature.outputs}
    chosen = usable.get(SIGNATURE) or (next(iter(usable.values())) if len(usable) == 1 else None)
    if chosen is None:
        return {}
    sides = {"input": chosen.inputs, "output": chosen.outputs}
    ends: dict[str, Any] = {}
    for side, infos in sides.items():
        named = {key: infos[key].name for key in sorted(infos)}
        ends |= {side: next(iter(named.values()))} if len(named) == 1 else {f"{side}s": named}
    return ends


def _read_names(path: Path) -> dict[str, Any]:
    """Return the contents of the JSON file that names a graph's tensors. Raise ModelError if it is invalid."""
    file = names_file(path)
    if not file.is_file():
        return {}
    example = '{"input": "TENSOR", "output": "TENSOR", "values": {"PLACEHOLDER": VALUE}}, each of them optional'
    try:
        names = read_json(file)
    except (ValueError, OSError) as error:
        raise ModelError(f"{file}: is not valid JSON: {error}; write {example}") from error
    for key, name in names.items() if isinstance(names, dict) else [("its content", None)]:
        valid = TEXT.valid(name) if key in ("input", "output") else key == "values" and isinstance(name, dict)
        if not valid:
            raise ModelError(f"{file}: {key} is not valid; write {example}")
    for name, value in names.get("values", {}).items():
        if not isinstance(value, (bool, int, float)):
            raise ModelError(f"{file}: the value {value!r} of {name} is not a number, true or false")
    if "values" in names:
        names["values"] = {name.partition(":")[0]: value for name, value in names["values"].items()}
    return dict(names)
