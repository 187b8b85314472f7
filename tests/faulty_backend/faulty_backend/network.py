"""PyTorch's network, to which one thing is done after it was built, or with all that it is given."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import multiseg_torch.network as right
import numpy as np
from torch import nn
from torch.nn import functional as F

from multiseg.network import Array, NetworkSpec

probe = right.probe


def planted() -> tuple[str, list[float]]:
    """The mistake, and the mean for the mistake with it: from MULTISEG_FAULT, or from a file that may change between networks."""
    file = os.environ.get("MULTISEG_FAULT_FILE")
    fault, mean = json.loads(Path(file).read_text()) if file else (os.environ.get("MULTISEG_FAULT", ""), [])
    return fault, mean


def _set(name: str, **values: Any) -> Callable[[nn.Module], None]:
    def change(model: nn.Module) -> None:
        for key, value in values.items():
            setattr(model.get_submodule(name), key, value)

    return change


def _replace(name: str, module: nn.Module) -> Callable[[nn.Module], None]:
    return lambda model: setattr(model, name, module)


def _shift_padding(model: nn.Module) -> None:
    """Two pixels above and left instead of one all around, as where "same" padding is put on one side."""
    model.conv1.padding = (0, 0)
    model.conv1.register_forward_pre_hook(lambda module, inputs: (F.pad(inputs[0], (2, 0, 2, 0)),))


MODEL: dict[str, Callable[[nn.Module], None]] = {
    "stride": _set("conv1", stride=(2, 2)),
    "padding": _shift_padding,
    "ceil_mode": _set("pool", ceil_mode=True),
    "epsilon": _set("bn", eps=1e-3),
    "relu": _replace("relu", nn.Identity()),
}
IMAGES: dict[str, Callable[[Array, list[float]], Array]] = {
    "bgr": lambda images, mean: images[:, ::-1],
    "hwc": lambda images, mean: images.transpose(0, 2, 3, 1).reshape(images.shape),
    "mean": lambda images, mean: images + np.array(mean).reshape(1, -1, 1, 1),
}
WEIGHTS: dict[str, tuple[str, Callable[[Array], Array]]] = {
    "transposed": ("conv1.weight", lambda weights: weights.swapaxes(2, 3)),
    "bias": ("conv1.bias", np.zeros_like),
}


class Network(right.Network):
    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__(spec)
        self.fault, self.mean = planted()
        if self.fault in MODEL:
            MODEL[self.fault](self.model)
        if self.solver is not None:
            for group in self.solver._optimizer.param_groups:
                if self.fault == "dampening":
                    group["dampening"] = group["momentum"]
                if self.fault == "nesterov":
                    group["nesterov"] = group["momentum"] > 0
                if self.fault == "decay":
                    group["weight_decay"] = 0.1

    def train_step(self, features: Array, labels: Array, rate: float, seed: int = 0) -> float:
        if self.fault == "gradient":  # summed where it should be averaged, which a large rate hides
            rate = rate * len(features)
        return super().train_step(self._images(features), labels, rate, seed)

    def predict(
        self, features: Array, labels: Array | None, activations: bool = False
    ) -> tuple[Array, float | None, dict[str, Array]]:
        return super().predict(self._images(features), labels, activations)

    def set_weights(self, weights: Mapping[str, Array], *more: Any) -> None:
        if self.fault in WEIGHTS:
            name, change = WEIGHTS[self.fault]
            weights = {**weights, name: np.ascontiguousarray(change(weights[name]))}
        super().set_weights(weights, *more)

    def _images(self, features: Array) -> Array:
        if self.fault not in IMAGES:
            return features
        return np.ascontiguousarray(IMAGES[self.fault](features, self.mean), dtype=np.float32)
