"""The networks of tests/nets as PyTorch and Torch7 files: they load, train a step, and say what the prototxts say."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from helpers import zoo
from multiseg.errors import ModelError
from multiseg.model_files.reading import describe

pytestmark = pytest.mark.needs("torch")

FILES = [f"{net}.lua" for net in zoo.SHAPES] + ["inception_torch.py", "fcn8s_torch.py"]


def net_of(file: str) -> str:
    return Path(file).stem.removesuffix("_torch")


@pytest.mark.parametrize("file", FILES)
def test_a_users_network_trains_a_step_and_is_what_the_prototxt_says(file: str) -> None:
    net, batch = net_of(file), zoo.batch(net_of(file))
    with zoo.load("torch", zoo.NETS / file, *zoo.SHAPES[net]) as worker:
        topology = describe(zoo.NETS / file, zoo.SHAPES[net][0], worker)
        assert topology == describe(zoo.NETS / f"{net}.prototxt", zoo.SHAPES[net][0])
        before = worker.call("get_weights")
        assert {name: value.shape for name, value in before.items()} == topology.weights
        output, loss, _ = worker.call("predict", **batch)
        assert output.shape[1:] == topology.shapes[topology.outputs[0]]
        labels = batch["labels"]
        if net == "autoencoder":
            expected = float(np.square(output.astype(np.float64) - labels).mean())
        else:  # the mean of -log softmax of the label's class, by hand
            scores = output.astype(np.float64).reshape(*output.shape[:2], -1)
            picked = np.take_along_axis(scores, labels.reshape(len(labels), 1, -1).astype(int), 1)[:, 0]
            largest = scores.max(1)
            expected = float((np.log(np.exp(scores - largest[:, None]).sum(1)) + largest - picked).mean())
        assert loss == pytest.approx(expected, rel=1e-5)
        trained = worker.call("train_step", **batch, rate=0.1)
        assert math.isfinite(trained)
        after = worker.call("get_weights")
        assert all(np.abs(after[name] - before[name]).max() > 0 for name in before)


def small(tmp_path: Path, text: str) -> Path:
    (tmp_path / "net.lua").write_text(text)
    return tmp_path / "net.lua"


SCORES = "nn.Sequential():add(nn.SpatialConvolution(1, 3, 1, 1))"


@pytest.mark.parametrize(
    ("text", "label", "words"),
    [
        (
            f"return {{model = {SCORES}, croplen = 4}}",
            (1, 8, 8),
            "takes crops of 4x4 pixels (croplen), the images are",
        ),
        (
            f"return {{model = {SCORES}, loss = nn.MSECriterion()}}",
            (1, 4, 4),
            "its output is (3, 8, 8) (C, H, W), the labels are",
        ),
        (f"return {{model = {SCORES}}}", (2, 8, 8), "its output is (3, 8, 8) (C, H, W), the labels are (2, 8, 8)"),
    ],
)
def test_what_does_not_fit_the_dataset_is_told_when_it_is_loaded(
    tmp_path: Path, text: str, label: tuple[int, ...], words: str
) -> None:
    with pytest.raises(ModelError) as caught:
        zoo.load("torch", small(tmp_path, text), (1, 8, 8), label)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("loss", "label", "values", "words"),
    [
        ("SpatialClassNLL", (1, 8, 8), 3, "a label is class 3, the output has the classes 0 to 2"),
        ("ClassNLL", (1, 1, 1), -1, "a label is class -1; classes count from 0"),
        (
            "MSE",
            (1, 8, 8),
            0,
            "the loss compares element by element; the output is (3, 8, 8), the labels are (1, 8, 8) (C, H, W); "
            "if the labels are class indices, specify loss='cross_entropy'",
        ),
        (
            "MSE",
            (1, 1, 1),
            0,
            "the loss compares element by element; the output is (3, 8, 8), the labels are (1, 1, 1) (C, H, W)",
        ),
    ],
)
def test_labels_that_a_loss_cannot_take_are_told(
    tmp_path: Path, loss: str, label: tuple[int, ...], values: float, words: str
) -> None:
    pooled = f"{SCORES}:add(nn.SpatialAveragePooling(8, 8))" if loss == "ClassNLL" else SCORES
    path = small(tmp_path, f"return {{model = {pooled}, loss = nn.{loss}Criterion()}}")
    with zoo.load("torch", path, (1, 8, 8), label) as worker, pytest.raises(ModelError) as caught:
        labels = np.full((2, *label), values, np.float32)
        worker.call("train_step", features=np.zeros((2, 1, 8, 8), np.float32), labels=labels, rate=0.1)
    assert words in str(caught.value)


def test_batch_normalisations_statistics_are_weights_and_its_count_is_none(tmp_path: Path) -> None:
    path = small(
        tmp_path,
        "return {model = nn.Sequential():add(nn.SpatialBatchNormalization(1)):add(nn.ReLU()), loss = nn.MSECriterion()}",
    )
    names = ["0.weight", "0.bias", "0.running_mean", "0.running_var"]
    assert list(describe(path, (1, 8, 8)).weights) == names
    with zoo.load("torch", path, (1, 8, 8), (1, 8, 8)) as worker:
        given = {name: np.array([number], np.float32) for number, name in enumerate(names, 1)}
        worker.call("set_weights", weights=given)
        assert worker.call("get_weights") == given
        images = np.arange(128, dtype=np.float32).reshape(2, 1, 8, 8)
        output, _, _ = worker.call("predict", features=images, labels=None)
        assert np.allclose(output, np.maximum((images - 3) / np.sqrt(4 + 1e-5) + 2, 0), rtol=1e-5)
        worker.call("train_step", features=images, labels=images, rate=0.0)
        after = worker.call("get_weights")
    # momentum 0.1: nine parts of what was, one of the batch's mean and unbiased variance
    assert after["0.running_mean"][0] == pytest.approx(0.9 * 3 + 0.1 * 63.5)
    assert after["0.running_var"][0] == pytest.approx(0.9 * 4 + 0.1 * images.var(ddof=1), rel=1e-5)


def test_a_state_dict_goes_into_the_network_that_it_is_of(tmp_path: Path) -> None:
    import torch

    from multiseg.model_files.reading import read_weights

    (tmp_path / "net.py").write_text((zoo.NETS / "inception_torch.py").read_text())
    with zoo.load("torch", tmp_path / "net.py", *zoo.SHAPES["inception"]) as worker:
        weights = worker.call("get_weights")
        torch.save(
            {"state_dict": {f"module.{name}": torch.tensor(value + 1) for name, value in weights.items()}},
            tmp_path / "a.pth",
        )
        found = read_weights(tmp_path / "a.pth")
        worker.call("set_weights", weights=found)
        after = worker.call("get_weights")
    assert all(np.array_equal(after[name], weights[name] + 1) for name in weights)
