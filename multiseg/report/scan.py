"""Predict the validation images with every run: select the worst images, and measure where the runs disagree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from multiseg.dataset.cropping import CentreCrop, Size
from multiseg.dataset.foreground import Foreground
from multiseg.errors import BackendUnavailable, DatasetError, ModelError, RunError, WorkerError
from multiseg.images import Values
from multiseg.network import CLASSES
from multiseg.report.facts import RunFacts
from multiseg.run.run import Run

Pixels = npt.NDArray[np.uint8]
Outputs = npt.NDArray[np.float32]
Kind = Literal["worst", "contested", "typical"]

# errors for which a run is left out of the pictures, instead of failing the whole page
CANNOT_SHOW = (BackendUnavailable, ModelError, RunError, WorkerError)
_CHUNK = 1 << 18  # elements of one prediction: 256 images of 32x32; activations need many times that


@dataclass(frozen=True)
class View:
    """One run's output for one image, CHW float32; ``wrong`` is the fraction of misclassified pixels."""

    output: Outputs
    l1: float
    wrong: float


@dataclass(frozen=True)
class Case:
    """One validation image with the outputs of all scanned runs, and why it is shown.

    ``disagreement`` is the fraction of its pixels on which the runs disagree.
    """

    index: int
    kinds: tuple[Kind, ...]
    feature: Pixels
    target: Pixels
    views: tuple[View, ...]
    disagreement: float


@dataclass(frozen=True)
class Pair:
    """Two runs and the fraction of all pixels that they classify differently."""

    one: RunFacts
    other: RunFacts
    part: float


@dataclass(frozen=True)
class Scan:
    """The results over the whole validation set."""

    seen: tuple[RunFacts, ...]
    unseen: dict[str, str]
    """Label of a run that could not be scanned -> error message."""
    count: int
    cases: tuple[Case, ...]
    """Worst first."""
    pairs: tuple[Pair, ...]
    wrong_in_some: float
    wrong_in_all: float


@dataclass
class _Sums:
    """Per image: each run's error and misclassified fraction, and the fraction of disagreement. In total: pixel counts."""

    l1: list[Outputs] = field(default_factory=list)
    wrong: list[Outputs] = field(default_factory=list)
    split: list[Outputs] = field(default_factory=list)
    pixels: int = 0
    in_some: int = 0
    in_all: int = 0
    between: Any = 0

    def add(self, outputs: list[Outputs], targets: Pixels, rules: Sequence[Foreground | float]) -> None:
        images = len(targets)
        pairs = [(output, Foreground.of(rule)) for output, rule in zip(outputs, rules, strict=True)]
        foreground = np.stack([rule.in_outputs(output).reshape(images, -1) for output, rule in pairs])
        wrong = foreground != np.stack([rule.in_labels(targets).reshape(images, -1) for _, rule in pairs])
        self.l1.append(np.stack([_l1(output, targets) for output in outputs]))
        self.wrong.append(wrong.mean(axis=2, dtype=np.float32))
        self.split.append((foreground.any(axis=0) & ~foreground.all(axis=0)).mean(axis=1, dtype=np.float32))
        self.pixels += targets.size
        self.in_some += int(wrong.any(axis=0).sum())
        self.in_all += int(wrong.all(axis=0).sum())
        self.between = self.between + np.array([[(a != b).sum() for b in foreground] for a in foreground])


def scan(facts: Sequence[RunFacts], images: int) -> Scan:
    """Predict the first run's validation images with every run, and select ``images`` of them to show.

    A run whose framework is not installed, or whose network does not accept the images, is left out with the error message.
    Raises DatasetError if the dataset cannot be read.
    """
    samples, crop = facts[0].run.dataset.val, facts[0].run.val_crop
    unseen: dict[str, str] = {}
    if len(samples) and samples.shape is None and crop is None:
        reason = "the validation images differ in size, and this page shows images of one size"
        return Scan((), {each.label: reason for each in facts}, len(samples), (), (), 0, 0)
    sums = _Sums()
    for features, targets in chunks(samples, crop):
        predicted = []
        for each in facts:
            if each.label not in unseen:
                try:
                    predicted.append(_predict(each.run, features, targets))
                except CANNOT_SHOW as error:
                    unseen[each.label] = str(error)
        if predicted:
            sums.add(predicted, targets, [run.foreground for run in facts if run.label not in unseen])
    seen = tuple(each for each in facts if each.label not in unseen)
    if not seen or not sums.pixels:
        return Scan((), unseen, len(samples), (), (), 0, 0)

    l1, wrong, split = (np.concatenate(parts, axis=-1) for parts in (sums.l1, sums.wrong, sums.split))
    chosen = choose(l1.mean(axis=0), split if len(seen) > 1 else np.zeros_like(split), images)
    features, targets = read(samples, list(chosen), crop)
    outputs = [_predict(each.run, features, targets) for each in seen]
    cases = tuple(
        Case(
            index=index,
            kinds=kinds,
            feature=features[at],
            target=targets[at],
            views=tuple(
                View(output[at], float(l1[row, index]), float(wrong[row, index])) for row, output in enumerate(outputs)
            ),
            disagreement=float(split[index]),
        )
        for at, (index, kinds) in enumerate(chosen.items())
    )
    pairs = tuple(
        Pair(seen[a], seen[b], float(sums.between[a][b] / sums.pixels))
        for a in range(len(seen))
        for b in range(a + 1, len(seen))
    )
    return Scan(seen, unseen, len(samples), cases, pairs, sums.in_some / sums.pixels, sums.in_all / sums.pixels)


def choose(error: Outputs, split: Outputs, images: int) -> dict[int, tuple[Kind, ...]]:
    """Return the images to show with the reasons, worst first: up to 1/4 contested, 1/8 typical, the others worst."""
    images = min(images, len(error))
    by_error: list[int] = np.argsort(-error, kind="stable").tolist()
    by_split: list[int] = np.argsort(-split, kind="stable").tolist()
    contested = [index for index in by_split[: images // 4] if split[index] > 0]
    middle = len(by_error) // 2
    outward = [by_error[rank] for rank in sorted(range(len(by_error)), key=lambda rank: abs(rank - middle))]
    typical = [index for index in outward if index not in contested][: images // 8]

    worst: list[int] = []
    for index in by_error:
        if len({*contested, *typical, *worst}) >= images:
            break
        worst.append(index)
    reasons: dict[Kind, list[int]] = {"worst": worst, "contested": contested, "typical": typical}
    shown = {*worst, *contested, *typical}
    return {
        index: tuple(kind for kind, those in reasons.items() if index in those) for index in by_error if index in shown
    }


def _predict(run: Run, features: Pixels, targets: Pixels) -> Outputs:
    if run.labels is not None and run.labels.kind == CLASSES:
        raise ModelError("its outputs are scores of classes, of which these pictures cannot show any")
    outputs = np.asarray(run.predict(features), dtype=np.float32)
    if outputs.shape != targets.shape:
        raise ModelError(f"its output is {outputs.shape[1:]} where the labels are {targets.shape[1:]} (C, H, W)")
    return np.nan_to_num(outputs, nan=0.0, posinf=255.0, neginf=0.0)  # a diverged run has wrong pixels, and no failure


def _l1(outputs: Outputs, targets: Pixels) -> Outputs:
    error: Outputs = np.abs(outputs - targets).reshape(len(targets), -1).mean(axis=1)
    return error


def chunks(samples: Any, crop: Size | None) -> Iterator[tuple[Values, npt.NDArray[Any]]]:
    """Yield images and labels in batches; images of different sizes one by one. See :func:`read` for ``crop``."""
    size = crop or (samples.shape and samples.shape[1:])
    step = max(1, _CHUNK // math.prod(size)) if size else 1
    for start in range(0, len(samples), step):
        yield read(samples, range(start, min(start + step, len(samples))), crop)


def read(samples: Any, indices: Sequence[int], crop: Size | None) -> tuple[Values, npt.NDArray[Any]]:
    """Return images and labels (N, C, H, W), or their central parts of the size ``crop``, as validation uses them.

    Raises DatasetError if the dataset has no labels.
    """
    at = np.asarray(indices, np.int64)
    if crop is None:
        features, labels = samples.read(at)
    else:
        images, wholes = samples.pairs(at)
        features, labels = CentreCrop(crop, samples.name)(images, wholes, at)
    if labels is None:
        raise DatasetError(f"{samples.name}: has no labels; these pictures need them")
    return features, labels
