"""The named losses: the float64 reference against PyTorch's own losses, and every backend against the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import multiseg
from helpers import zoo
from multiseg import backend as registry
from multiseg.reference.losses import FORMULAS
from multiseg.settings.losses import LOSSES, complete_options

TORCH = {"l1": "L1Loss", "l2": "MSELoss", "smooth_l1": "SmoothL1Loss", "huber": "HuberLoss"}


@pytest.mark.needs("torch")
@pytest.mark.parametrize("name", FORMULAS)
def test_the_reference_is_pytorchs_loss_in_float64(name: str) -> None:
    import torch

    d = np.concatenate([np.random.default_rng(1).normal(0, 2, 1000), [0.0, 1.0, -1.0, 0.5, -0.5]])
    for options in ({}, *({key: 0.5 * value} for key, value in LOSSES[name].parameters.items())):
        output = torch.tensor(d, requires_grad=True)
        value = getattr(torch.nn, TORCH[name])(reduction="none", **options)(output, torch.zeros_like(output))
        value.sum().backward()
        formula = FORMULAS[name](d, **complete_options(name, options))
        np.testing.assert_allclose(formula.value, value.detach().numpy(), rtol=1e-14, atol=0)
        np.testing.assert_allclose(formula.slope, output.grad.numpy(), rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", FORMULAS)
def test_loss_and_gradients_are_the_references(backend: str, name: str, tmp_path: Path) -> None:
    data = zoo.dataset("autoencoder", tmp_path / "dataset")
    assert name in registry.get(backend).losses
    for options in ({}, *({key: 0.5 * value} for key, value in LOSSES[name].parameters.items())):
        parity = multiseg.check_parity(
            data, [backend], zoo.NETS / "autoencoder.prototxt", steps=0, loss=name, loss_options=options, batch_size=3,
            subtract_mean="none", threads=1, device="cpu",
        )  # fmt: skip
        assert parity.ok, str(parity)
        assert {"loss", "gradient"} <= {row.stage for row in parity.rows}
