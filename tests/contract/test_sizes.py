"""Testing with a trained network, over every backend: images of any size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import multiseg
from helpers.fcn import random_weights
from multiseg.cli import main
from multiseg.errors import ImageError, ModelError, SettingsError
from multiseg.run.run import Run


def command(*arguments: Any) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


def noise(path: Path, height: int, width: int) -> Path:
    values = np.random.default_rng(height * width).integers(0, 256, (height, width), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return path


def test_any_size_whole_padded_or_in_tiles(backend: str, trained: Any, tmp_path: Path) -> None:
    whole, odd = noise(tmp_path / "whole.png", 160, 224), noise(tmp_path / "odd.png", 100, 150)
    with Run.open(trained(backend)) as run:
        run.worker().call("set_weights", weights=random_weights())
        assert run.test_one(odd).array.shape == (1, 32, 32)
        with pytest.raises(ModelError, match=r"150x100 pixels into 144x96; .*multiples of 16: crop or pad .*160x112"):
            run.test_one(odd, resize=False)

        plain = run.test_one(whole, resize=False).array
        tolerance = 1e-5 * np.abs(plain).max()
        for side in (48, 64, 100):
            assert np.abs(run.test_one(whole, resize=False, tile=side).array - plain).max() < tolerance
        with pytest.raises(SettingsError, match="tile=40: must be at least 48"):
            run.test_one(whole, resize=False, tile=40)

        with pytest.raises(ImageError, match=r"whole\.png: has 224x160 pixels, more than max_pixels=35839"):
            run.test_one(whole, resize=False, max_pixels=35839)
        assert run.test_one(whole, resize=False, max_pixels=35840).array.shape == plain.shape

        padded = run.test_one(odd, resize=False, pad=True)
        repeated = np.pad(padded.input[None], ((0, 0), (0, 0), (0, 12), (0, 10)), mode="edge")
        expected = run.predict(repeated)[0, :, :100, :150]
        assert padded.input.shape == padded.array.shape == (1, 100, 150)
        assert np.array_equal(padded.array, expected)
        both = run.test_one(odd, resize=False, pad=True, tile=64).array
        assert np.abs(both - expected).max() < tolerance


def test_a_database_of_other_sizes_and_without_labels(backend: str, trained: Any, images: Path, tmp_path: Path) -> None:
    sizes = tmp_path / "sizes"
    for name, size in (("a", (48, 64)), ("b", (40, 33))):
        for kind in ("input", "target"):
            (sizes / kind).mkdir(parents=True, exist_ok=True)
            Image.open(images / kind / "00000000.png").resize(size[::-1]).save(sizes / kind / f"{name}.png")
    mixed = multiseg.Dataset.create(
        tmp_path / "mixed", input=sizes / "input", target=sizes / "target", val_percent=0, mixed_sizes=True
    )
    features = mixed.path / "train_db" / "features"
    with Run.open(trained(backend)) as run:
        with pytest.raises(ModelError, match="multiples of 16"):
            run.test_db(features)
        result = run.test_db(features, pad=True)
        (mixed.path / "train_db" / "labels").rename(tmp_path / "labels")
        unlabelled = run.test_db(features, pad=True)
    assert result["count"] == unlabelled["count"] == 2
    assert result["iou"] is not None and result["val_loss"] is None, "a loss over padding would be no one's"
    assert unlabelled["iou"] is None and unlabelled["l1"] is None


def test_one_image_at_the_command_line(backend: str, trained: Any, tmp_path: Path) -> None:
    image = noise(tmp_path / "noise.png", 50, 40)
    done = command("test-one", trained(backend), image, "-o", tmp_path / "new" / "out.png", "--no-resize", "--pad",
                   "--show-input", "--show-layers", "--json")  # fmt: skip
    assert done.exit_code == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["shape"] == [1, 50, 40]
    assert [Path(path).name for path in said["files"]] == ["out.png", "out-layers.html", "out-layers.json"]
    with Image.open(said["output"]) as picture:
        assert picture.size == (81, 50)
        assert np.array_equal(np.asarray(picture)[:, :40], np.asarray(Image.open(image)))
    refused = command("test-one", trained(backend), image, "-o", tmp_path / "new" / "out.png", "--no-resize")
    assert refused.exit_code == 2 and "multiples of 16" in refused.stderr and refused.stderr.count("\n") == 1


SKIPPING = """
layer { name: "data" type: "Data" top: "data" }
layer { name: "label" type: "Data" top: "label" exclude { stage: "deploy" } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" convolution_param { num_output: 1 kernel_size: 3 pad: 1
        weight_filler { type: "gaussian" std: 1 } } }
layer { name: "pool" type: "Pooling" bottom: "conv1" top: "pool" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "up" type: "Deconvolution" bottom: "pool" top: "up" convolution_param { num_output: 1 kernel_size: 4 stride: 2
        pad: 1 weight_filler { type: "gaussian" std: 1 } } }
layer { name: "sum" type: "Eltwise" bottom: "conv1" bottom: "up" top: "sum" }
"""


@pytest.mark.needs("caffe")
def test_a_size_over_which_caffe_would_end_its_process(dataset: Any, tmp_path: Path) -> None:
    """Where blobs do not fit together, Caffe itself aborts."""
    (tmp_path / "net.prototxt").write_text(SKIPPING)
    job = multiseg.Job(dataset=dataset, backend="caffe", model=tmp_path / "net.prototxt", loss="l2", epochs=1, seed=1)
    odd = noise(tmp_path / "odd.png", 61, 75)
    with job.train(tmp_path / "run", progress=False) as run:
        with pytest.raises(ModelError, match=r"'sum'.*multiples of 2: crop or pad the image \(76x62;"):
            run.test_one(odd, resize=False)
        whole = run.test_one(odd, resize=False, pad=True).array
        tiles = run.test_one(odd, resize=False, pad=True, tile=20).array
    assert np.abs(tiles - whole).max() <= 1e-5 * np.abs(whole).max()
    assert len(np.unique(whole)) > 100
