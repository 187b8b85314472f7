"""The named losses of classes. docs/losses.md has their formulas."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from multiseg.errors import ModelError
from multiseg.network import unequal_elements


class ClassLoss(nn.Module):
    """A named loss, as a sum of quotients. ``ignore``: a label that does not count; ``weights``: one per class, or none."""

    of_softmax = True  # whether it compares the scores of a softmax with class indices

    def __init__(self, ignore: int | None = None, weights: Sequence[float] = ()) -> None:
        super().__init__()
        self.ignore = ignore
        self.weights = torch.tensor(weights) if len(weights) else None

    def parts(self, output: Tensor, labels: Tensor) -> list[tuple[Tensor, int]]:
        """Return a numerator and a divisor for each term of the loss; the divisor is 0 if no label counts.

        ``labels`` are float32 (N, 1, H, W) or (N, 1, 1, 1). An exported network may attach the ``scores`` to its output.
        """
        raise NotImplementedError

    def forward(self, output: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, 0 with a gradient of 0 if no label counts."""
        return sum((total / max(count, 1) for total, count in self.parts(output, labels)), start=output.new_zeros(()))

    def _counted(self, labels: Tensor) -> Tensor | None:
        """Return which labels count, bool; None if all do."""
        return None if self.ignore is None else labels != self.ignore

    def _flat(self, output: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return scores (N, C, P), class indices (N, P) with 0 where they do not count, and which count, None if all do.

        The scores keep their order in memory. Raises ModelError if the shapes do not fit, or a label is no class.
        """
        scores = getattr(output, "scores", output)
        positions = scores.shape[2:].numel()
        if labels.shape[1] != 1 or labels[0].numel() != positions:
            raise ModelError(
                f"the loss takes scores (classes, H, W) and labels (1, H, W); the output is {tuple(scores.shape[1:])}, the "
                f"labels are {tuple(labels.shape[1:])}"
            )
        labels = labels.flatten(1)
        counted = self._counted(labels)
        indices = only(labels, counted).long()
        check_classes(indices, scores.shape[1])
        return scores.flatten(2) if scores.ndim > 2 else scores.unsqueeze(2), indices, counted

    def _of_labels(self, values: Tensor, indices: Tensor) -> Tensor:
        """Return the values (N, C, P) of each label's class: (N, P)."""
        return values.gather(1, indices.unsqueeze(1)).squeeze(1)


def only(values: Tensor, counted: Tensor | None) -> Tensor:
    """Return ``values`` with 0 where they do not count."""
    return values if counted is None else torch.where(counted, values, 0)


def number(values: Tensor, counted: Tensor | None) -> int:
    """Return how many of ``values`` count."""
    return values.numel() if counted is None else int(counted.sum())


def check_classes(indices: Tensor, classes: int) -> None:
    """Raise ModelError if a label is no index of a class."""
    low, high = (int(bound) for bound in torch.aminmax(indices))
    if high >= classes:
        raise ModelError(f"a label is class {high}, the output has the classes 0 to {classes - 1}")
    if low < 0:
        raise ModelError(f"a label is class {low}; classes count from 0")


# Number of classes from which PyTorch computes the cross entropy of rows of classes at least as fast as that of a copy in NCHW:
# forward and backward 0.2 to 0.4 times as fast up to 15 classes, 1.0 to 1.5 for 16 and 21, 2 to 3 from 32 on (`python
# benchmarks/lowering.py entropy`).
FEWEST_ROWS = 16
IGNORED = -100  # not a class: what cross_entropy leaves out


def rows_of(scores: Tensor) -> Tensor | None:
    """Return scores (N, C, P) or (N, C, H, W) in NHWC in memory as (N * P, C) without a copy; None if that does not gain."""
    rows = scores.movedim(1, -1)
    if scores.is_contiguous() or not rows.is_contiguous() or scores.shape[1] < FEWEST_ROWS:
        return None
    return rows.flatten(0, -2)


def cross_entropy(scores: Tensor, indices: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the sum of the cross entropies of the softmax of scores (N, C, P) for class indices (N, P) except IGNORED."""
    rows = rows_of(scores)
    flat = (scores.contiguous(), indices) if rows is None else (rows, indices.flatten())
    return functional.cross_entropy(*flat, weights, ignore_index=IGNORED, reduction="sum")


class CrossEntropy(ClassLoss):
    """The weighted cross entropy of the softmax, divided by the number of labels that count."""

    def parts(self, output: Tensor, labels: Tensor) -> list[tuple[Tensor, int]]:
        scores, indices, counted = self._flat(output, labels)
        if counted is not None:
            indices = torch.where(counted, indices, IGNORED)
        weights = None if self.weights is None else self.weights.to(scores)
        return [(cross_entropy(scores, indices, weights), number(indices, counted))]


class Focal(ClassLoss):
    """The focal loss, divided by the number of labels that count."""

    def __init__(self, ignore: int | None = None, weights: Sequence[float] = (), *, gamma: float) -> None:
        super().__init__(ignore, weights)
        self.gamma = gamma

    def parts(self, output: Tensor, labels: Tensor) -> list[tuple[Tensor, int]]:
        scores, indices, counted = self._flat(output, labels)
        surprise = functional.cross_entropy(scores, indices, reduction="none")
        # the lower limit keeps the slope of a power below 1 finite where the probability is rounded to 1
        rest = (1 - self._of_labels(scores.softmax(1), indices)).clamp(min=2.0**-24)
        losses = only(rest**self.gamma * surprise, counted)
        if self.weights is not None:
            losses = losses * self.weights.to(losses)[indices]
        return [(losses.sum(), number(indices, counted))]


class Dice(ClassLoss):
    """The soft Dice loss, mean over images and classes."""

    def __init__(self, ignore: int | None = None, weights: Sequence[float] = (), *, smooth: float) -> None:
        super().__init__(ignore, weights)
        self.smooth = smooth

    def parts(self, output: Tensor, labels: Tensor) -> list[tuple[Tensor, int]]:
        scores, indices, counted = self._flat(output, labels)
        counts = (torch.ones_like(indices) if counted is None else counted).unsqueeze(1).to(scores)
        p = scores.softmax(1) * counts
        hits = torch.zeros_like(p).scatter_(1, indices.unsqueeze(1), counts)
        score = (2 * (p * hits).sum(2) + self.smooth) / (p.sum(2) + hits.sum(2) + self.smooth)
        return [((1 - score).mean(1).sum(), len(scores))]


class CrossEntropyAndDice(Dice):
    """The sum of CrossEntropy and Dice."""

    def parts(self, output: Tensor, labels: Tensor) -> list[tuple[Tensor, int]]:
        return [*CrossEntropy.parts(self, output, labels), *super().parts(output, labels)]  # type: ignore[arg-type]


class BinaryCrossEntropy(ClassLoss):
    """The cross entropy of the sigmoid of one channel; ``label_max`` is the label whose probability is 1."""

    of_softmax = False

    def __init__(self, ignore: int | None = None, weights: Sequence[float] = (), *, label_max: float) -> None:
        super().__init__(ignore, weights)
        self.label_max = label_max

    def parts(self, output: Tensor, labels: Tensor) -> list[tuple[Tensor, int]]:
        scores = getattr(output, "scores", output)
        if scores.numel() != labels.numel():
            raise unequal_elements(scores.shape[1:], labels.shape[1:])
        labels = labels.reshape(scores.shape)
        counted = self._counted(labels)
        targets = only(labels, counted) / self.label_max
        losses = functional.binary_cross_entropy_with_logits(scores, targets, reduction="none")
        return [(only(losses, counted).sum(), number(losses, counted))]
