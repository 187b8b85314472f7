"""Training steps of PyTorch: precision and compilation change nothing but rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multiseg.errors import SettingsError
from multiseg.network import NetworkSpec

pytestmark = pytest.mark.needs("torch")

NORMALISED = """
from torch import nn
network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
"""


def network(tmp_path: Path, source: str, **values: Any) -> Any:
    """Return a network of a file with this source, trained by gradient descent on batches of 4 images of 6x5 pixels."""
    from multiseg_torch.network import Network

    path = tmp_path / "net.py"
    path.write_text(source)
    spec = NetworkSpec(
        model=str(path), input_shape=(3, 6, 5), label_shape=(1, 6, 5),
        solver={"name": "sgd", "momentum": 0.5, "weight_decay": 0.0}, loss="cross_entropy", batch_size=4,
        val_batch_size=4, seed=1, threads=1, device="cpu", lowering=True, labels="classes",
        **values,
    )  # fmt: skip
    return Network(spec)


def batch(count: int = 7) -> tuple[Any, Any]:
    draw = np.random.default_rng(0)
    images = draw.normal(size=(count, 3, 6, 5)).astype(np.float32)
    return images, draw.integers(0, 4, (count, 1, 6, 5)).astype(np.float32)


def in_float64(net: Any, images: Any, labels: Any, rate: float) -> dict[str, Any]:
    """Return the parameters after one step of gradient descent on the parts of a batch, computed in float64 by plain PyTorch."""
    import copy

    import torch
    from torch.nn import functional

    model = copy.deepcopy(net.model).double().train()
    for start in range(0, len(images), 4):
        part = torch.from_numpy(images[start : start + 4]).double()
        indices = torch.from_numpy(labels[start : start + 4, 0]).long()
        (functional.cross_entropy(model(part), indices) * len(part) / len(images)).backward()
    return {name: (value - rate * value.grad).detach().numpy() for name, value in model.named_parameters()}


def largest_error(net: Any, expected: dict[str, Any], before: dict[str, Any]) -> float:
    """Return the largest error of a parameter's change, relative to the largest change."""
    change = max(np.abs(expected[name] - before[name]).max() for name in expected)
    weights = net.get_weights()
    return float(max(np.abs(weights[name] - expected[name]).max() for name in expected) / change)


def test_a_step_in_bf16_rounds_to_8_bits_and_keeps_float32(tmp_path: Path) -> None:
    import torch

    net = network(tmp_path, NORMALISED, precision="bf16")
    before, (images, labels) = net.get_weights(), batch()
    expected = in_float64(net, images, labels, 0.1)
    net.train_step(images, labels, 0.1)
    assert 1e-4 < largest_error(net, expected, before) < 0.1  # bfloat16 has 8 bits, 2**-9 = 2e-3 for each rounding
    assert {value.dtype for value in net.model.state_dict().values()} <= {torch.float32, torch.int64}
    output, _, _ = net.predict(images, None)
    plain = network(tmp_path, NORMALISED)
    plain.set_weights(net.get_weights())
    np.testing.assert_array_equal(output, plain.predict(images, None)[0])  # predictions are in float32


def test_lowered_layers_compute_in_bf16_as_pytorchs_own_do() -> None:
    import torch
    from multiseg_torch.lowering import lower
    from torch import nn

    torch.manual_seed(0)
    plain, image = nn.Conv2d(2, 3, 6, stride=6), torch.randn(2, 2, 12, 12)
    expected = plain.double()(image.double())
    lower(module := nn.Sequential(plain.float()))
    with torch.autocast("cpu", torch.bfloat16):
        output = module(image)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.double(), expected, rtol=2e-2, atol=2e-2)


def test_a_compiled_step_computes_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    net = network(tmp_path, NORMALISED, compile=True)
    assert net.describe()["compile_seconds"] > 0 and any((tmp_path / "cache").iterdir())
    before, (images, labels) = net.get_weights(), batch()
    assert not before["1.running_mean"].any()  # compilation ran a step, and changed nothing
    expected = in_float64(net, images, labels, 0.1)
    net.train_step(images, labels, 0.1)
    assert largest_error(net, expected, before) < 1e-4


def test_compiling_without_a_compiler_is_one_clear_error(tmp_path: Path) -> None:
    from torch._inductor import config

    missing = config.patch({"cpp.cxx": ("/no/such/compiler",)})
    with missing, pytest.raises(SettingsError, match=r"compile=True: torch.compile needs a C\+\+ compiler"):
        network(tmp_path, NORMALISED, compile=True)


def test_a_network_whose_loss_compares_scores_is_not_compiled(tmp_path: Path) -> None:
    source = NORMALISED.replace("nn.Conv2d(8, 4, 1)", "nn.Conv2d(8, 4, 1), nn.Softmax(1)")
    with pytest.raises(SettingsError, match="compares the scores before its last layer"):
        network(tmp_path, source, compile=True)
