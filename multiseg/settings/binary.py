"""Binary masks in a training: the foreground of its labels and outputs, and whether its loss can take the labels."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from multiseg.dataset import Dataset
from multiseg.dataset.foreground import Foreground
from multiseg.dataset.labels import Labels, ignored
from multiseg.errors import SettingsError, setting
from multiseg.network import CLASSES, IMAGES

_MOST_MAPPED = 8  # entries of a label map in advice


def foreground_of_outputs(labels: Labels, threshold: float, network: Mapping[str, Any]) -> Foreground:
    """Return the foreground of a training's labels and outputs.

    ``threshold`` is the job's, ``network`` the network's description of itself: if its outputs are logits, of which the loss
    computes the sigmoid, the output of the same probability p is log(p / (1 - p)), 0 for 0.5. p is the threshold divided by the
    largest label that the loss takes, 1 if that is unknown; one half if the threshold is beyond that.
    """
    stated = labels.foreground
    # a job's own threshold states the foreground, too
    foreground = replace(stated, threshold=threshold, known=stated.known or threshold != stated.threshold)
    if network.get("logits"):
        probability = threshold / network.get("label_range", (0, 1))[1]
        logit = math.log(probability / (1 - probability)) if 0 < probability < 1 else 0.0
        foreground = replace(foreground, output_threshold=logit)
    return foreground


def label_bounds(dataset: Dataset, left_out: Collection[int] = ()) -> tuple[float, float] | None:
    """Return the smallest and the largest value of a dataset's labels but those ``left_out``; None if there are none.

    They are those of dataset.json, or, of datasets that it does not describe, of all records.
    """
    stored = _label_values(dataset)
    values: list[float] = []
    if stored is not None:
        values = [float(value) for value in stored - set(left_out)]
    else:
        for split in (dataset.train, dataset.val):
            for index in range(len(split)):
                label = split[index][1]
                counted = np.empty(0) if label is None else label[~np.isin(label, list(left_out))]
                values += [float(counted.min()), float(counted.max())] if counted.size else []
    return (min(values), max(values)) if values else None


def check_labels(model: str, dataset: Dataset, network: Mapping[str, Any], requested: int | None = None) -> None:
    """Raise SettingsError if the loss of a network cannot take the labels of a dataset, or ignores another label than it states.

    ``network`` is its description of itself: ``label_range`` are the smallest and the largest label that its loss takes, and
    ``ignored`` the labels that do not count; ``requested`` is the one that the job states.
    """
    labels, of_loss = dataset.labels, network.get("ignored", ())
    left_out = (
        ignored(network, labels) if of_loss else []
    )  # a loss that ignores one label receives the dataset's as that
    if network.get("labels") == IMAGES and network.get("label_range"):
        low, high = network["label_range"]
        found = label_bounds(dataset, left_out)
        if found is not None and not (low <= found[0] and found[1] <= high):
            raise SettingsError(
                f"{model}: its loss takes labels of {low:g} to {high:g}; those of {dataset.path} are {found[0]:g} to "
                f"{found[1]:g}: {_map_advice(dataset, left_out, found, high)}use another loss"
            )
    as_numbers = labels.kind == CLASSES and network.get("labels") == IMAGES
    if as_numbers and labels.ignore not in left_out and _occurs(dataset, labels.ignore):
        raise SettingsError(
            f"{model}: its output of one channel is compared with the labels as numbers, and cannot leave out the label "
            f"{labels.ignore}, which {dataset.path} ignores; end the network in a score for each class"
        )
    others = [value for value in of_loss if value not in (labels.ignore, requested)]
    if labels.kind == CLASSES and network.get("labels") == CLASSES and labels.names and others:
        stated = "none" if labels.ignore is None else labels.ignore
        raise SettingsError(
            f"{model}: its loss ignores the label {others[0]}, the dataset {dataset.path} states {stated}; state the same "
            f"in both: create the dataset with {setting('ignore', others[0])}, or correct the network file"
        )


def _map_advice(dataset: Dataset, left_out: Collection[int], found: tuple[float, float], high: float) -> str:
    """Return the advice of a label map for labels larger than ``high``, empty if they are too many to be those of masks.

    A value that is the label of another one is in the map, too, because it is an error otherwise.
    """
    stored = _label_values(dataset)
    values = set(found) if stored is None else stored - set(left_out)
    larger = sorted((value for value in values if value > high), reverse=True)
    if not larger or len(larger) > _MOST_MAPPED:
        return ""
    kept = [high] if high in values else []
    entries = ",".join(f"{value:g}:{high:g}" for value in larger + kept)
    return f"create the dataset with {setting('label_map', entries)}, or "


def _occurs(dataset: Dataset, value: int | None) -> bool:
    """Return whether dataset.json states that a label occurs."""
    return value in (_label_values(dataset) or ())


def _label_values(dataset: Dataset) -> set[int] | None:
    """Return the values of all labels according to dataset.json; None if it does not hold them."""
    counts = [dataset.label_counts(split) for split in ("train", "val")]
    return None if None in counts else {value for one in counts for value in one or ()}
