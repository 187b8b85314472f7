"""Torch7 networks as .t7 files hold them, of random weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from helpers.t7_writer import Function, Torch, tensor


def convolution(planes_in: int, planes_out: int, size: int, name: str = "nn.SpatialConvolution", **more: Any) -> Torch:
    numbers = np.random.default_rng(planes_in)
    fields = {
        "nInputPlane": planes_in, "nOutputPlane": planes_out, "kW": size, "kH": size, "dW": 1, "dH": 1, "padW": 1, "padH": 1,
        "weight": tensor(numbers.normal(size=(planes_out, planes_in, size, size)).astype(np.float32)),
        "bias": tensor(numbers.normal(size=planes_out).astype(np.float32)),
        "_type": "torch.FloatTensor", "train": False,
    }  # fmt: skip
    return Torch(name, **{**fields, **more})


def network() -> Torch:
    numbers = np.random.default_rng(1)
    mm = convolution(4, 3, 3, "nn.SpatialConvolutionMM")
    mm.fields["weight"] = tensor(numbers.normal(size=(3, 36)))  # double, and two axes
    norm = Torch(
        "cudnn.SpatialBatchNormalization", eps=1e-3, momentum=0.1, affine=True,
        **{part: tensor(numbers.random(4).astype(np.float32), "torch.CudaTensor")
           for part in ("weight", "bias", "running_mean", "running_var")},
    )  # fmt: skip
    view = Torch("nn.View", size=np.array([-1]), numInputDims=3, numElements=1)
    linear = Torch("nn.Linear", weight=tensor(numbers.normal(size=(2, 108))), bias=tensor(numbers.normal(size=2)))
    modules = [convolution(1, 4, 3), norm, Torch("nn.ReLU", threshold=0, val=0, inplace=True), mm, view, linear]
    return Torch("nn.Sequential", modules=modules, hook=Function(b"\x1bLJ never run", [{"name": "_ENV", "value": {}}]))
