"""Binary masks: what is foreground, against hand calculations, and labels that a loss cannot take."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import multiseg
from multiseg.dataset.foreground import BINARY, DARK, UNKNOWN, Foreground
from multiseg.dataset.labels import Labels
from multiseg.errors import SettingsError
from multiseg.settings.binary import check_labels, foreground_of_outputs, label_bounds
from multiseg.settings.metrics import ImageSums


def test_metrics_of_either_side() -> None:
    """Of four pixels two are the object, of which the network finds one, and one that is none."""
    labels = np.array([1, 1, 0, 0], np.float32).reshape(1, 1, 2, 2)
    output = np.array([2.0, -3.0, 0.5, -1.0], np.float32).reshape(1, 1, 2, 2)  # logits
    sums = ImageSums(Foreground("light", 0.5, output_threshold=0))
    sums.add(output, labels)
    scores = sums.scores()
    assert (scores["iou"], scores["dice"], scores["pixel_accuracy"]) == (1 / 3, 2 / 4, 2 / 4)
    assert (scores["l1"], scores["l2"]) == (None, None)  # differences of logits and labels have no meaning
    sums = ImageSums(Foreground("dark", 0.5, output_threshold=0))
    sums.add(output, labels)
    assert sums.scores()["iou"] == 1 / 3
    sums = ImageSums(100)
    sums.add(np.array([99.0, 100]).reshape(1, 1, 1, 2), np.array([99.0, 100]).reshape(1, 1, 1, 2))
    assert sums.scores()["iou"] == 1 and (sums.predicted, sums.true) == (1, 1)


@pytest.mark.parametrize(
    ("labels", "threshold", "network", "expected"),
    [
        (Labels(), 128, {}, DARK),
        (Labels(), 100, {"logits": False}, Foreground("dark", 100)),
        (Labels(foreground=BINARY), 0.5, {"logits": True}, Foreground("light", 0.5, 0.0)),
        (Labels(foreground=BINARY), 0.75, {"logits": True}, Foreground("light", 0.75, math.log(3))),
        (Labels(foreground=BINARY), 0.5, {"label_range": [0, 1]}, BINARY),
        (Labels(), 128, {"logits": True}, Foreground("dark", 128, 0.0)),  # the loss maps the labels to 0 and 1 itself
        # the probability of the label 51 of 0 to 255 is 0.2
        (Labels(), 51, {"logits": True, "label_range": [0, 255]}, Foreground("dark", 51, math.log(0.2 / 0.8))),
        (Labels(foreground=UNKNOWN), 128, {}, UNKNOWN),
        (Labels(foreground=UNKNOWN), 1.5, {}, Foreground("dark", 1.5)),
    ],
)
def test_the_foreground_of_outputs(
    labels: Labels, threshold: float, network: dict[str, Any], expected: Foreground
) -> None:
    found = foreground_of_outputs(labels, threshold, network)
    assert (found.side, found.threshold) == (expected.side, expected.threshold)
    assert found.output_threshold == pytest.approx(expected.output_threshold)


def test_metrics_of_an_unknown_foreground_are_not_defined() -> None:
    sums = ImageSums(UNKNOWN)
    sums.add(np.array([0.0, 3]).reshape(1, 1, 1, 2), np.array([0, 1]).reshape(1, 1, 1, 2))
    assert sums.scores() == {"l1": 1, "l2": 2, "pixel_accuracy": None, "iou": None, "dice": None}


def dataset(root: Path, values: list[int], **options: Any) -> multiseg.Dataset:
    for name in ("input", "target"):
        (root / name).mkdir(parents=True)
    for number in range(4):
        pixels = np.resize(np.array(values, np.uint8), (4, 4))
        Image.fromarray(np.roll(pixels, number)).save(root / "target" / f"{number}.png")
        Image.fromarray(pixels * 50).save(root / "input" / f"{number}.png")
    return multiseg.Dataset.create(
        root / "out", input=root / "input", target=root / "target", seed=1, val_percent=50, **options
    )


def test_the_bounds_of_labels(tmp_path: Path) -> None:
    created = dataset(tmp_path, [0, 1, 2, 255], labels="classes")
    assert label_bounds(created) == (0, 255) and label_bounds(created, [255]) == (0, 2)
    (created.path / "dataset.json").unlink()  # as in a DIGITS folder
    opened = multiseg.Dataset.open(created.path)
    assert label_bounds(opened) == (0, 255) and label_bounds(opened, [255]) == (0, 2)


@pytest.mark.parametrize(
    ("values", "options", "network", "message"),
    [
        ([0, 255], {}, {"labels": "images", "label_range": [0, 1]}, "takes labels of 0 to 1; .* 0 to 255: .*label_map='255:1'"),
        ([0, 1, 255], {"labels": "classes"}, {"labels": "images"}, "cannot leave out the label 255"),
        ([0, 1, 2], {"labels": "classes", "ignore": 11, "classes": ["a", "b", "c"]}, {"labels": "classes", "ignored": [255]},
         "ignores the label 255, the dataset .* states 11; state the same in both"),
        ([0, 1, 2], {"labels": "classes", "ignore": None}, {"labels": "classes", "ignored": [255]}, "states none"),
    ],
)  # fmt: skip
def test_labels_that_a_loss_cannot_take(
    tmp_path: Path, values: list[int], options: dict[str, Any], network: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=rf"^net\.py: .*{message}"):
        check_labels("net.py", dataset(tmp_path, values, **options), network)


@pytest.mark.filterwarnings("ignore::multiseg.errors.MultisegWarning")
@pytest.mark.parametrize("values", [[0, 1, 2], [0, 1, 2, 3], [0, 2, 5], [0, 128, 255]])
def test_the_advised_label_map_works(tmp_path: Path, values: list[int]) -> None:
    network = {"labels": "images", "label_range": [0, 1]}
    with pytest.raises(SettingsError, match="create the dataset with label_map=") as caught:
        check_labels("net.py", dataset(tmp_path / "first", values), network)
    advice = str(caught.value).split("label_map='")[1].split("'")[0]
    mapped = dataset(tmp_path / "second", values, label_map=advice)
    check_labels("net.py", mapped, network)
    assert label_bounds(mapped) == (0, 1) and mapped.labels.foreground == BINARY


def test_no_label_map_is_advised_for_grey(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="are 0 to 240: use another loss"):
        check_labels("net.py", dataset(tmp_path, [*range(0, 255, 16)]), {"labels": "images", "label_range": [0, 1]})


@pytest.mark.parametrize(
    ("values", "options", "network"),
    [
        ([0, 1], {}, {"labels": "images", "label_range": [0, 1], "ignored": []}),
        ([0, 1, 255], {"labels": "classes"}, {"labels": "images", "label_range": [0, 1], "ignored": [255]}),
        ([0, 1, 2], {"labels": "classes"}, {"labels": "classes", "ignored": [255]}),
        ([0, 1, 2], {}, {"labels": "classes", "ignored": [255]}),
        ([0, 255], {}, {"labels": "images"}),
    ],
)
@pytest.mark.filterwarnings("ignore::multiseg.errors.MultisegWarning")
def test_labels_that_a_loss_takes(
    tmp_path: Path, values: list[int], options: dict[str, Any], network: dict[str, Any]
) -> None:
    check_labels("net.py", dataset(tmp_path, values, **options), network)
