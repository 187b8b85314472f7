"""Readers that PyTorch's process runs: state_dicts, Torch7's models, Lua files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from helpers.fuzzing.reader import Reader
from helpers.t7_writer import Torch, t7, tensor

LUA = """
require 'nn'
local function block(planes)
  local net = nn.Sequential()
  net:add(nn.SpatialConvolution(1, planes, 3, 3, 1, 1, 1, 1))
  net:add(nn.ReLU(true))
  for i = 1, 3 do net:add(nn.SpatialConvolution(planes, planes, 3, 3, 1, 1, 1, 1)) end
  return net
end
return function(params)
  local net = block(4)
  net:add(nn.SpatialConvolution(4, 1, 1, 1))
  return {model = net, loss = nn.MSECriterion()}
end
"""


def samples(folder: Path) -> None:
    """Write an undamaged file for each reader."""
    import torch

    state = {"conv.weight": torch.ones(2, 1, 3, 3), "conv.bias": torch.ones(2), "half.weight": torch.ones(3).half()}
    torch.save(state, folder / "net.pt")
    torch.save(state, folder / "old.pt", _use_new_zipfile_serialization=False)
    weight = np.ones((2, 1, 3, 3), np.float32)
    convolution = Torch("nn.SpatialConvolution", nInputPlane=1, nOutputPlane=2, kW=3, kH=3, dW=1, dH=1, padW=1, padH=1,
                        weight=tensor(weight), bias=tensor(np.ones(2, np.float32)))  # fmt: skip
    pool = Torch("nn.SpatialMaxPooling", kW=2, kH=2, dW=2, dH=2, padW=0, padH=0)
    model = Torch("nn.Sequential", modules=[convolution, Torch("nn.ReLU"), pool])
    for name, ascii in {"net.t7": False, "ascii.t7": True}.items():
        (folder / name).write_bytes(t7({"model": model, "loss": Torch("nn.MSECriterion", sizeAverage=True)}, ascii))
    (folder / "weights.t7").write_bytes(t7(tensor(weight.ravel())))
    (folder / "net.lua").write_text(LUA)


def _described(path: Path) -> Any:
    from multiseg_torch import reader

    return reader.describe(str(path), [1, 8, 8])


def _weights(path: Path) -> Any:
    from multiseg_torch import reader

    return reader.read_weights(str(path))


READERS = [
    Reader("pt", "net.pt", _weights, 3),
    Reader("pt of old versions", "old.pt", _weights, 2),
    Reader("weights in t7", "net.t7", _weights, 2),
    Reader("flat weights in t7", "weights.t7", _weights),
    Reader("network in t7", "net.t7", _described, 2),
    Reader("network in ascii t7", "ascii.t7", _described),
    Reader("lua", "net.lua", _described, 0.3),
]
