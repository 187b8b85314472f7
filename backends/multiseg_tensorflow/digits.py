"""The world that a DIGITS TensorFlow file expects: TensorFlow 1, `Tower`, `model_property` and DIGITS' helpers.

The file's own `import` statements are answered from here, so nothing of this ever enters `sys.modules`.
"""

from __future__ import annotations

import builtins
import functools
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

from multiseg.errors import ModelError

tf = tensorflow.compat.v1

STAGE_TRAIN, STAGE_VAL, STAGE_INF = "train", "val", "inf"


class Tower:
    """Base of a file's `UserModel`. ``input_shape`` is [H, W, C]; ``x`` is NHWC, and so is ``y``, None in inference."""

    def __init__(
        self, x: Any, y: Any, input_shape: list[int], nclasses: int | None, is_training: bool, is_inference: bool
    ) -> None:
        self.x = x
        self.y = y
        self.input_shape = input_shape
        self.nclasses = nclasses
        self.is_training = is_training
        self.is_inference = is_inference
        self.summaries: list[Any] = []
        self.train = None

    def gradientUpdate(self, grad: Any) -> Any:  # DIGITS' name, which files override
        """The (gradient, variable) pairs to apply; files override it to change them."""
        return grad


def model_property(function: Callable[[Any], Any]) -> Any:
    """A property that builds its part of the graph once."""
    return functools.cached_property(function)


class GraphKeys:
    """DIGITS' names of scopes and collections."""

    TEMPLATE = "model"
    QUEUE_RUNNERS = "queue_runner"
    MODEL = "model"
    LOSS = "loss"
    LOSSES = "losses"
    LOADER = "data"


def mse_loss(lhs: Any, rhs: Any) -> Any:
    """Mean squared difference over all elements."""
    return tf.reduce_mean(tf.square(lhs - rhs))


def classification_loss(pred: Any, y: Any) -> Any:
    """Mean cross entropy of logits (N, classes) against class numbers (N,)."""
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(logits=pred, labels=y))


def constrastive_loss(lhs: Any, rhs: Any, y: Any, margin: float = 1.0) -> Any:
    """Caffe's contrastive loss without its factor of one half; the name is DIGITS' spelling."""
    squared = tf.reduce_sum(tf.square(lhs - rhs), 1)
    apart = tf.square(tf.maximum(margin - tf.sqrt(squared + 1e-6), 0))
    return tf.reduce_mean(y * squared + (1 - y) * apart)


def classification_accuracy(pred: Any, y: Any) -> Any:
    """Fraction of rows whose highest value is at the label."""
    return tf.reduce_mean(tf.cast(tf.equal(tf.cast(y, tf.int64), tf.argmax(pred, 1)), tf.float32))


def classification_accuracy_top_n(pred: Any, y: Any, top_n: int) -> Any:
    """Fraction of rows whose label is among the ``top_n`` highest values."""
    return tf.reduce_mean(tf.cast(tf.nn.in_top_k(pred, y, top_n), tf.float32))


def nhwc_to_nchw(x: Any) -> Any:
    """(N, H, W, C) to (N, C, H, W)."""
    return tf.transpose(x, [0, 3, 1, 2])


def nchw_to_nhwc(x: Any) -> Any:
    """(N, C, H, W) to (N, H, W, C)."""
    return tf.transpose(x, [0, 2, 3, 1])


def hwc_to_chw(x: Any) -> Any:
    """(H, W, C) to (C, H, W)."""
    return tf.transpose(x, [2, 0, 1])


def chw_to_hwc(x: Any) -> Any:
    """(C, H, W) to (H, W, C)."""
    return tf.transpose(x, [1, 2, 0])


def bgr_to_rgb(x: Any) -> Any:
    """Reverse the channels of (..., C)."""
    return tf.reverse(x, [-1])


rgb_to_bgr = bgr_to_rgb


def get_available_gpus() -> list[str]:
    """TensorFlow's names of the GPUs it sees."""
    return [device.name.replace("/physical_device:", "/").lower() for device in tensorflow.config.list_physical_devices("GPU")]


def load(path: Path) -> type[Tower]:
    """Execute a user's file and return its class `UserModel`. Raises ModelError naming file and line."""
    modules = _modules()
    given = {
        "__builtins__": {**vars(builtins), "__import__": _importer(modules)},
        "__name__": path.stem,
        "__file__": str(path),
        # what DIGITS' older files use without importing it
        "Tower": Tower,
        "model_property": model_property,
        "digits": modules["utils"],
        "tf": modules["tensorflow"],
        "slim": tf_slim,
        "np": np,
    }
    with blaming(path):
        exec(compile(path.read_bytes(), str(path), "exec"), given)
    model = given.get("UserModel")
    if not isinstance(model, type) or not issubclass(model, Tower):
        raise ModelError(f"{path}: has no class UserModel(Tower); define one with the properties inference and loss")
    for name in ("inference", "loss"):
        if not hasattr(model, name):
            raise ModelError(f"{path}: class UserModel has no {name}; add it as a method under @model_property")
    return model


@contextmanager
def blaming(path: Path) -> Iterator[None]:
    """Turns whatever the user's file raises into a ModelError that names the file and its line."""
    try:
        yield
    except ModelError:
        raise
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
    except SyntaxError as error:
        raise ModelError(f"{path}, line {error.lineno}: is not Python 3: {error.msg}") from error
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f"{path}, line {lines[-1]}" if lines else f"{path}"
        said = str(error).partition("\n")[0]
        raise ModelError(f"{where}: building the network raised {type(error).__name__}: {said}") from error


def _importer(modules: Mapping[str, ModuleType]) -> Callable[..., Any]:
    """An `__import__` that answers the names in ``modules`` from there, and leaves all others to Python."""

    def load_module(
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        if level == 0 and name in modules:
            return modules[name if fromlist else name.partition(".")[0]]
        return builtins.__import__(name, globals, locals, fromlist or (), level)

    return load_module


def _modules() -> dict[str, ModuleType]:
    """What DIGITS' files import, by name."""
    helpers = ModuleType("utils")
    helpers.__dict__.update({name: value for name, value in globals().items() if name in _HELPERS})
    contrib = ModuleType("tensorflow.contrib")
    contrib.__dict__.update(
        # tf_slim holds contrib's layers, initialisers, regularisers and arg_scope in one
        {"slim": tf_slim, "layers": tf_slim, "framework": tf_slim, "losses": tf_slim.losses, "__getattr__": _no_contrib}
    )
    # TensorFlow still carries TensorFlow 1's layers, but no longer shows them beside Keras 3
    layers = ModuleType("tensorflow.layers")
    for name in ("convolutional", "core", "pooling"):
        part = importlib.import_module(f"tensorflow.python.layers.{name}")
        layers.__dict__.update({key: value for key, value in vars(part).items() if not key.startswith("_")})
    tensorflow_1 = ModuleType("tensorflow")
    tensorflow_1.__dict__.update({"contrib": contrib, "layers": layers, "__getattr__": lambda name: getattr(tf, name)})
    model = ModuleType("model")
    model.__dict__.update({"Tower": Tower, "model_property": model_property, "digits": helpers, "tf": tensorflow_1})
    parts = {f"tensorflow.contrib.{name}": vars(contrib)[name] for name in ("slim", "layers", "framework", "losses")}
    return {
        "model": model,
        "utils": helpers,
        "tensorflow": tensorflow_1,
        "tensorflow.layers": layers,
        "tensorflow.contrib": contrib,
        **parts,
    }


def _no_contrib(name: str) -> Any:
    raise AttributeError(f"tf.contrib.{name} is gone from TensorFlow; here are tf.contrib.slim, layers, framework and losses")


_HELPERS = frozenset({
    "STAGE_TRAIN", "STAGE_VAL", "STAGE_INF", "GraphKeys", "model_property", "mse_loss", "classification_loss",
    "constrastive_loss", "classification_accuracy", "classification_accuracy_top_n", "nhwc_to_nchw", "nchw_to_nhwc",
    "hwc_to_chw", "chw_to_hwc", "bgr_to_rgb", "rgb_to_bgr", "get_available_gpus", "tf", "functools",
})  # fmt: skip
