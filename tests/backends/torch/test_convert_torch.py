"""Weights for PyTorch's modules: what leads to no output, names of their own, and plain strict loading."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import multiseg
from multiseg.errors import ModelError
from multiseg.model_files import weights_file
from multiseg.model_files.weights_file import NeutralWeights

pytestmark = pytest.mark.needs("torch")

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.aux, self.norm = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(4)
        self.offset = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        made = self.norm(self.one(x))
        return (made, self.aux(made)) if self.training else made
"""


def test_what_leads_to_no_output_stays_as_the_network_starts_it(tmp_path: Path, here: None) -> None:
    import torch

    net, other = tmp_path / "net.py", tmp_path / "other.py"
    net.write_text(NET)
    other.write_text(
        NET.replace("self.one", "self.first").replace("self.norm", "self.second").replace("self.aux", "self.head")
    )
    draw = np.random.default_rng(1)
    shapes = {"one.weight": (4, 3, 3, 3), "one.bias": (4,), "aux.weight": (2, 4, 1, 1), "aux.bias": (2,)}
    shapes |= {f"norm.{part}": (4,) for part in ("weight", "bias", "running_mean", "running_var")}
    weights = {name: draw.random(shape, np.float32) for name, shape in shapes.items()}
    source = tmp_path / "w.safetensors"
    weights_file.write(source, NeutralWeights(weights, "RGB"))

    out = tmp_path / "w.pt"
    found = multiseg.convert(source, "pt", out, other, source_network=net, input_shape=(3, 8, 8))
    assert found.unused == ("model.offset", "head.weight", "head.bias") and found.left_out == ("aux.bias", "aux.weight")
    assert "at their initial values, as no output depends on them: model.offset, head.weight, head.bias" in str(found)
    state = torch.load(out, weights_only=True)
    assert np.array_equal(state["first.weight"], weights["one.weight"])
    third = tmp_path / "third.py"
    third.write_text(other.read_text().replace("self.head", "self.aux"))
    named = multiseg.convert(source, "pt", tmp_path / "third.pt", third, source_network=net, input_shape=(3, 8, 8))
    assert named.unused == ("model.offset",) and not named.left_out and named.matched["aux.bias"] == "aux.bias"
    scope: dict[str, type[torch.nn.Module]] = {}
    exec(other.read_text(), scope)  # as its user has it
    model = scope["Net"]()
    model.load_state_dict(state, strict=True)
    assert int(state["second.num_batches_tracked"]) == 0

    same = multiseg.convert(source, "pt", out, source_network=net, input_shape=(3, 8, 8))
    assert same.unused == ("model.offset",) and not same.left_out
    assert np.array_equal(torch.load(out, weights_only=True)["aux.weight"], weights["aux.weight"])

    multiseg.convert(source, "pt", out)
    assert int(torch.load(out, weights_only=True)["norm.num_batches_tracked"]) == 0
    weights_file.write(source, NeutralWeights({**weights, "more.weight": weights["one.bias"]}, "RGB"))
    with pytest.raises(ModelError, match=r"net\.py: has no parameter 'more\.weight'"):
        multiseg.convert(source, "pt", out, source_network=net, input_shape=(3, 8, 8))
