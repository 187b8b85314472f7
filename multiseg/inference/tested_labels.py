"""The labels of a database that a network is tested on: which count, and whether its loss can leave the others out."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

from multiseg.dataset import Dataset
from multiseg.dataset.labels import Labels, given_as
from multiseg.dataset.names import FEATURES
from multiseg.dataset.reading import Split
from multiseg.errors import DatasetError, MultisegWarning
from multiseg.inference.tested import TestedNetwork
from multiseg.layout import Layout
from multiseg.network import CLASSES


@dataclass(frozen=True)
class TestedLabels:
    """What a network's test on a database takes from the labels that the database's dataset states.

    ``ignored`` are the labels that do not count; ``layout`` gives them to the network as one that its loss ignores;
    ``have_loss`` is False if its loss ignores none.
    """

    ignored: list[int]
    layout: Layout
    have_loss: bool = True

    @classmethod
    def of(cls, run: TestedNetwork, split: Split) -> TestedLabels:
        """Return that of a database: of the dataset to which it belongs, or else of the training's."""
        path = split.path
        stated = _stated(path) if path and run.labels is not None and run.labels.kind == CLASSES else None
        if stated is None:
            return cls(list(run.ignored), run.layout)
        _warn_of_other_classes(run, stated, split.name)
        of_loss, own = run.ignored_by_loss, stated.ignore
        return cls(
            sorted({*of_loss, *(() if own is None else (own,))}),
            replace(run.layout, given_as=given_as(of_loss, own)),
            have_loss=own is None or bool(of_loss),
        )


def _stated(path: Path) -> Labels | None:
    """Return what a dataset states of the labels of its database ``path``; None if it is no class, or not of a dataset."""
    if path.name != FEATURES:
        return None
    try:
        labels = Dataset.open(path.parent.parent).labels
    except DatasetError:
        return None
    return labels if labels.kind == CLASSES else None


def _warn_of_other_classes(run: TestedNetwork, stated: Labels, name: str) -> None:
    names = run.labels.names if run.labels is not None else ()
    if names and stated.names and names != stated.names:
        warnings.warn(
            f"{name}: its dataset has the classes {', '.join(stated.names)}, {run.model.name} was trained on "
            f"{', '.join(names)}; labels are compared by their number, and figures have the latter names",
            MultisegWarning,
            stacklevel=4,
        )
