"""Execute a user's DIGITS TensorFlow file: provide the modules that it imports, and attribute errors to its lines.

The file's `import` statements are resolved here: `tensorflow` is TensorFlow 1, `model` and `utils` are those of DIGITS.
`sys.modules` does not change.
"""

from __future__ import annotations

import builtins
import importlib
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import tensorflow
import tf_slim
from tensorflow.python.framework import ops
from tensorflow.python.ops import array_ops, control_flow_ops, variable_scope
from tf_slim.layers import layers as slim_layers

from multiseg.errors import ModelError, SettingsError
from multiseg.files import read_bytes
from multiseg.worker import helper_modules
from multiseg.worker.choice import Choice, as_words
from multiseg_tensorflow import digits, old_layers

tf = tensorflow.compat.v1

# their places in TensorFlow 1, where tf_slim and users' files expect them
ops.Tensor, ops.IndexedSlices = tensorflow.Tensor, tensorflow.IndexedSlices
array_ops.stack, array_ops.unstack = tf.stack, tf.unstack
control_flow_ops.cond, control_flow_ops.case, control_flow_ops.while_loop = tf.cond, tf.case, tf.while_loop
control_flow_ops.Assert = tf.Assert
variable_scope.variable = tf.Variable


class _Keys(ops.GraphKeys):  # type: ignore[misc]
    """Graph keys for tf_slim, with a copy of the string UPDATE_OPS.

    If the updates collection is the identical string object, tf_slim delegates batch normalisation to a layer that needs
    Keras 2; for any other object, including an equal string, it computes it itself.
    """

    UPDATE_OPS = "".join(tf.GraphKeys.UPDATE_OPS.partition("_"))


def load(chosen: Choice) -> type[digits.Tower]:
    """Execute a user's file and return its class `UserModel`, or the class that was chosen by name.

    Raises ModelError that names file and line.
    """
    path, wanted = chosen.file, chosen.name or "UserModel"
    if chosen.arguments not in (None, "()"):
        raise ModelError(f"{path}: {wanted} takes no arguments: multiseg constructs it with the images")
    modules = _modules()
    functions = {**vars(builtins), "__import__": _importer(modules, path.resolve().parent)}
    namespace: dict[str, Any] = {
        "__builtins__": functions,
        "__package__": helper_modules.PACKAGE,
        "__name__": path.stem,
        "__file__": str(path),
        # names that older DIGITS files use without importing them
        "Tower": digits.Tower,
        "model_property": digits.model_property,
        "digits": digits,
        "tf": modules["tensorflow"],
        "slim": tf_slim,
        "np": np,
        "xrange": range,  # DIGITS ran on Python 2
    }
    try:
        source = read_bytes(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    with blaming(path), helper_modules.helpers(path, functions, chosen.root):
        code = compile(source, str(path), "exec")
        helper_modules.in_folder_if_needed(path, lambda: exec(code, namespace))
    model = namespace.get(wanted)
    if not isinstance(model, type) or not issubclass(model, digits.Tower):
        towers = [name for name, value in namespace.items() if isinstance(value, type) and value is not digits.Tower
                  and issubclass(value, digits.Tower)]  # fmt: skip
        others = f"; specify one of: {as_words(path, towers)}" if towers else ""
        raise ModelError(
            f"{path}: has no class {wanted}(Tower); define one with the properties inference and loss{others}"
        )
    if not hasattr(model, "inference"):
        raise ModelError(f"{path}: class {wanted} has no inference; add it as a method under @model_property")
    return model


@contextmanager
def blaming(path: Path, hint: str = "") -> Iterator[None]:
    """Convert every exception of a user's file to a ModelError that names the file and its line, and ends with ``hint``."""
    try:
        yield
    except (ModelError, SettingsError):
        raise
    except SyntaxError as error:
        raise ModelError(f"{path}, line {error.lineno}: is not Python 3: {error.msg}") from error
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f"{path}, line {lines[-1]}" if lines else f"{path}"
        raise ModelError(
            f"{where}: building the network raised {type(error).__name__}: {first_line(error)}{hint}"
        ) from error


def first_line(error: BaseException) -> str:
    """Return the first informative line of an error, without the preamble and the traceback that TensorFlow adds."""
    lines = str(error).split("Graph execution error:\n")[-1].splitlines()
    return next((line for line in lines if line and not line.startswith(("Detected at node", "Node: "))), "")


def _importer(modules: Mapping[str, ModuleType], folder: Path) -> Callable[..., Any]:
    """Return an `__import__` that returns the modules in ``modules``, and imports all others as Python does.

    A module in ``folder``, that of the user's file, is imported in place of one of DIGITS with its name, `model` or `utils`, if
    names are imported that DIGITS' lacks.
    """

    def load_module(
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        own = (folder / f"{name}.py").is_file() and not all(hasattr(modules.get(name), part) for part in fromlist or ())
        if level == 0 and name in modules and not own:
            return modules[name if fromlist else name.partition(".")[0]]
        if level == 0 and name.startswith("tensorflow.contrib."):
            raise ModuleNotFoundError(_contrib(name.removeprefix("tensorflow.contrib.")))
        return builtins.__import__(name, globals, locals, fromlist or (), level)

    return load_module


def _modules() -> dict[str, ModuleType]:
    """Return the modules that DIGITS files import, by name."""
    # tf_slim contains the layers, initialisers, regularisers and arg_scope of tf.contrib
    slim = {name: part for name, part in vars(tf_slim).items() if not name.startswith("_")}
    nets = _slim_nets()
    place = _module(
        "tensorflow.contrib.slim.python", {"slim": _module("slim", {"nets": nets["tensorflow.contrib.slim.nets"]})}
    )
    slim_and_nets = {**slim, "nets": nets["tensorflow.contrib.slim.nets"], "python": place}
    parts: dict[str, Any] = {"slim": _module("tensorflow.contrib.slim", slim_and_nets), "losses": tf_slim.losses}
    for name in ("layers", "framework"):
        parts[name] = _module(f"tensorflow.contrib.{name}", slim, _raise_missing(f"tf.contrib.{name}"))
    contrib = _module("tensorflow.contrib", parts, _no_contrib)
    # TensorFlow still contains tf.layers, but does not expose it with Keras 3
    layers = _module("tensorflow.layers", {}, _no_layer)
    for name in ("convolutional", "core", "pooling"):
        part = vars(importlib.import_module(f"tensorflow.python.layers.{name}"))
        vars(layers).update({key: value for key, value in part.items() if not key.startswith("_")})
    vars(layers)["batch_normalization"] = old_layers.batch_normalization
    tensorflow_1 = _module("tensorflow", {"contrib": contrib, "layers": layers}, _tensorflow_name)
    return {
        "model": digits,
        "utils": digits,
        "tensorflow": tensorflow_1,
        "tensorflow.layers": layers,
        "tensorflow.contrib": contrib,
        **{f"tensorflow.contrib.{name}": part for name, part in parts.items()},
        **nets,
    }


def _slim_nets() -> dict[str, ModuleType]:
    """Return slim's networks (AlexNet, VGG, Inception, ResNet, ...), under both names that they have in tf.contrib."""
    nets = importlib.import_module("tf_slim.nets")
    parts = {name: part for name, part in vars(nets).items() if isinstance(part, ModuleType)}
    places = ("tensorflow.contrib.slim.nets", "tensorflow.contrib.slim.python.slim.nets")
    modules = {place: nets for place in places}
    return modules | {f"{place}.{name}": part for place in places for name, part in parts.items()}


def _module(name: str, contents: Mapping[str, Any], otherwise: Callable[[str], Any] | None = None) -> ModuleType:
    """Return a module with these contents; ``otherwise`` is its ``__getattr__`` for other names."""
    module = ModuleType(name)
    vars(module).update(contents, **({"__getattr__": otherwise} if otherwise else {}))
    return module


slim_layers.ops = _module("ops", {"GraphKeys": _Keys}, lambda name: getattr(ops, name))


def _no_layer(name: str) -> Any:
    raise AttributeError(
        f"tf.layers.{name} was removed from TensorFlow; use a layer of tf.contrib.slim, which is available"
    )


def _no_contrib(name: str) -> Any:
    raise AttributeError(_contrib(name))


def _contrib(name: str) -> str:
    return f"tf.contrib.{name} was removed from TensorFlow; available in tf.contrib: slim, layers, framework, losses"


def _raise_missing(module: str) -> Callable[[str], Any]:
    def raise_error(name: str) -> Any:
        raise AttributeError(f"{module}.{name} was removed from TensorFlow; use tf.nn or slim instead")

    return raise_error


# names before TensorFlow 1 -> names since TensorFlow 1
RENAMED = {
    "mul": "multiply", "sub": "subtract", "neg": "negative", "pack": "stack", "unpack": "unstack", "select": "where",
    "inv": "reciprocal", "batch_matmul": "matmul", "image_summary": "summary.image", "scalar_summary": "summary.scalar",
    "histogram_summary": "summary.histogram", "merge_all_summaries": "summary.merge_all",
}  # fmt: skip


def _tensorflow_name(name: str) -> Any:
    """Return the attribute ``name`` of TensorFlow 1. Raise AttributeError that names the replacement of an older name."""
    if name in RENAMED:
        raise AttributeError(f"tf.{name} was renamed in TensorFlow 1; use tf.{RENAMED[name]}")
    try:
        return getattr(tf, name)
    except AttributeError as error:
        raise AttributeError(
            f"neither TensorFlow 1 nor TensorFlow {tensorflow.__version__} has tf.{name}; check the name"
        ) from error
