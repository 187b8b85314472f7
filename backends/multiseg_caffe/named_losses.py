"""A job's named loss in the place of the losses of a file."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from multiseg.errors import ModelError, SettingsError, setting
from multiseg.network import Array, NetworkSpec
from multiseg_caffe import class_losses, losses
from multiseg_caffe.deploy import Deployed


def with_loss(
    net: Any, spec: NetworkSpec, deployed: Deployed, output: str, shape: tuple[int, ...], elements: int
) -> Any:
    """Return ``net`` with the named loss of a specification in the place of its own.

    ``output`` is the blob of the output, of ``shape`` (C, H, W) or (C,); an image has ``elements`` labels. Raises ModelError if
    the blob that the loss compares does not exist in training.
    """
    assert spec.loss is not None
    net, _ = losses.without(net)
    of_classes = spec.loss in class_losses.LOSSES
    compared = class_losses.scores(net, deployed.net, output, spec.loss) if of_classes else output
    if not any(compared in layer.top for layer in net.layer):
        raise ModelError(
            f"{spec.model}: its output {output!r} exists in the deploy state only; loss= needs it in training"
        )
    if of_classes:
        by = class_losses.Labelled(compared, len(shape) + 1, shape[0], spec.ignore_index, spec.class_weights)
        class_losses.LOSSES[spec.loss](net, by, **spec.loss_options)
    else:
        losses.BY_ELEMENT[spec.loss](net, compared, 1 / elements, **spec.loss_options)
    return net


def check_positions(spec: NetworkSpec, shape: tuple[int, ...]) -> None:
    """Raise ModelError unless a named loss of classes has one label for each position of an output of ``shape`` (C, H, W)."""
    of_classes = spec.loss in class_losses.LOSSES and spec.loss != class_losses.BINARY
    if of_classes and math.prod(shape[1:]) != math.prod(spec.label_shape):
        raise ModelError(
            f"{spec.model}: the loss takes scores (classes, H, W) and labels (1, H, W); the output is {shape}, the labels are "
            f"{spec.label_shape}; end the network in a score of each class for each label"
        )


def check_layers(spec: NetworkSpec, types: Iterable[str]) -> None:
    """Raise SettingsError if the named loss needs a Python layer, which this Caffe has not; ``types`` are its layer types."""
    if spec.loss == "focal" and "Python" not in types:
        raise SettingsError(
            f"{setting('loss', spec.loss)}: is a Python layer in Caffe, and this Caffe was built without WITH_PYTHON_LAYER; "
            "build one with it, as `multiseg install-caffe` does, or choose another loss"
        )


def described(spec: NetworkSpec) -> dict[str, Any]:
    """Return the items of a network's description about its named loss."""
    ignores = spec.ignore_index is not None and spec.loss in class_losses.LOSSES
    label_max = spec.loss_options.get("label_max")
    of_probabilities = {} if label_max is None else {"logits": True, "label_range": [0, label_max]}
    return {"ignored": [spec.ignore_index] if ignores else [], **of_probabilities}


def with_ignored(labels: Array, spec: NetworkSpec) -> Array:
    """Return the labels with those that do not count in a binary cross entropy replaced by the target that it ignores."""
    label_max = spec.loss_options.get("label_max")
    if label_max is None or spec.ignore_index is None:
        return labels
    return np.where(labels == spec.ignore_index, np.float32(class_losses.IGNORED_TARGET * label_max), labels)
