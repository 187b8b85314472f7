"""Images of 16 bits reach the network of every backend with the values of their files, in training and in all tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import multiseg
from multiseg import Job

ONE = """
input: "data" input_shape { dim: 1 dim: 1 dim: 8 dim: 8 }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 1 kernel_size: 1 weight_filler { type: "constant" value: 0.02 } } }
"""


@pytest.fixture(scope="module")
def depths(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six 16-bit PNG files of 500 to 3400, written by OpenCV, with targets of a twentieth of that, and a dataset of them."""
    folder, draw = tmp_path_factory.mktemp("depths"), np.random.default_rng(5)
    for name in ("input", "target"):
        (folder / name).mkdir()
    for number in range(6):
        values = draw.integers(500, 3400, (8, 8)).astype(np.uint16)
        assert cv2.imwrite(str(folder / "input" / f"{number}.png"), values)
        Image.fromarray((values // 20).astype(np.uint8)).save(folder / "target" / f"{number}.png")
    multiseg.Dataset.create(
        folder / "dataset", input=folder / "input", target=folder / "target", val_percent=34, seed=1
    )
    (folder / "one.prototxt").write_text(ONE)
    return folder


@pytest.mark.parametrize("mean", ["none", "pixel", "image"])
def test_values_of_16_bit_files_reach_the_network(backend: str, depths: Path, tmp_path: Path, mean: str) -> None:
    """The output is that of NumPy in float64 for the numbers in the file, with the mean of the training images subtracted."""
    settings: dict[str, Any] = {
        "recipe": "equal",
        "loss": "l2",
        "learning_rate": 1e-9,
        "epochs": 1,
        "batch_size": 2,
        "seed": 1,
    }
    job = Job(
        dataset=depths / "dataset", backend=backend, model=depths / "one.prototxt", threads=1, subtract_mean=mean,
        augment={"noise": 0.001}, **settings,
    )  # fmt: skip
    files = [depths / "input" / f"{number}.png" for number in range(6)]
    stored = np.stack([cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files]).astype(np.float64)[:, None]
    dataset = multiseg.Dataset.open(depths / "dataset")
    trained = np.stack([dataset.train[index][0] for index in range(len(dataset.train))]).astype(np.float64)
    subtracted = {"none": 0.0, "pixel": trained.mean(), "image": trained.mean(axis=0)}[mean]
    with job.train(tmp_path / "run", progress=False) as run:
        weights = run.layers(files[0]).weights
        weight, bias = (
            float(values.ravel()[0]) for _, values in sorted(weights.items(), key=lambda item: -item[1].ndim)
        )
        expected = weight * (stored - subtracted) + bias
        one = run.test_one(files[0])
        assert np.array_equal(one.input, stored[0])
        assert np.asarray(one.input_image).max() == 255  # drawn by its range
        with pytest.raises(multiseg.errors.ImageError, match=r"0\.png: has values of 8 bits, the network was trained"):
            run.test_one(depths / "target" / "0.png")
        np.testing.assert_allclose(one.array, expected[0], rtol=2e-5, atol=1e-3)
        for output, values in zip(run.test_list(files), expected, strict=True):
            np.testing.assert_allclose(output.array, values, rtol=2e-5, atol=1e-3)
        outputs = {}
        result = run.test_db(
            depths / "dataset/val_db/features", each=lambda index, output: outputs.update({index: output})
        )
        absolute = []
        for index, output in outputs.items():
            feature, label = dataset.val[index]
            value = weight * (feature.astype(np.float64) - subtracted) + bias
            np.testing.assert_allclose(output.array, value, rtol=2e-5, atol=1e-3)
            absolute.append(np.abs(value - label).mean())
        assert result["l1"] == pytest.approx(np.mean(absolute), rel=1e-4)
        # noise of a thousandth does not change the loss of the first epoch: values beyond 255 are not clipped
        assert run.history[-1]["train_loss"] > 0
        last = run.history[-1]
        assert last["l1"] == pytest.approx(result["l1"], rel=1e-5)
        multiseg.Dataset.create(
            tmp_path / "bytes", input=depths / "target", target=depths / "target", val_percent=34, seed=1
        )
        with pytest.raises(multiseg.errors.DatasetError, match="has values of 8 bits, one"):
            run.test_db(tmp_path / "bytes" / "val_db" / "features")
        with pytest.raises(multiseg.errors.ImageError, match="is not an image"):
            run.test_one(depths / "one.prototxt")


def test_a_network_of_8_bit_images_refuses_16_bits(backend: str, depths: Path, tmp_path: Path) -> None:
    dataset = multiseg.Dataset.create(
        tmp_path / "dataset", input=depths / "target", target=depths / "target", val_percent=0, seed=1
    )
    job = Job(
        dataset=dataset,
        backend=backend,
        model=depths / "one.prototxt",
        epochs=1,
        loss="l2",
        learning_rate=1e-9,
        batch_size=2,
        threads=1,
    )
    with job.train(tmp_path / "run", progress=False) as run:
        with pytest.raises(
            multiseg.errors.ImageError, match=r"0\.png: has values of more than 8 bits.*trained on 8-bit"
        ):
            run.test_one(depths / "input" / "0.png")
        with pytest.raises(multiseg.errors.DatasetError, match="val_db/features: has values of more than 8 bits"):
            run.test_db(depths / "dataset" / "val_db" / "features")
        assert run.test_one(depths / "target" / "0.png").input.dtype == np.uint8
