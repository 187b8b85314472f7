"""Weights of a dense layer start a convolution of the same name: the convolution computes what the dense layer did."""

from __future__ import annotations

from pathlib import Path

import lmdb
import numpy as np
import pytest

import multiseg
from multiseg import Job
from multiseg.dataset.records import Datum
from multiseg.training.warm_start import _are_dense_and_convolution

HEAD = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 12 } }
        include { stage: "deploy" } }
layer { name: "td" type: "Data" top: "data" top: "label" include { stage: "train" } data_param { batch_size: 2 } }
layer { name: "vd" type: "Data" top: "data" top: "label" include { stage: "val" } data_param { batch_size: 2 } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 5 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
"""
DENSE = (
    'layer { name: "fc" type: "InnerProduct" bottom: "pool" top: "fc" inner_product_param { num_output: 7 FILLER } }\n'
)
CONVOLUTION = (
    'layer { name: "fc" type: "Convolution" bottom: "pool" top: "fc" '
    "convolution_param { num_output: 7 kernel_h: 4 kernel_w: 6 FILLER } }\n"
)
LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" exclude { stage: "deploy" } }\n'


@pytest.fixture
def dataset(tmp_path: Path) -> multiseg.Dataset:
    draw = np.random.default_rng(0)
    for split, count in (("train_db", 4), ("val_db", 3)):
        folder = tmp_path / "db" / split / "features"
        folder.mkdir(parents=True)
        with lmdb.open(str(folder), map_size=1 << 24) as file, file.begin(write=True) as records:
            for number in range(count):
                pixels = draw.integers(0, 256, (3, 8, 12), dtype=np.uint8)
                datum = Datum(channels=3, height=8, width=12, label=number % 7, data=pixels.tobytes())
                records.put(b"%09d" % number, datum.SerializeToString())
    return multiseg.Dataset.open(tmp_path / "db")


def scores(run: multiseg.Run, dataset: multiseg.Dataset) -> np.ndarray:
    features = run.layout.features(dataset.val.read(range(3))[0])
    output, _, _ = run.worker().call("predict", features=features, labels=None)
    return output.reshape(3, 7)


@pytest.mark.parametrize("source", ["caffe", "torch", "tensorflow"])
def test_a_dense_layer_becomes_a_convolution(
    backend: str, backends: list[str], source: str, dataset: multiseg.Dataset, tmp_path: Path
) -> None:
    """Also across frameworks: TensorFlow flattens an image in another order, and Caffe reads colours in another."""
    if source not in backends:
        source = backends[0]
    filler = 'weight_filler { type: "xavier" }'
    (tmp_path / "dense.prototxt").write_text(HEAD + DENSE.replace("FILLER", filler) + LOSS)
    (tmp_path / "convolution.prototxt").write_text(HEAD + CONVOLUTION.replace("FILLER", "") + LOSS)
    settings = {
        "dataset": dataset,
        "epochs": 1,
        "learning_rate": 1e-12,
        "batch_size": 2,
        "threads": 1,
        "subtract_mean": "none",
        "metric": "val_loss",
    }
    with Job(backend=source, model=tmp_path / "dense.prototxt", seed=1, **settings).train(
        tmp_path / "dense", progress=False
    ) as run:
        expected = scores(run, dataset)
    events = []
    job = Job(
        backend=backend,
        model=tmp_path / "convolution.prototxt",
        weights=tmp_path / "dense",
        solver_state=False,
        **settings,
    )
    with job.train(tmp_path / "convolution", progress=events.append) as run:
        summary = events[0]["weights"]
        assert summary["by_count"] == {"fc.weight": [7, 5 * 4 * 6]}
        assert summary["matched"] == ["conv.weight", "conv.bias", "fc.weight", "fc.bias"]
        assert (summary["reshaped"], summary["missing"], summary["unused"]) == ([], [], [])
        assert "zero_layers" not in events[0]
        assert np.abs(expected).max() > 1
        assert scores(run, dataset) == pytest.approx(expected, abs=float(1e-4 * np.abs(expected).max()))


def test_a_convolution_of_as_many_numbers_but_other_channels_is_not_started() -> None:
    """(7, 5, 4, 6) into (5, 7, 4, 6) would only mix the numbers."""
    assert _are_dense_and_convolution((7, 120), (7, 5, 4, 6)) and _are_dense_and_convolution((7, 5, 4, 6), (7, 120))
    assert not _are_dense_and_convolution((7, 5, 4, 6), (5, 7, 4, 6))
    assert not _are_dense_and_convolution((120, 7), (7, 5, 4, 6))
    assert not _are_dense_and_convolution((7, 5, 6, 4), (7, 5, 4, 6))
