"""The TensorFlow implementation of multiseg.network.Network: sessions, weights and checkpoints."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow
from tensorflow.core.protobuf.rewriter_config_pb2 import RewriterConfig

from multiseg import network
from multiseg.errors import ModelError, SettingsError, setting
from multiseg.network import CLASSES, Array, LabelKind, LossTerms, NetworkSpec
from multiseg_tensorflow import (
    averages,
    backend,
    class_losses,
    dropout,
    files,
    losses,
    probabilities,
    single_values,
    user_file,
)
from multiseg_tensorflow.graph import Shape, UserGraph, build, extended, layer_tensors, read_layers
from multiseg_tensorflow.lowering import avoided, cross_entropy
from multiseg_tensorflow.solver import Solver

tf = tensorflow.compat.v1
tf.logging.set_verbosity(tf.logging.ERROR)
warnings.filterwarnings("ignore", module=r"tensorflow\.python\.keras")  # its internal deprecation warnings
tf.disable_v2_behavior()  # users' files are TensorFlow 1 code, and this process runs nothing else
tf.enable_resource_variables()  # so that reads and updates of a variable within a step are ordered
tensorflow.config.experimental.enable_tensor_float_32_execution(
    False
)  # on GPUs: its mantissa has 10 bits instead of 23

CHECKPOINT = "network.ckpt"
MAX_PREDICTORS = 4  # in memory: each has a copy of the weights


def probe() -> dict[str, Any]:
    """Return the versions, and the device that ``auto`` selects."""
    return {"version": tensorflow.__version__, "numpy": np.__version__, "device": _device("auto")}


class Network(network.Network):
    """A network whose weights are in one graph, for training or inference at the dataset's image size.

    Graphs for validation and for other image sizes are built on first use, and receive copies of the weights.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        self._requested = spec
        self._path = Path(spec.model)
        self._device = _device(spec.device)
        self._file = files.load(self._path, spec.seed)
        self._path = self._file.path
        self._spec = spec = replace(spec, model=str(self._path))
        self._changes = 0  # how often the weights changed
        self._predictors: dict[tuple[Shape, Shape | None], _Predictor] = {}
        self._training_layers: dict[str, Any] | None = None  # see training_values
        shape, label_shape = (spec.input_shape[1:] + spec.input_shape[:1], spec.label_shape[1:] + spec.label_shape[:1])
        self._layers = read_layers(self._file, shape)
        self._labels = self._label_kind()
        self._main = self._build(shape, label_shape if spec.solver else None, training=spec.solver is not None)
        if self._main.classes is not None:
            spec.check_class_weights(self._main.classes)
        self._begin(None)
        if self._solver is None:
            self._predictors[shape, None] = _Predictor(self._main, self._session)

    def _begin(self, earlier: Solver | None) -> None:
        """Add the solver to the graph, with the gradients of an ``earlier`` one, and start a session with initial weights."""
        spec = self._spec
        with extended(self._main.graph), user_file.blaming(self._path):
            solver = Solver(self._main, spec, earlier) if spec.solver else None
            self._variables = tf.global_variables()  # including those of the solver
            initialise = tf.variables_initializer(self._variables + (solver.accumulators if solver else []))
        self._solver, self._saver = solver, None
        self._session = self._open(self._main)
        self._session.run(initialise)
        _assign(self._session, self._main.variables, self._stored_weights())
        self._train = solver.runner(self._session, spec.batch_size or backend.batch_size) if solver else None

    def successor(self, spec: NetworkSpec) -> Network | None:
        solver = self._solver
        # if it has no variables, those of the next solver have their names in checkpoints as without it
        if spec.solver is None or solver is None or solver.slots.variables or solver.accumulators:
            return None
        if replace(spec, solver=self._requested.solver) != self._requested:
            return None
        if self._file.identity is None or not self._file.identity.is_current():
            return None
        network = copy.copy(self)
        network._requested, network._spec = spec, replace(self._spec, solver=spec.solver)
        network._begin(solver)
        self._predictors = {}
        for predictor in network._predictors.values():
            predictor.changes = -1  # its weights are those of another session
        self.close()
        return network

    def describe(self) -> dict[str, Any]:
        spec = self._spec
        return {
            "batch_size": spec.batch_size or backend.batch_size,
            "val_batch_size": spec.val_batch_size or backend.val_batch_size,
            **({} if self._file.loss is None else {"loss": self._file.loss}),
            **({"input_type": self._file.input_type} if self._is_integer else {}),
            "labels": self._labels,
            "single_values": single_values.names(self._main.graph) if self._spec.solver else [],
            **self._of_probabilities(),
            "classes": self._main.classes if self._labels == CLASSES else None,
            "ignored": self._ignored(),
            "device": self._device,
            "parameters": {name: list(weight.shape) for name, weight in self._main.weights.items()},
            "lowered": self._main.lowered,
            "trained": self._solver.trained if self._solver else {},
            "averages": averages.rules(self._solver.update_ops(), self._main.variables) if self._solver else {},
        }

    def _of_probabilities(self) -> dict[str, Any]:
        """Return the items of the description about a loss whose labels are probabilities."""
        if self._spec.loss is None:
            return probabilities.of_graph(self._main.graph, self._main.output)
        return losses.of_probabilities(self._spec)

    def _ignored(self) -> list[int]:
        """Return the labels that the loss ignores."""
        if self._spec.loss in class_losses.LOSSES:
            return [] if self._spec.ignore_index is None else [self._spec.ignore_index]
        return self._main.ignored if self._labels == CLASSES else []

    def train_step(self, features: Array, labels: Array, rate: float, seed: int = 0) -> float:
        if self._train is None:
            raise SettingsError(f"{self._path}: was loaded for prediction only; specify a solver to train it")
        self._check_pixels(features)
        self._changes += 1
        with self._short_errors():
            return self._train(features, labels, rate, seed)

    def training_values(
        self, features: Array, labels: Array, seed: int
    ) -> tuple[dict[str, Array], dict[str, Array]] | None:
        spec, user = self._spec, self._main
        layers = read_layers(self._file, spec.input_shape[1:] + spec.input_shape[:1], dropouts=True)
        named = dropout.named(layers.nodes, user.dropouts)
        if named is None:
            return None
        if self._training_layers is None:
            with extended(user.graph):
                results = {name: each.result.outputs[0] for name, each in named.items()}
                self._training_layers = layer_tensors(user.graph, layers.tensors | results)
        parts: list[tuple[dict[str, Array], dict[str, Array]]] = []
        size = spec.batch_size or backend.batch_size
        for number, start in enumerate(range(0, len(features), size)):
            batch = slice(start, start + size)
            feeds = {user.x: features[batch], user.y: labels[batch], user.seed: (seed + number) % 2**31}
            count = len(features[batch])
            drawn = {
                name: self._session.run(each.result.outputs[0], feeds | each.ones(count))
                for name, each in named.items()
            }
            parts.append((drawn, self._session.run(self._training_layers, feeds)))
        return network.joined([drawn for drawn, _ in parts]), network.joined([values for _, values in parts])

    def predict(
        self, features: Array, labels: Array | None, activations: bool = False
    ) -> tuple[Array, float | None, dict[str, Array]]:
        self._check_pixels(features)
        predictor = self._predictor(features, labels)
        arrays = [features] if labels is None else [features, labels]
        layer_outputs = predictor.activations(arrays) if activations else {}
        if labels is None:
            return predictor.output(features), None, layer_outputs
        with self._short_errors():
            output, loss = predictor.run(features, labels)
        return output, float(loss), layer_outputs

    def evaluate(self, features: Array, labels: Array) -> tuple[Array, LossTerms]:
        with self._short_errors():
            output, terms = self._predictor(features, labels).evaluate(features, labels)
        return output, [(float(total), float(count)) for total, count in terms]

    @contextmanager
    def _short_errors(self) -> Iterator[None]:
        """Convert TensorFlow's error about an invalid value, e.g. of a label, to a ModelError of one line without the values."""
        try:
            yield
        except tf.errors.InvalidArgumentError as error:
            value = re.search(r"Received a label value of .*?(?= +Label values|$)", str(error), re.MULTILINE)
            words = cross_entropy.wrong_label(str(error)) or (value[0] if value else user_file.first_line(error))
            raise ModelError(f"{self._path}: {words}") from error

    def get_weights(self, state: bool = False) -> dict[str, Array]:
        if state:
            return self._solver.slots.read(self._session, self._main.weights) if self._solver else {}
        values = self._session.run(self._main.variables)
        return {name: self._main.weights[name].to_neutral(value) for name, value in values.items()}

    def set_weights(self, weights: Mapping[str, Array], state: Mapping[str, Array] | None = None) -> None:
        network.check_weights(
            str(self._path), {name: weight.shape for name, weight in self._main.weights.items()}, weights
        )
        if state is not None:
            current = self.get_weights(state=True)
            network.check_state(str(self._path), {name: value.shape for name, value in current.items()}, state)
        self._changes += 1
        variables = self._main.variables
        arrays = {
            name: self._main.weights[name].from_neutral(value, variables[name].shape.as_list())
            for name, value in weights.items()
        }
        _assign(self._session, variables, arrays)
        if state is not None and self._solver is not None:
            slots = self._solver.slots
            _assign(self._session, slots.variables, slots.from_neutral(state, self._main.weights))

    def save(self, folder: str) -> None:
        with self._main.graph.as_default():
            self._savers().save(self._session, str(Path(folder, CHECKPOINT)))

    def _savers(self) -> Any:
        """Return what writes and reads checkpoints; its operations are added on first use."""
        if self._saver is None:
            with extended(self._main.graph):
                self._saver = tf.train.Saver(
                    self._variables, max_to_keep=None, save_relative_paths=True, allow_empty=True
                )
        return self._saver

    def restore(self, folder: str) -> None:
        path = str(Path(folder, CHECKPOINT))
        try:
            shapes = tf.train.load_checkpoint(path).get_variable_to_shape_map()
        except (ValueError, tf.errors.OpError) as error:
            raise ModelError(f"{folder}: has no checkpoint {CHECKPOINT} that TensorFlow can read") from error
        for variable in self._variables:
            name, shape = variable.op.name, variable.shape.as_list()
            if shapes.get(name) != shape:
                actual = f"has it with shape {shapes[name]}" if name in shapes else "does not contain it"
                raise ModelError(
                    f"{folder}: {self._path.name} with its solver needs {name} of shape {shape}, but the checkpoint {actual}"
                )
        self._changes += 1
        self._savers().restore(self._session, path)

    def close(self) -> None:
        for predictor in self._predictors.values():
            self._close(predictor)
        self._predictors.clear()
        self._session.close()

    @property
    def _is_integer(self) -> bool:
        """Whether the graph's images are integers."""
        return np.issubdtype(np.dtype(self._file.input_type), np.integer)

    def _check_pixels(self, features: Array) -> None:
        """Raise SettingsError if the graph's images are integers that cannot hold these features."""
        if not self._is_integer or not features.size:
            return
        limits = np.iinfo(self._file.input_type)
        if features.min() < limits.min or features.max() > limits.max or np.any(features != np.floor(features)):
            raise SettingsError(
                f"{self._path}: its input is {self._file.input_type}, which cannot hold the images, with values from "
                f"{features.min():g} to {features.max():g}; specify {setting('subtract_mean', 'none')}, and use images of whole "
                "numbers"
            )

    def _build(
        self, shape: Shape, label_shape: Shape | None, training: bool, initialised: bool = True
    ) -> UserGraph:  # fmt: skip
        spec = self._spec
        if spec.mixed_sizes:  # one graph for all sizes
            shape, label_shape = _of_any_size(shape), label_shape and _of_any_size(label_shape)
        loss = losses.named(spec)
        return build(
            self._file, shape, label_shape, self._layers,
            training=training, loss=loss, labels=self._labels, seed=spec.seed,
            lowering=spec.lowering, ignore=spec.ignore_index,
            device=self._device, batch_size=spec.batch_size or backend.batch_size, initialised=initialised,
        )  # fmt: skip

    def _label_kind(self) -> LabelKind:
        """Return how the network reads its labels; unknown sizes of the output are assumed to be those of the labels."""
        label_shape, output = self._spec.label_shape, self._layers.output_shape
        if len(output) == 3:
            output = [output[2], *output[:2]]
        sizes = [size or label_shape[axis] for axis, size in enumerate(output)]
        return self._spec.label_kind(sizes)

    def _stored_weights(self) -> dict[str, Array]:
        """Return the initial values that the file stores, by neutral name."""
        stored = self._file.weights
        op_names = {name: variable.op.name for name, variable in self._main.variables.items()}
        return {name: stored[op_name] for name, op_name in op_names.items() if op_name in stored}

    def _open(self, user: UserGraph) -> Any:
        """Return a session of a graph."""
        threads = self._spec.threads
        # large operations compete for cores and caches; only two at a time, which fill each other's waiting times
        concurrent = 1 if threads == 1 else 2
        config = tf.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=concurrent)
        config.gpu_options.allow_growth = True
        rewriting = config.graph_options.rewrite_options
        if self._spec.lowering and avoided.has_maximum(user.graph):
            rewriting.remapping = RewriterConfig.OFF
        if self._device == "cpu":
            config.device_count["GPU"] = 0
            # what a file computes in NCHW, as for GPUs, takes twice as long in this order as in NHWC
            rewriting.cpu_layout_conversion = RewriterConfig.NCHW_TO_NHWC
        return tf.Session(graph=user.graph, config=config)

    def _predictor(self, features: Array, labels: Array | None) -> _Predictor:
        """Return the predictor for the shapes of features and labels, with the current weights."""
        key = (features.shape[1:], None if labels is None else labels.shape[1:])
        if self._spec.mixed_sizes:
            key = (_of_any_size(key[0]), key[1] and _of_any_size(key[1]))
        if labels is None:  # a graph with labels may have the same layers
            same = (
                other for other, known in self._predictors.items() if other[0] == key[0] and not known.user.reads_mode
            )
            key = next(same, key)
        predictor = self._predictors.pop(key, None)
        if predictor is None:
            user = self._build(*key, training=False, initialised=False)
            user.graph.finalize()
            predictor = _Predictor(user, self._open(user))
        self._predictors[key] = predictor  # the most recently used is the last
        while len(self._predictors) > MAX_PREDICTORS:
            self._close(self._predictors.pop(next(iter(self._predictors))))
        unknown = [name for name in predictor.user.variables if name not in self._main.variables]
        if unknown:
            raise ModelError(
                f"{self._path}: uses different variable names each time it is built, e.g. {unknown[0]}; specify names for "
                "its layers"
            )
        if predictor.session is not self._session and predictor.changes != self._changes:
            values = self._session.run({name: self._main.variables[name] for name in predictor.user.variables})
            _assign(predictor.session, predictor.user.variables, values)
            predictor.changes = self._changes
        return predictor

    def _close(self, predictor: _Predictor) -> None:
        if predictor.session is not self._session:
            predictor.session.close()


class _Predictor:
    """A graph for inference; ``changes`` is the number of weight changes at its last copy of the weights."""

    def __init__(self, user: UserGraph, session: Any) -> None:
        self.user, self.session, self.changes = user, session, -1
        self.output = session.make_callable(user.output, feed_list=[user.x])
        if user.y is not None:
            self.run = session.make_callable([user.output, user.loss], feed_list=[user.x, user.y])
            self.evaluate = session.make_callable([user.output, user.terms], feed_list=[user.x, user.y])

    def activations(self, arrays: list[Array]) -> dict[str, Array]:
        """Return the output of each layer for features, or for features and labels."""
        inputs = dict(zip((self.user.x, self.user.y), arrays))  # noqa: B905 - worker code runs on Python 3.9
        outputs: dict[str, Array] = self.session.run(self.user.layers, inputs)
        return outputs


def _of_any_size(shape: Any) -> Any:
    """Return a shape (H, W, C) without height and width, unless it is that of one pixel."""
    return shape if tuple(shape[:2]) == (1, 1) else (None, None, shape[2])


def _assign(session: Any, variables: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Set variables through their initialisers, which adds no operations to the graph."""
    initialisers = {name: variables[name].initializer for name in values}
    session.run(list(initialisers.values()), {op.inputs[1]: values[name] for name, op in initialisers.items()})


def _device(name: str) -> str:
    """Return ``cpu`` or ``cuda``. Raise SettingsError for an unknown device, or for cuda if TensorFlow finds no GPU."""
    if name not in ("auto", "cpu", "cuda"):
        raise SettingsError(f"{setting('device', name)}: choose one of auto, cpu, cuda")
    has_gpu = bool(tensorflow.config.list_physical_devices("GPU"))
    if name == "cuda" and not has_gpu:
        raise SettingsError(
            f"{setting('device', 'cuda')}: TensorFlow finds no GPU; choose cpu, or install tensorflow[and-cuda]"
        )
    return "cuda" if has_gpu and name != "cpu" else "cpu"
