"""Networks that are chosen by name train on every backend, with as many outputs as the dataset has classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import multiseg
from multiseg import Dataset, Job
from multiseg.errors import ModelError, SettingsError
from multiseg.model_files import shipped
from multiseg.topology.geometry import Geometry

HEIGHT, WIDTH, COUNT = 19, 37, 3  # odd at every level of the U-Net
COLOURS = np.array([(40, 40, 40), (220, 60, 60), (60, 220, 60)])


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Two blocks of colour on grey; the label is the class of the colour."""
    folder, draw = tmp_path_factory.mktemp("scenes"), np.random.default_rng(1)
    for name in ("input", "target"):
        (folder / name).mkdir()
    for number in range(9):
        label = np.zeros((HEIGHT, WIDTH), np.uint8)
        for value in (1, 2):
            y, x = draw.integers(0, HEIGHT - 8), draw.integers(0, WIDTH - 12)
            label[y : y + 8, x : x + 12] = value
        picture = COLOURS[label] + draw.integers(-30, 30, (HEIGHT, WIDTH, 3))
        Image.fromarray(picture.astype(np.uint8)).save(folder / "input" / f"{number}.png")
        Image.fromarray(label).save(folder / "target" / f"{number}.png")
    return Dataset.create(
        folder / "dataset", input=folder / "input", target=folder / "target", val_percent=12, seed=1,
        labels="classes", classes=["grey", "red", "green"], ignore=None,
    )  # fmt: skip


def job(dataset: Dataset, backend: str, **more: object) -> Job:
    return Job(
        dataset=dataset, backend=backend, model="unet", solver="adam", learning_rate=2e-3, batch_size=4, threads=1, seed=1,
        lr_policy="fixed", **more
    )  # type: ignore[arg-type] # fmt: skip


def test_the_unet_trains_by_name_and_resumes(backend: str, scenes: Dataset, tmp_path: Path) -> None:
    with job(scenes, backend, epochs=12).train(tmp_path / "run", progress=False) as run:
        rows = run.history
        assert rows[-1]["train_loss"] < 0.75 * rows[1]["train_loss"]
        assert rows[-1]["val_loss"] is not None
        assert rows[-1]["miou"] is not None
        assert run.topology.shapes[run.topology.outputs[0]] == (COUNT, HEIGHT, WIDTH)
        assert f"{COUNT}  # number of classes" in run.model.read_text().replace("CLASSES = ", "")
    assert json.loads((tmp_path / "run" / "job.json").read_text())["model_path"] == "unet"
    with job(scenes, backend, epochs=12).train(tmp_path / "run", resume=True, progress=False) as run:
        assert run.history[-1]["epoch"] == 12
    with Job(
        dataset=scenes, backend=backend, solver="adam", learning_rate=2e-3, epochs=12, threads=1, lr_policy="fixed"
    ).train(tmp_path / "run", resume=True, progress=False) as run:
        assert run.model.name.startswith("unet")


def test_the_unet_takes_any_size_whole_and_in_tiles(backend: str, scenes: Dataset, tmp_path: Path) -> None:
    """Tiles give the scores of the whole image, and padding changes nothing, at sizes that are no multiples of its strides."""
    image = tmp_path / "image.png"
    values = np.random.default_rng(0).integers(0, 256, (230, 301, 3), dtype=np.uint8)
    Image.fromarray(values).save(image)
    with job(scenes, backend, epochs=1).train(tmp_path / "run", progress=False) as run:
        whole = run.test_one(image, resize=False).array
        assert whole.shape == (COUNT, 230, 301)
        assert np.array_equal(run.test_one(image, resize=False, pad=True).array, whole)
        for side in (208, 256):
            assert np.abs(run.test_one(image, resize=False, tile=side).array - whole).max() < 1e-4


@pytest.mark.needs("caffe", "tensorflow", "torch")
@pytest.mark.parametrize("size", [(32, 48), (HEIGHT, WIDTH)])
def test_the_unet_keeps_any_size_according_to_its_files(size: tuple[int, int]) -> None:
    """Whatever size they are described for: at the first, its crops cut nothing off. The Lua file is for images of one size."""
    for file in (file for file in shipped.get("unet").files if file.suffix != ".lua"):
        geometry = Geometry.of(multiseg.describe(file, (3, *size)))
        assert geometry.strides == (16, 16) and geometry.keeps(360, 480) and geometry.padded(355, 470) == (355, 470)


@pytest.mark.needs("torch", "tensorflow")
def test_all_files_of_the_unet_hold_the_same_network() -> None:
    unet = shipped.get("unet")
    first, *others = (multiseg.describe(file, (3, HEIGHT, WIDTH)) for file in unet.files)
    for other in others:
        assert not first.diff(other), str(first.diff(other))


@pytest.mark.needs("torch", "tensorflow")
def test_the_files_of_fcn_alexnet_hold_the_same_network() -> None:
    """Torch7 and TensorFlow have no deconvolution with groups but one for each class; their outputs have the same size."""
    prototxt, torch, lua, tensorflow = (
        multiseg.describe(file, (3, HEIGHT, WIDTH)) for file in shipped.get("fcn-alexnet").files
    )
    assert not prototxt.diff(torch), str(prototxt.diff(torch))
    for other in (prototxt, lua, tensorflow):
        assert other.shapes[other.outputs[0]] == (21, HEIGHT, WIDTH)
    trained = {name: shape for name, shape in prototxt.weights.items() if not name.startswith("upscore")}
    for other in (lua, tensorflow):
        shapes = [shape for name, shape in other.weights.items() if not name.startswith("upscore")]
        assert sorted(shapes)[-len(trained) :] == sorted(trained.values()), other.source


def test_a_network_whose_loss_is_of_other_labels_is_refused(scenes: Dataset) -> None:
    with pytest.raises(SettingsError, match=r"model='fcn'.*compares images.*class indices with loss"):
        Job(dataset=scenes, backend="caffe", model="fcn").resolve(scenes)


def test_errors_name_the_network_as_the_user_did(backend: str, scenes: Dataset, tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"^unet: has scores of 5 classes, and class_weights are 3 .* list of 5 numbers"
    ):
        job(scenes, backend, classes=5, loss="cross_entropy", class_weights="balanced").train(
            tmp_path / "run", progress=False
        )
