"""A user's TensorFlow network for multiseg: sessions, weights and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow

from multiseg.errors import ModelError, SettingsError
from multiseg.network import Array, NetworkSpec
from multiseg.network import Network as Interface
from multiseg_tensorflow import backend, digits
from multiseg_tensorflow.graph import Shape, UserGraph, build
from multiseg_tensorflow.solver import train_operation

tf = tensorflow.compat.v1
tf.logging.set_verbosity(tf.logging.ERROR)
tf.disable_v2_behavior()  # the users' files are TensorFlow 1's; this process is theirs

CHECKPOINT = "network.ckpt"


def probe() -> dict[str, Any]:
    """Versions, and the device that ``auto`` stands for."""
    return {"version": tensorflow.__version__, "numpy": np.__version__, "device": _device("auto")}


class Network(Interface):
    """One graph holds the weights: it trains, or predicts, at the dataset's image size. Others are built when they are
    needed, for validation and for images of other sizes, and get copies of its weights."""

    def __init__(self, spec: NetworkSpec) -> None:
        self._spec = spec
        self._path = Path(spec.model)
        self._model = digits.load(self._path)
        self._device = _device(spec.device)
        self._changes = 0  # of the weights
        channels, *size = spec.input_shape
        stage = digits.STAGE_INF if spec.solver is None else digits.STAGE_TRAIN
        shape = (size[0], size[1], channels)
        self._main = self._build(stage, shape, (*spec.label_shape[1:], spec.label_shape[0]))
        with self._main.graph.as_default():
            if spec.solver is not None:
                rate = tf.placeholder(tf.float32, [], "rate")
                train = train_operation(self._main, spec.solver, rate)
            variables = tf.global_variables()
            self._saver = tf.train.Saver(variables, max_to_keep=None, save_relative_paths=True)
            initialise = tf.variables_initializer(variables)
            self._main.graph.finalize()
        self._session = self._open(self._main)
        self._session.run(initialise)
        self._train = None
        if spec.solver is not None:
            inputs = [self._main.x, self._main.y, rate]
            self._train = self._session.make_callable([self._main.loss, train], feed_list=inputs)
        self._predictors: dict[tuple[str, Shape], _Predictor] = {}
        if spec.solver is None:
            self._predictors[stage, shape] = _Predictor(self._main, self._session)

    def describe(self) -> dict[str, Any]:
        spec = self._spec
        return {
            "batch_size": spec.batch_size or backend.batch_size,
            "val_batch_size": spec.val_batch_size or backend.val_batch_size,
            "loss": spec.loss or f"{self._path.name}'s own",
            "own_loss": spec.loss is None,
            "device": self._device,
            "parameters": {name: list(_neutral_shape(variable)) for name, variable in self._main.variables.items()},
            "lowered": self._main.lowered,
        }

    def train_step(self, features: Array, labels: Array, rate: float) -> float:
        if self._train is None:
            raise SettingsError(f"{self._path}: was loaded for prediction only; it needs a solver to train")
        self._changes += 1
        loss, _ = self._train(features, labels, rate)
        return float(loss)

    def predict(self, features: Array, labels: Array | None) -> tuple[Array, float | None]:
        predictor = self._predictor(features, labels)
        if labels is None:
            return predictor.run(features), None
        output, loss = predictor.run(features, labels)
        return output, float(loss)

    def get_weights(self) -> dict[str, Array]:
        values = self._session.run(self._main.variables)
        return {name: np.ascontiguousarray(value.transpose(_to_neutral(value.ndim))) for name, value in values.items()}

    def set_weights(self, weights: Mapping[str, Array]) -> None:
        variables = self._main.variables
        missing, unknown = sorted(set(variables) - set(weights)), sorted(set(weights) - set(variables))
        if missing or unknown:
            raise ModelError(
                f"{self._path}: the weights given have {'no ' + ', '.join(missing) if missing else ''}"
                f"{' and ' if missing and unknown else ''}{', '.join(unknown) + ' too many' if unknown else ''}; "
                f"the network has {', '.join(variables)}"
            )
        for name, variable in variables.items():
            if weights[name].shape != _neutral_shape(variable):
                raise ModelError(f"{self._path}: {name} has shape {_neutral_shape(variable)}, not {weights[name].shape}")
        self._changes += 1
        values = {name: value.transpose(np.argsort(_to_neutral(value.ndim))) for name, value in weights.items()}
        _assign(self._session, variables, values)

    def save(self, folder: str) -> None:
        with self._main.graph.as_default():
            self._saver.save(self._session, str(Path(folder, CHECKPOINT)))

    def restore(self, folder: str) -> None:
        self._changes += 1
        try:
            self._saver.restore(self._session, str(Path(folder, CHECKPOINT)))
        except (ValueError, tf.errors.OpError) as error:
            said = str(error).partition("\n")[0]
            raise ModelError(f"{folder}: holds no checkpoint of {self._path.name} to go on from: {said}") from error

    def close(self) -> None:
        self._session.close()
        for predictor in self._predictors.values():
            predictor.session.close()
        self._predictors.clear()

    def _build(self, stage: str, shape: Shape, label_shape: Shape) -> UserGraph:
        spec = self._spec
        return build(self._path, self._model, stage, shape, label_shape, spec.loss, spec.seed, spec.lowering)

    def _open(self, user: UserGraph) -> Any:
        config = tf.ConfigProto(
            intra_op_parallelism_threads=self._spec.threads, inter_op_parallelism_threads=self._spec.threads
        )
        config.gpu_options.allow_growth = True
        if self._device == "cpu":
            config.device_count["GPU"] = 0
        return tf.Session(graph=user.graph, config=config)

    def _predictor(self, features: Array, labels: Array | None) -> _Predictor:
        stage = digits.STAGE_INF if labels is None else digits.STAGE_VAL
        shape = features.shape[1:]
        predictor = self._predictors.get((stage, shape))
        if predictor is None:
            user = self._build(stage, shape, shape if labels is None else labels.shape[1:])
            predictor = self._predictors[stage, shape] = _Predictor(user, self._open(user))
        if predictor.session is not self._session and predictor.changes != self._changes:
            variables = {name: self._main.variables[name] for name in predictor.user.variables}
            _assign(predictor.session, predictor.user.variables, self._session.run(variables))
            predictor.changes = self._changes
        return predictor


class _Predictor:
    """A graph that predicts; ``changes`` is the state of the weights it has."""

    def __init__(self, user: UserGraph, session: Any) -> None:
        self.user, self.session, self.changes = user, session, -1
        if user.y is None:
            self.run = session.make_callable(user.output, feed_list=[user.x])
        else:
            self.run = session.make_callable([user.output, user.loss], feed_list=[user.x, user.y])


def _assign(session: Any, variables: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Set variables through their initialisers, which adds nothing to the graph."""
    operations = {name: variable.initializer for name, variable in variables.items()}
    session.run(list(operations.values()), {operation.inputs[1]: values[name] for name, operation in operations.items()})


def _to_neutral(rank: int) -> tuple[int, ...]:
    """The order of axes that makes a neutral weight: HWIO to OIHW and HWOI to IOHW are the same."""
    return (3, 2, 0, 1) if rank == 4 else tuple(range(rank))


def _neutral_shape(variable: Any) -> tuple[int, ...]:
    shape = variable.shape.as_list()
    return tuple(shape[axis] for axis in _to_neutral(len(shape)))


def _device(asked: str) -> str:
    """``cpu`` or ``cuda``. Raises SettingsError for a device that TensorFlow does not see, or an unknown one."""
    if asked not in ("auto", "cpu", "cuda"):
        raise SettingsError(f"device={asked!r}: choose one of auto, cpu, cuda")
    found = bool(tensorflow.config.list_physical_devices("GPU"))
    if asked == "cuda" and not found:
        raise SettingsError("device='cuda': TensorFlow sees no GPU here; choose cpu, or install tensorflow[and-cuda]")
    return "cuda" if found and asked != "cpu" else "cpu"
