"""Predict the validation images with runs that score classes of pixels: confusion matrices, worst images, disagreements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from multiseg.dataset.cropping import Size
from multiseg.dataset.labels import Labels
from multiseg.errors import ModelError
from multiseg.images import Values
from multiseg.inference.output import Output
from multiseg.inference.tested import pixel_labels
from multiseg.report.facts import RunFacts
from multiseg.report.scan import CANNOT_SHOW, Kind, Outputs, Pair, choose, chunks, read
from multiseg.run.run import Run
from multiseg.settings.confusion import Confusion, mean

Classes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ClassView:
    """One run's classes (H, W) for one image, with the image's mean IoU and the fraction of its labels that are wrong.

    Both are None without labels that count.
    """

    classes: Classes
    miou: float | None
    wrong: float | None


@dataclass(frozen=True)
class ClassCase:
    """One validation image with the classes of all scanned runs, and why it is shown.

    ``target`` is (H, W). ``disagreement`` is the fraction of its pixels on which the runs disagree.
    """

    index: int
    kinds: tuple[Kind, ...]
    feature: Values
    target: Classes
    views: tuple[ClassView, ...]
    disagreement: float


@dataclass(frozen=True)
class ClassScan:
    """The results over the whole validation set; see :class:`multiseg.report.scan.Scan` for the fields of the same names."""

    seen: tuple[RunFacts, ...]
    unseen: dict[str, str]
    count: int
    cases: tuple[ClassCase, ...]
    pairs: tuple[Pair, ...]
    wrong_in_some: float
    wrong_in_all: float
    labels: Labels
    confusions: tuple[Confusion, ...]
    """One of each scanned run."""

    @property
    def classes(self) -> int:
        """The largest number of classes of a run."""
        return max((each.classes for each in self.confusions), default=0)

    @property
    def occurring(self) -> list[int]:
        """The classes that occur in the pictures: in targets or outputs."""
        maps = [case.target for case in self.cases] + [view.classes for case in self.cases for view in case.views]
        present = np.unique(np.concatenate([np.unique(one) for one in maps])).tolist() if maps else []
        return [index for index in present if index < self.classes]


def has_classes(facts: Sequence[RunFacts]) -> bool:
    """Return whether the first run scores classes of pixels, by which the pictures of a comparison are chosen."""
    run = facts[0].run
    return run.labels is not None and pixel_labels(run, (run.classes or 1, *run.label_shape[1:])) is not None


@dataclass
class _Sums:
    """Per image and run: error (1 - mean IoU) and fraction of wrong labels; per image: disagreement. In total: pixel counts."""

    confusions: list[Confusion | None]
    error: list[list[float]] = field(default_factory=list)
    wrong: list[list[float | None]] = field(default_factory=list)
    split: list[float] = field(default_factory=list)
    pixels: int = 0
    in_some: int = 0
    in_all: int = 0
    between: Any = 0

    def add(
        self, maps: Sequence[Classes], counts: Sequence[int], target: Classes, ignored: Sequence[Sequence[int]]
    ) -> None:
        """Add one image: classes (H, W) of each run, the runs' numbers of classes and ignored labels, and the target (H, W)."""
        errors, wrong_parts, wrong_maps = [], [], []
        for at, (classes, count, ignore) in enumerate(zip(maps, counts, ignored, strict=True)):
            one = Confusion(count, ignore)
            one.add_classes(classes, target)
            total = self.confusions[at] or Confusion(count, ignore)
            total.counts += one.counts
            self.confusions[at] = total
            score, accuracy = mean(one.class_iou), one.accuracy
            errors.append(-1.0 if score is None else 1 - score)  # an image without labels is never among the worst
            wrong_parts.append(None if accuracy is None else 1 - accuracy)
            counted = one.counted(target)[1]
            wrong_maps.append(counted & (classes != target))
        stacked, wrong = np.stack(maps), np.stack(wrong_maps)
        self.error.append(errors)
        self.wrong.append(wrong_parts)
        self.split.append(float((stacked != stacked[0]).any(axis=0).mean()))
        self.pixels += target.size
        self.in_some += int(wrong.any(axis=0).sum())
        self.in_all += int(wrong.all(axis=0).sum())
        self.between = self.between + np.array([[(a != b).sum() for b in stacked] for a in stacked])


def class_scan(facts: Sequence[RunFacts], images: int) -> ClassScan:
    """Predict the first run's validation images with every run, and select ``images`` of them, those of the lowest mean IoU.

    A run whose framework is not installed, whose network does not accept the images, or that does not score classes of pixels,
    is left out with the error message. Raises DatasetError if the dataset cannot be read.
    """
    samples, crop = facts[0].run.dataset.val, facts[0].run.val_crop
    labels = facts[0].run.labels
    assert labels is not None
    unseen: dict[str, str] = {}
    for each in facts:
        if not has_classes([each]):
            unseen[each.label] = f"its outputs are not classes of pixels, those of {facts[0].label} are"
    while True:
        seen = tuple(each for each in facts if each.label not in unseen)
        try:
            sums = _summed(samples, crop, seen)
            break
        except _CannotPredict as failure:  # start again without this run
            unseen[failure.run.label] = str(failure)
    if not seen or not sums.pixels:
        return ClassScan((), unseen, len(samples), (), (), 0, 0, labels, ())

    error: Outputs = np.array(sums.error, np.float32).T
    split: Outputs = np.array(sums.split, np.float32)
    chosen = choose(error.mean(axis=0), split if len(seen) > 1 else np.zeros_like(split), images)
    cases = []
    for index, kinds in chosen.items():
        features, targets = read(samples, [index], crop)
        views = []
        for at, each in enumerate(seen):
            classes, _ = _predict(each.run, features, targets)
            score = sums.error[index][at]
            views.append(ClassView(classes[0], None if score < 0 else 1 - score, sums.wrong[index][at]))
        cases.append(ClassCase(index, kinds, features[0], targets[0, 0], tuple(views), sums.split[index]))
    pairs = tuple(
        Pair(seen[a], seen[b], float(sums.between[a][b] / sums.pixels))
        for a in range(len(seen))
        for b in range(a + 1, len(seen))
    )
    confusions = tuple(one for one in sums.confusions if one is not None)
    return ClassScan(
        seen, unseen, len(samples), tuple(cases), pairs, sums.in_some / sums.pixels, sums.in_all / sums.pixels, labels,
        confusions,
    )  # fmt: skip


class _CannotPredict(Exception):
    """A run cannot predict an image, for the reason in the message."""

    def __init__(self, run: RunFacts, reason: object) -> None:
        super().__init__(str(reason))
        self.run = run


def _summed(samples: Any, crop: Size | None, facts: Sequence[RunFacts]) -> _Sums:
    """Return the sums over all images. Raises _CannotPredict."""
    sums = _Sums([None] * len(facts))
    ignored = [each.run.ignored for each in facts]
    for features, targets in chunks(samples, crop) if facts else ():
        predicted = []
        for each in facts:
            try:
                predicted.append(_predict(each.run, features, targets))
            except CANNOT_SHOW as error:
                raise _CannotPredict(each, error) from error
        for at in range(len(targets)):
            maps = [classes[at] for classes, _ in predicted]
            sums.add(maps, [count for _, count in predicted], targets[at, 0], ignored)
    return sums


def minority(maps: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Return for every pixel how many of the runs (runs, H, W) are not of the class that most of them have, (H, W)."""
    votes = np.max([(maps == one).sum(axis=0) for one in maps], axis=0)
    others: npt.NDArray[np.int64] = len(maps) - votes
    return others


def _predict(run: Run, features: Values, targets: npt.NDArray[Any]) -> tuple[Classes, int]:
    """Return the classes (N, H, W) of images (N, C, H, W), and the number of classes of the network."""
    outputs = run.predict(features)
    if outputs.shape[2:] != targets.shape[2:] or targets.shape[1] != 1:
        raise ModelError(f"its output is {outputs.shape[1:]} where the labels are {targets.shape[1:]} (C, H, W)")
    labels = pixel_labels(run, outputs.shape[1:])
    results = [
        Output(output, feature, labels=labels, foreground=run.foreground)
        for output, feature in zip(outputs, features, strict=True)
    ]
    return np.stack([result.classes for result in results]), max(2, outputs.shape[1])
