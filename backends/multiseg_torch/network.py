"""A network in PyTorch, trained by torch.optim. Runs in the backend's process; imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multiseg import network
from multiseg.errors import ModelError, SettingsError, setting
from multiseg.network import CLASSES, Array, LossTerms, NetworkSpec
from multiseg.worker import choice
from multiseg_torch import (
    averages,
    backend,
    buffers,
    computing,
    files,
    loss_terms,
    losses,
    lowering,
    memory_order,
    probabilities,
    scores,
    single_values,
    tensors_only,
)
from multiseg_torch.class_losses import ClassLoss
from multiseg_torch.solver import Solver
from multiseg_torch.weights import neutral_weights, shared, unflattened

SNAPSHOT = "network.pt"  # in a snapshot's folder: {"model": state_dict, "optimizer": state_dict}


def probe() -> dict[str, Any]:
    """Return the versions of PyTorch and numpy, and the device, of this interpreter."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {"version": torch.__version__, "device": device, "numpy": np.__version__}


class Network(network.Network):
    """An nn.Module with its criterion and optimizer."""

    def __init__(self, spec: NetworkSpec) -> None:
        torch.set_num_threads(spec.threads)
        torch.manual_seed(spec.seed)
        torch.set_deterministic_debug_mode(
            "warn"
        )  # use_deterministic_algorithms imports torch.compile for its settings
        torch.utils.deterministic.fill_uninitialized_memory = (
            False  # a debugging aid that costs a pass over every new tensor
        )
        loaded, outputs = files.load(spec.model, spec.input_shape), choice.read(spec.model).outputs
        self.spec = spec = replace(spec, model=loaded.path)
        for module in loaded.model.modules() if spec.solver else ():
            if hasattr(module, "own_gradient"):  # of a Torch7 file
                raise ModelError(
                    f"{spec.model}: {module.own_gradient}; such a network can be described, exported and tested"
                )
        self.files = list(loaded.files)
        if loaded.crop and spec.input_shape[1:] != (loaded.crop, loaded.crop):
            height, width = spec.input_shape[1:]
            raise ModelError(
                f"{spec.model}: takes crops of {loaded.crop}x{loaded.crop} pixels (croplen), the images are {width}x{height}: "
                f"specify {setting('crop', loaded.crop)} and {setting('val_crop', 'centre')}"
            )
        cuda = spec.device == "cuda" or (spec.device == "auto" and torch.cuda.is_available())
        if cuda and not torch.cuda.is_available():
            raise SettingsError(
                f"{setting('device', 'cuda')}: PyTorch sees no GPU here; choose cpu, or install a PyTorch built for CUDA"
            )
        self.device = torch.device("cuda" if cuda else "cpu")
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = (
            False  # TF32 keeps 10 of float32's 23 mantissa bits
        )
        self.model = loaded.model.to(self.device)
        if len(inputs := files.inputs_of(loaded, spec.input_shape)) > 1:
            raise ModelError(
                f"{spec.model}: has {len(inputs)} inputs ({', '.join(inputs)}); training and testing want one; write a module "
                "that takes one"
            )
        if outputs:
            from multiseg_torch import selecting  # tracing takes long to import, for what few networks need

            images = torch.zeros(2, *spec.input_shape, device=self.device)
            files.trial(spec.model, self.model.eval(), [images], several=True)
            selecting.select(spec.model, self.model, outputs, images)
        self.criterion = loaded.loss or losses.smooth_l1()
        if spec.loss is not None:
            self.criterion = losses.named(spec)
        self.loss = losses.over_labels(self.criterion, spec.ignore_index)
        self.batch_size = spec.batch_size or loaded.batch_size or backend.batch_size
        self.val_batch_size = spec.val_batch_size or loaded.val_batch_size or backend.val_batch_size
        self._check_shapes()
        self.lowered = lowering.lower(self.model) if spec.lowering else []
        self.order = memory_order.choose(self.model, self._trial_images(), trains=spec.solver is not None)
        self.solver = Solver(spec, self.model) if spec.solver else None
        self.forward = computing.Forward(spec, self.model, self.batch_size, self.device, self.order)
        self.compile_seconds = self.forward.compile() if spec.compile and spec.solver else None

    def _check_shapes(self) -> None:
        self.model.eval()
        with single_values.recorded(self.model) as self.single_values:
            output = files.trial(
                self.spec.model, self.model, [torch.zeros(1, *self.spec.input_shape, device=self.device)]
            )
        shape = tuple(output.shape[1:])
        if not self.spec.fits(shape):
            raise ModelError(
                f"{self.spec.model}: its output is {shape} (C, H, W), the labels are {self.spec.label_shape}"
            )
        self._output_shape = shape
        self.labels = self.spec.label_kind(shape)
        compares_indices = isinstance(self.criterion, (*losses.BY_CLASS, ClassLoss)) and not losses.scales_labels(
            self.criterion
        )
        self.classes = shape[0] if self.labels == CLASSES and compares_indices else None
        if isinstance(self.criterion, ClassLoss):
            self.spec.check_class_weights(shape[0])
            images = torch.zeros(1, *self.spec.input_shape, device=self.device)
            scores.attach(self.model, images, self.spec.model, self.criterion.of_softmax)

    def _trial_images(self) -> Tensor:
        """Return two images of random numbers, the same for every network of this input shape."""
        generator = torch.Generator().manual_seed(1)
        return torch.randn(2, *self.spec.input_shape, generator=generator).to(self.device)

    def describe(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "val_batch_size": self.val_batch_size,
            "labels": self.labels,
            "single_values": self.single_values,
            "ignored": losses.ignored(self.criterion),
            **probabilities.of_loss(self.criterion, self._output_shape, self.spec.label_shape),
            "classes": self.classes,
            "device": str(self.device),
            "parameters": {name: list(value.shape) for name, value in neutral_weights(self.model).items()},
            "lowered": self.lowered,
            "memory_order": self.order,
            "trained": self.solver.trained if self.solver else {},
            "shared": shared(self.model),
            "averages": averages.rules(self.model) if self.solver else {},
            "files": self.files,
            **({} if self.compile_seconds is None else {"compile_seconds": round(self.compile_seconds, 1)}),
        }

    def train_step(self, features: Array, labels: Array, rate: float, seed: int = 0) -> float:
        assert self.solver is not None
        computing.seed_generators(seed, self.device)
        computing.set_mode(self.model, training=True)
        totals = []
        with self.solver.gradients():
            for start in range(0, len(features), self.batch_size):
                part = slice(start, start + self.batch_size)
                loss = self.loss(self.forward(self._tensor(features[part])), self._tensor(labels[part]))
                loss = loss * (len(features[part]) / len(features))
                loss.backward()
                totals.append(loss.detach())
        self.solver.step(rate)
        return sum(map(float, totals))  # reading a loss waits for a GPU, so it comes last

    @torch.no_grad()
    def training_values(
        self, features: Array, labels: Array, seed: int
    ) -> tuple[dict[str, Array], dict[str, Array]] | None:
        from multiseg_torch import dropout

        names = dropout.names(self.model, self._trial_images())
        computing.seed_generators(seed, self.device)
        parts: list[tuple[dict[str, Array], dict[str, Array]]] = []
        computing.set_mode(self.model, training=True)
        with buffers.unchanged(self.model), self.forward.precision(self.spec.precision):
            for start in range(0, len(features), self.batch_size):
                images = memory_order.ordered(self._tensor(features[start : start + self.batch_size]), self.order)
                factors, values = dropout.drawn(self.model, images)
                if len(factors) != len(names):
                    return None
                parts.append((dict(zip(names, factors)), values))
        return network.joined([factors for factors, _ in parts]), network.joined([values for _, values in parts])

    @torch.no_grad()
    def predict(
        self, features: Array, labels: Array | None, activations: bool = False
    ) -> tuple[Array, float | None, dict[str, Array]]:
        computing.set_mode(self.model, training=False)
        images = memory_order.ordered(self._tensor(features), self.order)
        seen: dict[str, Array] = {}
        try:
            if activations:
                from multiseg_torch.describing import tracing

                with self.forward.precision(self.spec.prediction_precision):
                    output, seen = tracing.activations_of(self.model, images)
            else:
                with self.forward.precision(self.spec.prediction_precision):
                    output = self.model(images)
            output = computing.in_float32(output)
        except RuntimeError as error:
            size = "x".join(map(str, features.shape[:0:-1][:2]))
            raise ModelError(f"{self.spec.model}: cannot take an image of {size} pixels: {error}") from error
        loss = None if labels is None else float(self.loss(output, self._tensor(labels)))
        return output.cpu().numpy(), loss, seen

    @torch.no_grad()
    def evaluate(self, features: Array, labels: Array) -> tuple[Array, LossTerms]:
        computing.set_mode(self.model, training=False)
        output = computing.in_float32(self.model(memory_order.ordered(self._tensor(features), self.order)))
        return output.cpu().numpy(), loss_terms.of(
            self.criterion, self.loss, output, self._tensor(labels), self.batch_size
        )

    def _tensor(self, array: Array) -> Tensor:
        tensor = torch.from_numpy(array)
        if self.device.type == "cuda":  # from pinned memory the copy does not make the program wait
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor

    def get_weights(self, state: bool = False) -> dict[str, Array]:
        if state:
            return self.solver.state() if self.solver else {}
        return {name: value.cpu().numpy().copy() for name, value in neutral_weights(self.model).items()}

    def set_weights(self, weights: Mapping[str, Array], state: Mapping[str, Array] | None = None) -> None:
        own = neutral_weights(self.model)
        weights = unflattened(self.model, self.spec.model, weights)
        network.check_weights(self.spec.model, {name: tuple(value.shape) for name, value in own.items()}, weights)
        if state is not None:
            kept = self.get_weights(state=True)
            network.check_state(self.spec.model, {name: value.shape for name, value in kept.items()}, state)
        for name, value in own.items():
            value.copy_(torch.from_numpy(np.array(weights[name])))
        if state is not None and self.solver is not None:
            self.solver.set_state(state)

    def save(self, folder: str) -> None:
        assert self.solver is not None
        state = {"model": self.model.state_dict(), "optimizer": self.solver.state_dict()}
        torch.save(state, Path(folder) / SNAPSHOT)

    def restore(self, folder: str) -> None:
        # prediction needs half of the snapshot, or less
        state = tensors_only.load(Path(folder) / SNAPSHOT, self.device, mapped=self.solver is None)
        self.model.load_state_dict(state["model"])
        if self.solver is not None:
            self.solver.load_state_dict(state["optimizer"])

    def close(self) -> None:
        del self.model, self.solver, self.forward
