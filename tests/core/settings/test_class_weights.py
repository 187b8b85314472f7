"""Class weights, and the labels that losses take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.class_masks import class_masks
from multiseg.dataset import Dataset
from multiseg.errors import MultisegWarning, SettingsError
from multiseg.job.job import Job
from multiseg.settings.class_weights import balanced, label_max, median_frequency


def test_weights_by_hand() -> None:
    """Three images, four classes of which the last has no pixels."""
    counts = np.array([[6, 2, 0, 0], [4, 0, 4, 0], [8, 0, 0, 0]])
    np.testing.assert_allclose(balanced(counts), [24 / (3 * 18), 24 / (3 * 2), 24 / (3 * 4), 1])
    frequency = np.array([18 / 24, 2 / 8, 4 / 8])
    np.testing.assert_allclose(median_frequency(counts), [*(0.5 / frequency), 1])
    assert (balanced(counts) * counts.sum(0)).sum() == pytest.approx(24)  # the mean weight of a label is 1


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Dataset]:
    return {count: class_masks(tmp_path_factory.mktemp("masks"), classes=count) for count in (2, 3)}


def test_weights_of_a_dataset_are_those_of_its_training_labels(fourth: str, datasets: dict[int, Dataset]) -> None:
    data = datasets[3]
    labels = [data.train.label(index) for index in range(len(data.train))]
    counts = np.array([[(label == number).sum() for number in range(3)] for label in labels])
    for name, expected in (("balanced", balanced(counts)), ("median_frequency", median_frequency(counts))):
        settings = Job(dataset=data, backend=fourth, loss="focal", class_weights=name).resolve(data)
        assert settings.class_weights == tuple(expected.tolist())
    settings = Job(dataset=data, backend=fourth, loss="focal", class_weights=[1, 0, 2.5]).resolve(data)
    assert settings.class_weights == (1.0, 0.0, 2.5)


@pytest.mark.parametrize(
    ("classes", "settings", "message"),
    [
        (3, {"class_weights": [1, 2]}, r"class_weights=\[1, 2\]: are 2 numbers, and .*dataset has 3 classes; specify"),
        (3, {"class_weights": [1, 2, -1]}, r"class_weights=\[1, 2, -1\]: must be numbers from 0, one for each class"),
        (3, {"class_weights": [0, 0, 0]}, r"class_weights=\[0, 0, 0\]: one of them must be above 0"),
        (3, {"class_weights": "some"}, "class_weights='some': choose balanced or median_frequency, or a number for each class"),
        (3, {"class_weights": "balanced", "loss": "dice"}, "class_weights='balanced': the loss 'dice' has none; choose loss"),
        (3, {"class_weights": "balanced", "loss": None}, "the network file's own loss keeps its own weights; choose loss"),
        (3, {"loss": "binary_cross_entropy"}, "loss='binary_cross_entropy': is for two classes, and .*dataset has 3; choose"),
        (3, {"loss": "focal", "loss_options": {"gamma": -1}}, "loss_options gamma=-1: must be a number above 0"),
        (0, {"loss": "dice"}, "loss='dice': takes class indices, and the labels of .* are images; create the dataset"),
        (0, {"class_weights": "balanced"}, "loss='cross_entropy': takes class indices, and the labels .*, or choose one of l1"),
    ],
)  # fmt: skip
def test_what_cannot_be(
    fourth: str, dataset: Dataset, datasets: dict[int, Dataset], classes: int, settings: dict[str, Any], message: str
) -> None:
    data = datasets[classes] if classes else dataset
    with pytest.raises(SettingsError, match=message) as raised:
        Job(dataset=data, backend=fourth, **{"loss": "cross_entropy", **settings}).resolve(data)
    assert "\n" not in str(raised.value)


def test_the_label_of_probability_1_is_the_datasets(
    fourth: str, dataset: Dataset, datasets: dict[int, Dataset]
) -> None:
    assert (label_max(dataset), label_max(datasets[2])) == (255, 1)
    job = Job(dataset=dataset, backend=fourth, loss="binary_cross_entropy")
    assert job.resolve(dataset).loss_options == {"label_max": 255}
    job = Job(dataset=dataset, backend=fourth, loss="binary_cross_entropy", loss_options={"label_max": 200})
    assert job.resolve(dataset).loss_options == {"label_max": 200}


def test_the_label_of_probability_1_is_one_that_counts(fourth: str, tmp_path: Path) -> None:
    """Masks of 0 and 1 with ignored borders of 255, the first of which have no foreground."""
    for kind in ("input", "target"):
        (tmp_path / kind).mkdir()
        for number in range(4):
            mask = np.zeros((8, 8), np.uint8)
            mask[2:5] = number // 2
            mask[0] = 255
            Image.fromarray(mask).save(tmp_path / kind / f"{number}.png")
    with pytest.warns(MultisegWarning, match="class numbers"):
        data = Dataset.create(
            tmp_path / "dataset", input=tmp_path / "input", target=tmp_path / "target", val_percent=0, seed=1
        )
    (tmp_path / "dataset" / "dataset.json").unlink()  # as DIGITS leaves it
    data = Dataset.open(tmp_path / "dataset")
    assert label_max(data, {255}) == 1 and label_max(data) == 255
    job = Job(dataset=data, backend=fourth, loss="binary_cross_entropy", ignore_index=255)
    assert job.resolve(data).loss_options == {"label_max": 1}


def test_lists_of_weights_in_a_file_of_jobs(tmp_path: Path) -> None:
    from multiseg.jobs.file import read_jobs

    def weights(text: str) -> list[Any]:
        path = tmp_path / "jobs.toml"
        path.write_text(f'[[job]]\ndataset = "d"\nloss = "focal"\nclass_weights = {text}\n')
        return [job.class_weights for job in read_jobs(path).jobs.values()]

    assert weights("[1, 2, 3]") == [[1, 2, 3]]
    assert weights('["balanced", [1, 2, 3]]') == ["balanced", [1, 2, 3]]
