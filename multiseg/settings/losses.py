"""The losses that a job can name: one row per loss. docs/losses.md has their formulas, multiseg.reference their computation.

A backend declares which of them it has (multiseg.backend.Backend.losses); its module ``losses`` has one function per loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from multiseg.backend import Backend
from multiseg.errors import setting
from multiseg.network import CLASSES, IMAGES, LabelKind
from multiseg.schema import is_number


@dataclass(frozen=True)
class LossRow:
    """A named loss.

    - ``title``: the loss in words; ``parameters``: its parameters (above 0) with their defaults.
    - ``labels``: how a network reads its labels; ``accepts``: the kinds of datasets that it can be used for, by default this kind
      and, for losses of differences, also class indices, which are compared as numbers.
    - ``weighted``: whether it takes class weights.
    """

    title: str
    parameters: Mapping[str, float] = field(default_factory=dict)
    labels: LabelKind = IMAGES
    weighted: bool = False

    @property
    def accepts(self) -> tuple[LabelKind, ...]:
        """The kinds of labels of the datasets that the loss can be used for."""
        return (CLASSES,) if self.labels == CLASSES else (IMAGES, CLASSES)


LABEL_MAX = "label_max"  # of binary_cross_entropy: the label whose probability is 1
BINARY = "binary_cross_entropy"
GAMMA = {"gamma": 2.0}
SMOOTH = {"smooth": 1.0}
LOSSES: dict[str, LossRow] = {
    "l1": LossRow("mean absolute difference"),
    "smooth_l1": LossRow("smooth L1"),
    "l2": LossRow("mean squared difference"),
    "huber": LossRow("Huber's loss", {"delta": 1.0}),
    "cross_entropy": LossRow("cross entropy of the softmax", labels=CLASSES, weighted=True),
    "dice": LossRow("soft Dice loss", SMOOTH, CLASSES),
    "cross_entropy+dice": LossRow("cross entropy of the softmax + soft Dice loss", SMOOTH, CLASSES, weighted=True),
    "focal": LossRow("focal loss", GAMMA, CLASSES, weighted=True),
    BINARY: LossRow("cross entropy of the sigmoid", {LABEL_MAX: 255.0}),
}
NEUTRAL_LOSSES: dict[LabelKind, str] = {IMAGES: "l2", CLASSES: "cross_entropy"}  # of the recipe ``equal``


def loss_problems(name: Any, options: Mapping[str, Any], backend: Backend) -> list[str]:
    """Return what is wrong with a job's ``loss`` (None: the network file's own) and ``loss_options``, in words."""
    if not isinstance(options, Mapping):
        return [f"{setting('loss_options', options)}: must map names of the loss's parameters to numbers"]
    if name is None:
        return [f"{setting('loss_options', dict(options))}: belongs to a named {setting('loss')}"] if options else []
    if name not in backend.losses or name not in LOSSES:
        return [
            f"{setting('loss', name)}: choose one of {', '.join(loss for loss in LOSSES if loss in backend.losses)}"
        ]
    known = LOSSES[name].parameters
    problems = []
    for key, value in options.items():
        if key not in known:
            problems.append(
                f"{setting('loss')} {name!r} has no parameter {key!r}; it takes: {', '.join(known) or 'none'}"
            )
        elif not is_number(value) or value <= 0:
            problems.append(f"{setting('loss_options')} {key}={value!r}: must be a number above 0")
    return problems


def complete_options(name: str | None, options: Mapping[str, float]) -> dict[str, float]:
    """Return all parameters of a named loss: its defaults, overridden by ``options``; none without a named loss."""
    return {} if name is None else {key: float(value) for key, value in {**LOSSES[name].parameters, **options}.items()}


def loss_text(name: str, options: Mapping[str, float], weights: Any = ()) -> str:
    """Return a text that is the same only for the same loss, e.g. ``l2``, or with parameters ``name(parameter=1)``."""
    values = [f"{key}={value:g}" for key, value in options.items()]
    values += [f"weights={'/'.join(f'{value:.6g}' for value in weights)}"] if weights else []
    return f"{name}({', '.join(values)})" if values else name


def loss_title(name: str, options: Mapping[str, float], weights: Any = ()) -> str:
    """Return a loss in words for people; a text that names none of the table is returned as it is."""
    return loss_text(LOSSES[name].title if name in LOSSES else name, options, weights)


def label_kind_of(name: str | None, stated: LabelKind) -> LabelKind:
    """Return the kind of labels that a network is trained with: the named loss's, else the kind that the dataset states."""
    return stated if name is None else LOSSES[name].labels
