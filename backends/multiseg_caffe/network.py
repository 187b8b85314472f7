"""A network in Caffe, trained by Caffe's own solver. Runs in the backend's worker process; imports pycaffe."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import caffe
import numpy as np
from google.protobuf import text_format

from multiseg import network
from multiseg.errors import ModelError, setting
from multiseg.network import CLASSES, STEPS, Array, LossTerms, NetworkSpec
from multiseg.worker import choice
from multiseg_caffe import (
    averages,
    backend,
    class_labels,
    class_losses,
    dropout,
    losses,
    lowering,
    named_losses,
    notes,
    prototxt,
    references,
    solver_state,
    sources,
    weights_files,
)  # fmt: skip
from multiseg_caffe.deploy import deployed
from multiseg_caffe.describing import fork_layers, placing, windows
from multiseg_caffe.solver import WEIGHTS, Solver, set_multipliers
from multiseg_caffe.sources import DATA, LABEL
from multiseg_caffe.vectors import without_flatten
from multiseg_caffe.weights import assign, neutral, shared

KEPT_NETS = 8  # size of the cache of nets, one for each state, batch and image size


def probe() -> dict[str, Any]:
    """Return version and device of this interpreter's Caffe, and the version of numpy."""
    return {"version": caffe.__version__, "device": "cpu", "numpy": np.__version__}


class Network(network.Network):
    """Nets of one file that share one set of weights: the solver's net, and one for each other state, batch and image size."""

    def __init__(self, spec: NetworkSpec) -> None:
        self.file, chosen = prototxt.read(spec.model), choice.read(spec.model)
        self.spec = spec = replace(spec, model=str(chosen.file))
        references.check_writers(self.file, spec.model)
        self.scale = sources.image_scale(self.file, spec.model)
        self.layers = {layer.name: layer for layer in self.file.layer}
        self.folder = Path(tempfile.mkdtemp(prefix="multiseg-caffe-"))
        self.nets: dict[tuple[Any, ...], Any] = {}
        self.guards: dict[tuple[Any, ...], list[class_labels.Guard]] = {}  # of the nets
        self.files: set[str] = set()  # that the file refers to
        self.ignored: int | None = None  # the label in the net that stands for the specification's ignore_index
        self.batch_size = spec.batch_size or sources.batch_size(self.file, "train", spec.model) or backend.batch_size
        self.val_batch_size = (
            spec.val_batch_size or sources.batch_size(self.file, "val", spec.model) or backend.val_batch_size
        )
        named_losses.check_layers(spec, caffe.layer_type_list())
        fork_layers.check_installed(self.file, caffe.layer_type_list(), spec.model)
        if spec.device == "cuda":
            caffe.set_mode_gpu()  # a build without CUDA terminates the process here with a message
        else:
            caffe.set_mode_cpu()
        caffe.set_random_seed(spec.seed)
        self.deployed = deployed(self.file, spec.model, chosen.outputs)
        if self.deployed.more:
            raise sources.several_inputs(spec.model, [self.deployed.image, *self.deployed.more])
        self._definition("deploy", (1, *spec.input_shape))  # report an invalid layer before errors that follow from it
        if len(self.deployed.outputs) != 1:
            raise ModelError(
                f"{spec.model}: has {len(self.deployed.outputs)} outputs when deployed "
                f"({', '.join(self.deployed.outputs) or 'none'}), but training and testing want one; specify it with "
                f'{setting("outputs", example="NAME")}, or exclude losses and metrics with exclude {{ stage: "deploy" }}'
            )
        self.output = DATA if self.deployed.outputs[0] == self.deployed.image else self.deployed.outputs[0]
        self.base = self._net("deploy", (1, *spec.input_shape))
        self.output_shape = tuple(self.base.blobs[self.output].data.shape[1:])
        self._check_output(self.output_shape)
        self.labels = spec.label_kind(self.output_shape)
        spec.check_class_weights(self.output_shape[0])
        named_losses.check_positions(spec, self.output_shape)
        if spec.loss is None and losses.words(prototxt.filtered(self.file, "train", spec.model)) is None:
            raise ModelError(f"{spec.model}: has no loss layer for training; add one, or specify a loss with loss=")
        self.classes: int | None = None
        if spec.loss in class_losses.LOSSES:
            self.classes = self.output_shape[0]
        elif spec.solver:
            counts = []
            for state, size in (("val", self.val_batch_size), ("train", self.batch_size)):
                counts.append(class_labels.classes_of(*self._definition(state, (size, *spec.input_shape))))
            self.classes = min((count for count in counts if count is not None), default=None)
        self.solver = self._make_solver() if spec.solver else None

    # --- building

    def _check_output(self, shape: tuple[int, ...]) -> None:
        """Raise ModelError unless an output of this shape (C, H, W) fits the labels."""
        if not self.spec.fits(shape):
            error = f"its output {self.output!r} is {shape} (C, H, W), the labels are {self.spec.label_shape}"
            reasons = notes.shrunk_labels(self.file, self.spec.model, [self.output])
            raise ModelError("; ".join([f"{self.spec.model}: {error}", *reasons]))

    def _definition(self, state: str, shape: tuple[int, ...]) -> tuple[Any, dict[str, tuple[int, ...]]]:
        """Return the NetParameter for a state and a batch of this shape (N, C, H, W), before lowering, and its blobs' shapes.

        Raises ModelError for errors for which Caffe would terminate the process.
        """
        path, shapes = self.spec.model, {DATA: list(shape)}
        if state == "deploy":
            net = prototxt.of_layers(self.deployed.net.name, self.deployed.net.layer)
            input_layer = net.layer.add(name=self.deployed.image, type="Input", top=[self.deployed.image])
            input_layer.input_param.shape.add(dim=shape)
            net = sources.fed(net, path, shapes)
        else:
            height, width = self._label_size(shape)
            shapes[LABEL] = [shape[0], self.spec.label_shape[0], height, width]
            net = sources.fed(prototxt.filtered(self.file, state, path), path, shapes, self.scale)
            self.files.update(references.resolve(net, path))
            if self.spec.loss is not None:
                elements = self.spec.label_shape[0] * height * width
                net = named_losses.with_loss(net, self.spec, self.deployed, self.output, self.output_shape, elements)
            elif self.labels == CLASSES:
                self.ignored = class_labels.ignoring(net, self.spec.ignore_index, path)
        placed = placing.infer(net, path, {}, caffe.layer_type_list())
        blob_shapes = {top: shape for p in placed for top, shape in zip(p.layer.top, p.tops) if shape}  # noqa: B905
        if state == "train":
            _check_poolings(net, blob_shapes, path)
        return without_flatten(losses.with_native(net), blob_shapes), blob_shapes

    def _label_size(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return height and width of the labels for images (N, C, H, W).

        The ratio of label size to image size is the dataset's; labels of one pixel have one pixel for any image.
        """
        (_, height, width), (_, label_height, label_width) = self.spec.input_shape, self.spec.label_shape
        if (label_height, label_width) == (1, 1):
            return 1, 1
        return shape[2] * label_height // height, shape[3] * label_width // width

    def _lowered(self, state: str, shape: tuple[int, ...]) -> tuple[Any, list[str]]:
        """Return the NetParameter that Caffe builds, and the names of the layers that are lowered."""
        definition, shapes = self._definition(state, shape)
        if not self.spec.lowering or shape[0] == 1:
            return definition, []
        return lowering.lowered(definition, shapes)

    def _write(self, name: str, message: Any) -> str:
        path = self.folder / name
        path.write_text(text_format.MessageToString(message))
        return str(path)

    def _net(self, state: str, shape: tuple[int, ...]) -> Any:
        """Return the net for a state and batch shape, built on first use; it shares the weights of the others."""
        key = (state, *shape)
        if key not in self.nets:
            for old in list(self.nets)[1 : len(self.nets) - KEPT_NETS]:  # the first owns the shared weights
                del self.nets[old]
            phase = caffe.TRAIN if state == "train" else caffe.TEST
            definition, _ = self._lowered(state, shape)
            net = caffe.Net(self._write("net.prototxt", definition), phase)
            if self.nets:
                net.share_with(self.base)
            self.nets[key] = net
            self.guards[key] = class_labels.guards(net, definition)
        return self.nets[key]

    def _make_solver(self) -> Solver:
        shape = (self.batch_size, *self.spec.input_shape)
        if self.spec.multipliers or self.spec.frozen or self.spec.recipe == "equal":
            one, _ = self._definition("train", (1, *self.spec.input_shape))
            params = caffe.Net(self._write("net.prototxt", one), caffe.TRAIN).params
            set_multipliers(self.file, {layer: len(blobs) for layer, blobs in params.items()}, self.spec)
        definition, _ = self._lowered("train", shape)
        solver = Solver(self.spec, definition, self.folder)
        # from now on the solver's net owns the weights: discard the nets built before
        self.base = solver.net
        self.nets = {("train", *shape): solver.net}
        self.guards = {("train", *shape): class_labels.guards(solver.net, definition)}
        return solver

    # --- the interface

    def describe(self) -> dict[str, Any]:
        state, count = ("train", self.batch_size) if self.solver else ("deploy", self.val_batch_size)
        _, lowered = self._lowered(state, (count, *self.spec.input_shape))
        return {
            "batch_size": self.batch_size,
            "val_batch_size": self.val_batch_size,
            "labels": self.labels,
            "files": sorted(self.files),
            "single_values": self._single_values() if self.solver else [],
            **(named_losses.described(self.spec) if self.spec.loss else self._of_own_loss()),
            "classes": self.classes if self.labels == CLASSES else None,
            "device": "cuda" if self.spec.device == "cuda" else "cpu",
            "parameters": {name: list(array.shape) for name, array in self.get_weights().items()},
            "lowered": lowered,
            "trained": self.solver.trained if self.solver else {},
            "shared": shared(layer for layer, _ in self._parameters()),
            "averages": self._averages() if self.solver else {},
        }

    def _of_own_loss(self) -> dict[str, Any]:
        """Return the items of the description about the file's own loss."""
        own = prototxt.filtered(self.file, "val", self.spec.model)
        scale = sources.label_scale(own, self.spec.model)
        return {"ignored": losses.ignored(own), **losses.of_probabilities(own, self.output, scale)}

    def _averages(self) -> dict[str, dict[str, Any]]:
        """Return the rules of the averages that batch normalisation keeps."""
        net, _ = self._definition("train", (1, *self.spec.input_shape))
        return averages.rules(net)

    def _single_values(self) -> list[str]:
        """Return the names of the layers that normalise a batch by its statistics, of one value per image and channel."""
        net, shapes = self._definition("train", (1, *self.spec.input_shape))
        return [
            layer.name
            for layer in net.layer
            if (
                fork_layers.uses_batch(layer)
                if layer.type == "BN"
                else layer.type == "BatchNorm" and not layer.batch_norm_param.use_global_stats
            )
            and all(size == 1 for size in shapes.get(layer.bottom[0], [0, 0, 0])[2:])
        ]

    def train_step(self, features: Array, labels: Array, rate: float, seed: int = 0) -> float:
        solver = self.solver
        assert solver is not None
        count, size = len(features), self.batch_size
        batches = [slice(start, start + size) for start in range(0, count, size)]
        for batch in batches:
            self._net("train", features[batch].shape)
        caffe.set_random_seed(seed)  # once all nets are built: building a net draws random numbers, too
        loss = 0.0
        with solver.gradients():
            for batch in batches[: count // size]:
                loss += size / count * self._backward(features[batch], labels[batch])
                net = self._net("train", features[batch].shape)
                if net is not solver.net:  # an image of another size than that for which the solver was built
                    solver.add_gradients(net, 1.0)
            if count != size * self.spec.accumulate:  # last step of an epoch: fewer images than the solver divides by
                solver.scale_gradients(size * self.spec.accumulate / count)
            for batch in batches[count // size :]:
                remainder = count % size
                loss += remainder / count * self._backward(features[batch], labels[batch])
                factor = remainder * self.spec.accumulate / count
                solver.add_gradients(self._net("train", features[batch].shape), factor)
        solver.step(rate)
        return loss

    def training_values(
        self, features: Array, labels: Array, seed: int
    ) -> tuple[dict[str, Array], dict[str, Array]] | None:
        parts: list[tuple[dict[str, Array], dict[str, Array]]] = []
        batches = [slice(start, start + self.batch_size) for start in range(0, len(features), self.batch_size)]
        nets = [self._net("train", features[batch].shape) for batch in batches]
        kept = [blob.data.copy() for blobs in self.base.params.values() for blob in blobs]
        caffe.set_random_seed(seed)
        for batch, net in zip(batches, nets):  # noqa: B905 - worker code runs on Python 3.9
            net.blobs[DATA].data[...] = features[batch]
            net.blobs[LABEL].data[...] = self._with_ignored(labels[batch])
            drawn: dict[str, Array] = {}
            key = ("train", *features[batch].shape)
            parts.append((drawn, self._forward_recorded(net, len(features[batch]), self.guards[key], drawn)))
        blobs = [blob for blobs in self.base.params.values() for blob in blobs]
        for blob, values in zip(blobs, kept):  # noqa: B905
            blob.data[...] = values  # batch normalisation updates its averages

        return network.joined([drawn for drawn, _ in parts]), network.joined([values for _, values in parts])

    def _backward(self, features: Array, labels: Array) -> float:
        """Return the loss of a batch, and add its gradients to those in its net."""
        net = self._net("train", features.shape)
        net.blobs[DATA].data[...] = features
        net.blobs[LABEL].data[...] = self._with_ignored(labels)
        self._forward(net, ("train", *features.shape))
        net._backward(len(net.layers) - 1, 0)
        return _loss(net)

    def _forward(self, net: Any, key: tuple[Any, ...]) -> None:
        class_labels.forward(net, self.guards[key], self.spec.model)

    def _with_ignored(self, labels: Array) -> Array:
        """Return the labels with the specification's ignore_index replaced by the label that the net ignores."""
        value = self.spec.ignore_index
        if self.spec.loss is not None:
            return named_losses.with_ignored(labels, self.spec)
        if value is None or self.ignored in (None, value) or self.labels != CLASSES:
            return labels
        return np.where(labels == value, np.float32(self.ignored), labels)

    def predict(
        self, features: Array, labels: Array | None, activations: bool = False
    ) -> tuple[Array, float | None, dict[str, Array]]:
        state = "deploy" if labels is None else "val"
        key = (state, *features.shape)
        net = self._net(state, features.shape)
        net.blobs[DATA].data[...] = features
        if labels is not None:
            net.blobs[LABEL].data[...] = self._with_ignored(labels)
        outputs: dict[str, Array] = {}
        if activations:
            outputs = self._forward_recorded(net, len(features), self.guards[key])
        else:
            self._forward(net, key)
        loss = None if labels is None else _loss(net)
        if self.output not in net.blobs:  # in the deploy state only, as is often a softmax that the loss layer includes
            output, _, outputs = self.predict(features, None, activations)
            return output, loss, outputs
        return net.blobs[self.output].data.copy(), loss, outputs

    def evaluate(self, features: Array, labels: Array) -> tuple[Array, LossTerms]:
        output, _, _ = self.predict(features, labels)
        net = self._net("val", features.shape)
        definition, _ = self._definition("val", features.shape)
        return output, losses.terms(definition, net, len(features), self.batch_size)

    def _forward_recorded(
        self, net: Any, count: int, guards: list[class_labels.Guard], drawn: dict[str, Array] | None = None
    ) -> dict[str, Array]:
        """Run a forward pass; return the outputs of the file's layers, copied before an in-place layer overwrites them.

        What dropouts multiply by is added to ``drawn``.
        """
        file_layers = {layer.name for layer in self.deployed.net.layer if layer.type not in ("Input", "Split")}
        blobs, outputs = list(net.blobs.values()), {}
        checks = {guard.position: guard for guard in guards}
        for index, layer in enumerate(net._layer_names):
            if index in checks:
                checks[index].check(blobs[checks[index].labels].data, self.spec.model)
            if drawn is not None and net.layers[index].type in dropout.TYPES:
                drawn[layer] = lowering.unmosaic(dropout.forward(net, blobs, index), count)
            else:
                net._forward(index, index)
            if layer not in file_layers:  # Split layers that Caffe inserts, layers of a mosaic, a loss
                continue
            tops = list(net._top_ids(index))
            for number, top in enumerate(tops):
                name = layer if len(tops) == 1 else f"{layer}:{number}"  # the name in the file's description
                outputs[name] = lowering.unmosaic(blobs[top].data, count)
        return outputs

    def _parameters(self) -> Iterator[tuple[Any, list[Array]]]:
        """Yield the layers that have weights, with their arrays of weights."""
        for name, blobs in self.base.params.items():
            yield self.layers[name], [blob.data for blob in blobs]

    def get_weights(self, state: bool = False) -> dict[str, Array]:
        if state:
            return self._state()
        return {
            f"{layer.name}.{part}": array
            for layer, blobs in self._parameters()
            for part, array in neutral(layer, blobs).items()
        }

    def _state(self) -> dict[str, Array]:
        solver = self.solver
        if solver is None:
            return {}
        history, steps = solver.history()
        arrays = solver_state.named(self.layers, solver.net.params, solver.slots, history)
        state = {name: array for name, array in arrays.items() if name.partition("/")[2] in solver.trained}
        return {**state, STEPS: np.array(steps)} if solver.steps_count else state

    def _check_state(self, shapes: Mapping[str, tuple[int, ...]], state: Mapping[str, Array]) -> None:
        """Raise an error unless ``state`` has the solver's arrays in their shapes; ``shapes`` are those of the parameters."""
        expected: dict[str, tuple[int, ...]] = {}
        if self.solver is not None:
            expected = {f"{slot}/{name}": shapes[name] for slot in self.solver.slots for name in self.solver.trained}
            expected.update({STEPS: ()} if self.solver.steps_count else {})
        network.check_state(self.spec.model, expected, state)

    def _set_state(self, state: Mapping[str, Array]) -> None:
        solver = self.solver
        if solver is not None:
            arrays = solver_state.of(self.layers, solver.net.params, solver.slots, state)
            solver.set_history(arrays, int(state[STEPS]) if solver.steps_count else None)

    def set_weights(self, weights: Mapping[str, Array], state: Mapping[str, Array] | None = None) -> None:
        shapes = {name: array.shape for name, array in self.get_weights().items()}
        network.check_weights(self.spec.model, shapes, weights)
        if state is not None:
            self._check_state(shapes, state)
        for layer, blobs in self._parameters():
            parts = {
                name.rpartition(".")[2]: array
                for name, array in weights.items()
                if name.rpartition(".")[0] == layer.name
            }
            assign(layer, blobs, parts)
        if state is not None:
            self._set_state(state)

    def save(self, folder: str) -> None:
        assert self.solver is not None
        self.solver.save(Path(folder))

    def restore(self, folder: str) -> None:
        weights_files.check_layers(Path(folder) / WEIGHTS, self.base.params)
        if self.solver is None:
            self.base.copy_from(str(Path(folder) / WEIGHTS))
        else:
            self.solver.restore(Path(folder))

    def close(self) -> None:
        self.nets.clear()
        self.solver = self.base = None


def _check_poolings(net: Any, shapes: Mapping[str, tuple[int, ...]], path: str) -> None:
    """Raise ModelError for a maximum pooling with a window outside the image: its gradient is written outside Caffe's memory."""
    for layer in net.layer:
        if layer.type != "Pooling" or layer.pooling_param.pool != layer.pooling_param.MAX:
            continue
        before, after = shapes.get(layer.bottom[0], ()), shapes.get(layer.top[0], ())
        if len(before) != 4 or len(after) != 4:
            continue
        size, pooled = (before[2], before[3]), (after[2], after[3])
        window = windows.of_pooling(layer.pooling_param, size)
        if windows.lies_outside(window, size, pooled):
            raise ModelError(
                f"{path}: layer {layer.name!r} (Pooling): its last window lies outside its input of {size[1]}x{size[0]} pixels, "
                f"where Caffe's output is -3.4e38 and its gradient damages memory; use a kernel_size of at least the stride, "
                f"or images of another size"
            )


def _loss(net: Any) -> float:
    """Return the objective of the last forward pass: the weighted sum of the losses."""
    weights = net.blob_loss_weights
    return float(sum(weight * net.blobs[name].data.sum() for name, weight in weights.items() if weight))
