"""The networks of tests/nets as PyTorch and Torch7 files: they load, train a step, and say what the prototxts say."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import zoo

from multiseg.model_files import describe

pytestmark = pytest.mark.needs("torch")

FILES = [f"{net}.lua" for net in zoo.SHAPES] + ["inception_torch.py", "fcn8s_torch.py"]


def net_of(file: str) -> str:
    return Path(file).stem.removesuffix("_torch")


@pytest.mark.parametrize("file", FILES)
def test_a_users_network_trains_a_step_and_is_what_the_prototxt_says(file: str) -> None:
    net, batch = net_of(file), zoo.batch(net_of(file))
    topology = describe(zoo.NETS / file, zoo.SHAPES[net][0])
    assert topology == describe(zoo.NETS / f"{net}.prototxt", zoo.SHAPES[net][0])
    with zoo.load("torch", zoo.NETS / file, *zoo.SHAPES[net]) as worker:
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
