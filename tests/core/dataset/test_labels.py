"""Label kinds: how they are decided, and where a dataset keeps them."""

from __future__ import annotations

import json
from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image

import multiseg
from multiseg.dataset.foreground import BINARY, DARK, UNKNOWN, Foreground
from multiseg.dataset.labels import Labels
from multiseg.dataset.records import Datum
from multiseg.errors import DatasetError
from multiseg.network import LabelKind, NetworkSpec, label_kind


@pytest.mark.parametrize(
    ("stated", "label_shape", "output", "expected"),
    [
        ("images", (1, 8, 8), (1, 8, 8), "images"),
        ("images", (3, 8, 8), (3, 8, 8), "images"),
        ("images", (1, 8, 8), (5, 8, 8), "classes"),  # grey masks, a score for each of five classes
        ("images", (1, 1, 1), (10,), "classes"),
        ("images", (1, 1, 1), (10, 1, 1), "classes"),
        ("images", (1, 1, 1), (1,), "images"),  # a number for each image
        ("images", (3, 8, 8), (5, 8, 8), "images"),  # does not fit, but is not a class index either
        ("classes", (1, 8, 8), (5, 8, 8), "classes"),
        ("classes", (1, 1, 1), (10,), "classes"),
        ("classes", (1, 1, 1), (1, 1, 1), "images"),  # a number, compared with the class index
    ],
)
def test_how_a_network_reads_labels(
    stated: LabelKind, label_shape: tuple[int, ...], output: tuple[int, ...], expected: str
) -> None:
    assert label_kind(stated, label_shape, output) == expected


def spec(label_shape: tuple[int, int, int], loss: str | None = None) -> NetworkSpec:
    return NetworkSpec("net", (1, 8, 8), label_shape, None, loss, None, None, 1, 1, "cpu", False)


@pytest.mark.parametrize(
    ("label_shape", "loss", "output", "fits"),
    [
        ((1, 8, 8), None, (1, 8, 8), True),
        ((1, 8, 8), None, (5, 8, 8), True),
        ((1, 8, 8), "l2", (5, 8, 8), False),  # a named loss compares element by element
        ((1, 8, 8), None, (5, 4, 4), False),
        ((1, 8, 8), None, (5,), False),
        ((3, 8, 8), None, (5, 8, 8), False),
        ((1, 1, 1), None, (5,), True),
    ],
)
def test_which_labels_fit_an_output(
    label_shape: tuple[int, int, int], loss: str | None, output: tuple[int, ...], fits: bool
) -> None:
    assert spec(label_shape, loss).fits(output) == fits


def test_a_specification_keeps_the_kind_through_json() -> None:
    values = json.loads(json.dumps(spec((1, 8, 8)).to_json()))
    assert NetworkSpec.from_json({**values, "labels": "classes"}).labels == "classes"
    del values["labels"]
    assert NetworkSpec.from_json(values).labels == "images"


def create(folder: Path) -> multiseg.Dataset:
    for name in ("input", "target"):
        (folder / name).mkdir(parents=True)
        for number in range(3):
            Image.fromarray(np.full((8, 8), number, np.uint8)).save(folder / name / f"{number}.png")
    return multiseg.Dataset.create(
        folder / "dataset", input=folder / "input", target=folder / "target", val_percent=0, seed=1
    )


@pytest.mark.filterwarnings("ignore::multiseg.errors.MultisegWarning")
def test_a_dataset_states_the_kind_of_its_labels(tmp_path: Path) -> None:
    dataset = create(tmp_path)
    path = dataset.path / "dataset.json"
    content = json.loads(path.read_text())
    assert (dataset.labels, content["labels"]) == (
        Labels("images", foreground=UNKNOWN),
        {"kind": "images", "foreground": None},
    )
    path.write_text(json.dumps({**content, "labels": {"kind": "classes"}}))
    assert multiseg.Dataset.open(dataset.path).labels.kind == "classes"
    path.write_text(json.dumps({key: value for key, value in content.items() if key != "labels"}))
    assert multiseg.Dataset.open(dataset.path).labels.kind == "images"  # created before it was stated
    for labels in ({"kind": "boxes"}, None, "images"):
        path.write_text(json.dumps({**content, "labels": labels}))
        with pytest.raises(DatasetError, match=r"dataset.json: labels are of the kind .*knows images, classes: update"):
            _ = multiseg.Dataset.open(dataset.path).labels


@pytest.mark.parametrize("labelled", [True, False])
def test_class_indices_in_digits_records_are_classes(labelled: bool, tmp_path: Path) -> None:
    path = tmp_path / "train_db" / "features"
    path.mkdir(parents=True)
    with lmdb.open(str(path), map_size=1 << 20) as environment, environment.begin(write=True) as written:
        for number in range(2):
            datum = Datum(channels=1, height=4, width=4, data=bytes(16), encoded=False)
            if labelled:
                datum.label = number
            written.put(f"{number:08}".encode(), datum.SerializeToString())
    dataset = multiseg.Dataset.open(tmp_path)
    assert dataset.labels.kind == ("classes" if labelled else "images")
    assert dataset.train.label_shape == ((1, 1, 1) if labelled else None)


@pytest.mark.parametrize(
    ("values", "expected"),
    [((0, 255), DARK), ((0, 1), BINARY), ((0, 7), UNKNOWN), ((0, 1, 2), UNKNOWN), ((0, 0), DARK), ((3, 200), DARK)],
)
def test_the_foreground_of_a_dataset_that_does_not_state_it(
    values: tuple[int, ...], expected: Foreground, tmp_path: Path
) -> None:
    """As in DIGITS' job folders and datasets of before."""
    for kind in ("input", "target"):
        (tmp_path / kind).mkdir()
        for number in range(4):
            mask = np.full((8, 8), values[0], np.uint8)
            mask[2:5, 3:6] = values[1 + number % (len(values) - 1)]
            Image.fromarray(mask).save(tmp_path / kind / f"{number}.png")
    stated = values[1] if values[0] < values[1] and len(values) == 2 else None
    multiseg.Dataset.create(
        tmp_path / "dataset", input=tmp_path / "input", target=tmp_path / "target", foreground=stated, val_percent=25
    )
    (tmp_path / "dataset" / "dataset.json").unlink()
    assert multiseg.Dataset.open(tmp_path / "dataset").labels.foreground == expected
