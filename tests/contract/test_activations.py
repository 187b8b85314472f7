"""What a network's layers make, under the names and in the shapes that its file's description has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zoo import NETS, SHAPES, batch, load

import multiseg
from multiseg import backend as registry
from multiseg.layout import Layout

FILES = {"caffe": "{}.prototxt", "torch": "{}_torch.py", "tensorflow": "{}_tensorflow.py"}
# what is nothing when a network predicts, or a view of what is there already
UNSEEN = {"Dropout", "Flatten"}


@pytest.mark.parametrize("net", ["inception", "fcn8s"])
def test_activations_are_those_described(backend: str, net: str) -> None:
    model: Path = NETS / FILES[backend].format(net)
    described = multiseg.describe(model, SHAPES[net][0])
    values = {
        name: (layer.type, shape)
        for layer in described.layers
        for name, shape in zip(layer.outputs, layer.shapes, strict=True)
    }
    layout = Layout(registry.get(backend).data_order)
    features: Any = layout.features(batch(net)["features"])
    with load(backend, model, *SHAPES[net], lowering=True) as worker:
        output, _, made = worker.call("predict", features=features, labels=None, activations=True)
    assert list(made) == [name for name in values if name in made], "in the order of the description"
    assert {values[name][0] for name in values if name not in made} <= UNSEEN
    for name, value in made.items():
        assert layout.activation(value).shape == (3, *values[name][1]), name
    last = made[described.outputs[0]]
    assert np.array_equal(output.reshape(last.shape), last)
