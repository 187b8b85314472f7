"""Files that a prototxt refers to: found beside it from any folder, and kept with the run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from multiseg_caffe import proto
from PIL import Image

from multiseg import Dataset, Job, Run
from multiseg.errors import ModelError

pytestmark = pytest.mark.needs("caffe")

NET = """
layer {{ name: "data" type: "Data" top: "data" exclude {{ stage: "deploy" }} }}
layer {{ name: "label" type: "Data" top: "label" exclude {{ stage: "deploy" }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param {{ num_output: 3 kernel_size: 1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "InfogainLoss" bottom: "conv" bottom: "label" top: "loss" {rules}
        infogain_loss_param {{ source: "{source}" }} exclude {{ stage: "deploy" }} }}
"""
MATRIX = np.array([[1.0, 0.5, 0.0], [0.0, 2.0, 0.25], [0.5, 0.0, 3.0]])


def write_matrix(path: Path) -> None:
    blob = proto.BlobProto(num=1, channels=1, height=3, width=3, data=MATRIX.ravel())
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(blob.SerializeToString())


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder, draw = tmp_path_factory.mktemp("masks"), np.random.default_rng(1)
    for name, most in (("input", 10), ("target", 3)):
        (folder / name).mkdir()
        for number in range(4):
            Image.fromarray(draw.integers(0, most, (8, 8), dtype=np.uint8)).save(folder / name / f"{number}.png")
    return Dataset.create(folder / "dataset", input=folder / "input", target=folder / "target", val_percent=50, seed=1)


def train(masks: Dataset, model: Path, folder: Path) -> Run:
    return Job(
        dataset=masks, backend="caffe", model=model, epochs=1, batch_size=2, val_batch_size=2, learning_rate=1e-9,
        seed=1, threads=1, metric="val_loss",
    ).train(folder, progress=False)  # fmt: skip


@pytest.mark.parametrize("place", ["inside", "elsewhere"])
def test_the_matrix_is_found_and_kept_with_the_run(
    place: str, masks: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / ("net/matrices/H.binaryproto" if place == "inside" else "other/H.binaryproto")
    write_matrix(file)
    model = tmp_path / "net" / "net.prototxt"
    model.parent.mkdir(exist_ok=True)
    model.write_text(NET.format(rules="", source="matrices/H.binaryproto" if place == "inside" else file))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    train(masks, model, tmp_path / "run").close()
    file.unlink()
    model.unlink()
    with Run.open(tmp_path / "run") as run:
        loss = run.test_db(masks.path / "val_db" / "features")["val_loss"]
        features, labels = masks.val.read(range(2))
        scores = run.predict(features).astype(np.float64)
    assert labels is not None
    logs = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    # Caffe: -sum over k of H(label, k) log p(k), the mean over the pixels (infogain_loss_layer.cpp)
    expected = -(np.moveaxis(MATRIX[labels[:, 0].astype(int)], 3, 1) * logs).sum(1).mean()
    assert loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("content", "words"), [(None, "no such file"), (b"text", "BlobProto")])
def test_a_matrix_that_caffe_would_abort_for_is_named(
    content: bytes | None, words: str, masks: Dataset, tmp_path: Path
) -> None:
    model = tmp_path / "net.prototxt"
    model.write_text(NET.format(rules="", source="H.binaryproto"))
    if content is not None:
        (tmp_path / "H.binaryproto").write_bytes(content)
    with pytest.raises(ModelError, match=words) as raised:
        train(masks, model, tmp_path / "run")
    assert "H.binaryproto" in str(raised.value)
