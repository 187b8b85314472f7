"""What the labels of a dataset or a run are: images, or class indices for each pixel or each image."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from multiseg.dataset.foreground import DARK, SIDES, UNKNOWN, Foreground
from multiseg.dataset.label_tables import Colour
from multiseg.errors import DatasetError
from multiseg.network import CLASSES, IMAGES, LabelKind, label_kind
from multiseg.schema import NUMBER, TEXT, WHOLE, Kind, Schema, list_of, optional, or_none, problem
from multiseg.topology.description import Description

KINDS: tuple[LabelKind, ...] = get_args(LabelKind)
_BYTE = Kind("0 to 255", lambda value: WHOLE.valid(value) and 0 <= value <= 255)
_VALUES: Schema = {  # of the entry `labels` in dataset.json and job.json
    "names": optional(list_of(TEXT, "a list of texts")),
    "colours": optional(
        list_of(list_of(_BYTE, "three numbers", 3), "a list of three numbers of 0 to 255 for each class")
    ),
    "ignore": optional(or_none(WHOLE)),
    "foreground": optional(
        or_none(Kind(f"one of {', '.join(SIDES)}", lambda value: isinstance(value, str) and value in SIDES))
    ),
    "threshold": optional(NUMBER),
}


@dataclass(frozen=True)
class Labels:
    """What the labels of a dataset or of a run are. ``kind`` is ``images`` or ``classes``.

    ``images`` are values to compare with a network's output; of one channel, a network may read them as class indices
    (:func:`multiseg.network.label_kind`). ``classes`` are class indices from 0, with

    - ``names``: of the classes in order; ``colours``: their (R, G, B), 0 to 255; both empty if they are not known;
    - ``ignore``: the label of pixels that count in no loss and no metric; None if there is none.

    ``foreground`` is the side of binary masks that metrics count as the object: ``dark`` labels are below its threshold. It is
    not ``known`` for images that are probably class numbers.
    """

    kind: LabelKind = IMAGES
    names: tuple[str, ...] = ()
    colours: tuple[Colour, ...] = ()
    ignore: int | None = None
    foreground: Foreground = DARK

    def to_json(self) -> dict[str, Any]:
        """Return the plain dict that dataset.json and job.json hold; what is not known is left out."""
        plain: dict[str, Any] = {"kind": self.kind}
        if self.names:
            plain["names"] = list(self.names)
        if self.colours:
            plain["colours"] = [list(colour) for colour in self.colours]
        if self.ignore is not None:
            plain["ignore"] = self.ignore
        if not self.foreground.known:
            plain |= {"foreground": None} if self.kind == IMAGES else {}
        elif self.foreground != DARK:
            plain |= {"foreground": self.foreground.side, "threshold": self.foreground.threshold}
        return plain

    @classmethod
    def from_json(cls, values: Any, where: str) -> Labels:
        """Return the inverse of :meth:`to_json`. Raises DatasetError naming the file ``where`` for a kind that is unknown."""
        kind = values.get("kind") if isinstance(values, Mapping) else None
        if kind not in KINDS:
            raise DatasetError(
                f"{where}: labels are of the kind {kind!r}; this multiseg knows {', '.join(KINDS)}: update it"
            )
        difference = problem(values, _VALUES)
        if difference is not None:
            raise DatasetError(f"{where}: its entry 'labels' is invalid: {difference}")
        side = values.get("foreground", DARK.side)
        return cls(
            kind,
            names=tuple(values.get("names", ())),
            colours=tuple((r, g, b) for r, g, b in values.get("colours", ())),
            ignore=values.get("ignore"),
            foreground=UNKNOWN if side is None else Foreground(side, float(values.get("threshold", DARK.threshold))),
        )


def read_as_classes(network: Description, label_shape: Sequence[int] | None = None, stated: LabelKind = IMAGES) -> bool:
    """Return whether a described network takes class indices as labels.

    With the shape (C, H, W) of the labels it is decided as for training (:func:`multiseg.network.label_kind`). Without it the
    network's own loss decides; a network whose output is a vector scores classes.
    """
    output = network.shapes[network.outputs[0]]
    if label_shape is not None:
        return label_kind(stated, label_shape, output) == CLASSES
    return network.loss_labels == CLASSES or len(output) == 1


def are_colours(label_shape: Sequence[int] | None) -> bool:
    """Return whether labels of this shape (C, H, W) are images of three colours, whose order differs between frameworks."""
    return label_shape is not None and label_shape[0] == 3


def ignored(network: Mapping[str, Any], labels: Labels | None) -> list[int]:
    """Return the labels that count in no loss and no metric, of a network that describes itself as ``network``."""
    values = set(network.get("ignored") or ())
    if labels is not None and labels.ignore is not None:
        values.add(labels.ignore)
    return sorted(values)


def given_as(ignored_by_loss: Collection[int], ignore: int | None) -> dict[int, int]:
    """Return the labels that a network receives as others: ``ignore``, as one that its loss ignores, unless it ignores that."""
    return {} if ignore is None or not ignored_by_loss or ignore in ignored_by_loss else {ignore: min(ignored_by_loss)}
