"""Reading files that hold a TensorFlow graph: GraphDef, MetaGraph with its checkpoint, SavedModel."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import tensorflow
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2, trackable_object_graph_pb2

from multiseg.errors import ModelError
from multiseg_tensorflow import kinds
from multiseg_tensorflow.tensors import VARIABLES
from multiseg_tensorflow.user_file import first_line

tf = tensorflow.compat.v1

SERVE, SIGNATURE = "serve", "serving_default"


@dataclass
class Stored:
    """A graph from a file, and what the file says of it.

    ``values`` are those of its variables, by their operation's name. ``input`` and ``output`` name tensors, where the file
    or the one beside it says so.
    """

    graph: Any
    values: Mapping[str, Any] = field(default_factory=dict)
    input: str | None = None
    output: str | None = None


def read(path: Path, head: bytes, seed: int) -> Stored:
    """The graph in a file that begins with ``head``; ``seed`` is for variables that only their initialiser gives a value.

    Raises ModelError naming the file.
    """
    if kinds.is_saved_model(head, path):
        stored = _saved_model(path)
    elif kinds.is_meta_graph(head, path):
        stored = _meta_graph(path, seed)
    else:
        stored = Stored(_imported(path, parse(path, tf.GraphDef())))
    for key, name in _beside(path).items():
        setattr(stored, key, name)
    return stored


def names_file(path: Path) -> Path:
    """The JSON file beside a graph that names its tensors: {"input": "...", "output": "..."}, both optional."""
    return path.with_name(path.name + ".json")


def parse(path: Path, message: Any) -> Any:
    """The message in a file, binary or text. Raises ModelError for one that is damaged."""
    try:
        data = path.read_bytes()
        if path.suffix in (".pbtxt", ".txt") or data.lstrip()[:2] in (b"no", b"me", b"gr", b"#"):
            return text_format.Parse(data.decode(), message)
        message.ParseFromString(data)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    except (DecodeError, UnicodeDecodeError, text_format.ParseError) as error:
        raise ModelError(
            f"{path}: is damaged or cut short, as a {type(message).__name__} ({first_line(error)}); write or copy it again"
        ) from error
    return message


def _imported(path: Path, definition: Any) -> Any:
    graph = tf.Graph()
    with graph.as_default():
        try:
            tf.import_graph_def(definition, name="")
        except (ValueError, TypeError, tf.errors.OpError) as error:
            _cannot(path, error)
    return graph


def _cannot(path: Path, error: Exception) -> NoReturn:
    said = first_line(error)
    mend = ""
    if "Op type not registered" in str(error):
        said = f"it needs the operation {str(error).partition(chr(39))[2].partition(chr(39))[0]!r}"
        mend = f", which TensorFlow {tensorflow.__version__} does not have; export the graph without it"
    raise ModelError(f"{path}: TensorFlow cannot load this graph: {said}{mend}") from error


def _meta_graph(path: Path, seed: int) -> Stored:
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
        except (ValueError, TypeError, KeyError, tf.errors.OpError) as error:
            _cannot(path, error)
        variables = tf.global_variables()
        prefix = path.with_suffix("")
        values: dict[str, Any] = {}
        if kinds.checkpoint_prefix(prefix) is not None:
            held = checkpoint(prefix)
            variables = [variable for variable in variables if variable.op.name not in held]
            names = {op.name for op in graph.get_operations() if op.type in VARIABLES}
            values = {name: value for name, value in held.items() if name in names}
        with tf.Session() as session:
            session.run(tf.variables_initializer(variables))
            values.update(session.run({variable.op.name: variable for variable in variables}))
    return Stored(graph, values, **_signature(path, meta.signature_def))


def checkpoint(prefix: Path) -> dict[str, Any]:
    """All arrays of a checkpoint, by its own names. Raises ModelError where it is damaged or incomplete."""
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        types = reader.get_variable_to_dtype_map()
        return {name: reader.get_tensor(name) for name, dtype in types.items() if dtype != tf.string}
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        missing = not list(prefix.parent.glob(f"{prefix.name}.data-*"))
        what = f"its data file {prefix.name}.data-00000-of-00001 is missing" if missing else first_line(error)
        raise ModelError(
            f"{prefix}: is no whole checkpoint: {what}; copy all the files that begin with this name"
        ) from error


def _saved_model(folder: Path) -> Stored:
    if not folder.is_dir():
        raise ModelError(f"{folder}: is a part of a SavedModel; name its folder, {folder.parent}")
    file = next(folder / name for name in kinds.SAVED_MODEL if (folder / name).is_file())
    models = list(parse(file, saved_model_pb2.SavedModel()).meta_graphs)
    if not models:
        raise ModelError(f"{folder}: this SavedModel holds no graph; export it again")
    model = next((each for each in models if SERVE in each.meta_info_def.tags), models[0])
    graph = tf.Graph()
    values: dict[str, Any] = {}
    with graph.as_default(), tf.Session() as session:
        needs = any(node.op in VARIABLES for node in model.graph_def.node)
        if needs and not (folder / "variables" / "variables.index").is_file():
            raise ModelError(f"{folder}: this SavedModel has no variables/variables.index; copy the whole folder")
        try:
            tf.saved_model.loader.load(session, list(model.meta_info_def.tags), str(folder))
        except (tf.errors.DataLossError, tf.errors.NotFoundError, tf.errors.OutOfRangeError) as error:
            raise ModelError(
                f"{folder}: its variables cannot be read: {first_line(error)}; copy the whole folder again"
            ) from error
        except (ValueError, TypeError, KeyError, OSError, RuntimeError, tf.errors.OpError) as error:
            _cannot(folder, error)
        for op in [op for op in graph.get_operations() if op.type in VARIABLES]:
            try:
                values[op.name] = session.run(_value(op))
            except tf.errors.OpError:
                continue  # one that loading uses for a while only
        unread = {op.name for op in graph.get_operations() if op.type in VARIABLES} - values.keys()
    if unread:
        values.update(_of_objects(folder / "variables" / "variables", unread))
    return Stored(graph, values, **_signature(folder, model.signature_def))


def _of_objects(prefix: Path, names: set[str]) -> dict[str, Any]:
    """Values, by its objects' names, of variables that a SavedModel's graph does not restore itself, but its checkpoint holds:
    tf.saved_model.save writes a Keras 3 model so."""
    reader = tf.train.load_checkpoint(str(prefix))
    objects = trackable_object_graph_pb2.TrackableObjectGraph()
    objects.ParseFromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
    held = [each for node in objects.nodes for each in node.attributes if each.full_name in names]
    counts = Counter(each.full_name for each in held)
    return {each.full_name: reader.get_tensor(each.checkpoint_key) for each in held if counts[each.full_name] == 1}


def _value(op: Any) -> Any:
    if op.type == "VarHandleOp":
        return tf.raw_ops.ReadVariableOp(resource=op.outputs[0], dtype=op.get_attr("dtype"))
    return op.outputs[0]


def _signature(path: Path, signatures: Any) -> dict[str, str]:
    """Input and output of the signature to serve, where each is one; several are told apart by names beside the file."""
    known = {name: each for name, each in signatures.items() if each.inputs and each.outputs}
    chosen = known.get(SIGNATURE) or (next(iter(known.values())) if len(known) == 1 else None)
    if chosen is None:
        return {}
    sides = {"input": list(chosen.inputs.values()), "output": list(chosen.outputs.values())}
    return {key: found[0].name for key, found in sides.items() if len(found) == 1}


def _beside(path: Path) -> dict[str, str]:
    file = names_file(path)
    if not file.is_file():
        return {}
    try:
        names = json.loads(file.read_text())
    except (ValueError, OSError) as error:
        raise ModelError(f"{file}: is no JSON: {error}") from error
    for key, name in names.items() if isinstance(names, dict) else [("it", None)]:
        if key not in ("input", "output") or not isinstance(name, str):
            raise ModelError(f'{file}: {key} is not understood; write {{"input": "TENSOR", "output": "TENSOR"}}')
    return dict(names)
