"""Which networks are computed in NHWC (multiseg_torch.memory_order), and that training does not depend on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multiseg.network import NetworkSpec

pytestmark = pytest.mark.needs("torch")

SHAPE = (3, 12, 12)
FILE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, {channels}, {kernel}, {stride}, padding={padding})
        self.norm = nn.BatchNorm2d({channels})
        self.last = nn.Conv2d({channels}, 2, 1)

    def forward(self, x):
        x = self.norm(self.first(x)).relu()
        {line}
        return self.last(x)

def network(params):
    return {{"model": Net(), "loss": nn.MSELoss()}}
"""
PLAIN: dict[str, Any] = {"channels": 4, "kernel": 3, "stride": 1, "padding": 1, "line": "pass"}
CASES = {
    "plain": ({}, "NHWC"),
    "lowered": ({"kernel": 6, "stride": 6, "padding": 0}, "NCHW"),
    "view": ({"line": "x = x.view(len(x), -1).view(x.shape)"}, "NCHW"),  # an error in NHWC
    "view in training": ({"line": "x = x.view(len(x), -1).view(x.shape) if self.training else x"}, "NCHW"),
    "memory": ({"line": "x = x.as_strided(x.shape, (576, 144, 12, 1))"}, "NCHW"),  # other pixels in NHWC
    "one channel, strides 1 and 2": (  # wrong in NHWC where the output is one pixel wide, as docs/upstream-faults.md shows
        {"line": "x = x + nn.functional.conv2d(x[:, :1], self.first.weight[:1, :1], stride=(1, 2)).mean()"},
        "NCHW",
    ),
    "transposed, one channel, strides 1 and 2": (
        {
            "line": "x = x + nn.functional.conv_transpose2d(x, self.first.weight[:4, :1, :1, :1].expand(4, 1, 1, 1), "
            "stride=(1, 2)).mean()"
        },
        "NCHW",
    ),
    "one channel, strides 2": (
        {"line": "x = x + nn.functional.conv2d(x[:, :1], self.first.weight[:1, :1], stride=2).mean()"},
        "NHWC",
    ),
    "reshape": ({"line": "x = x.reshape(len(x), -1).reshape(x.shape)"}, "NHWC"),
}


def network(folder: Path, case: str, **more: Any) -> Any:
    from multiseg_torch.network import Network

    changes, _ = CASES[case]
    path = folder / "net.py"
    path.write_text(FILE.format(**{**PLAIN, **changes}))
    side = 12 if case != "lowered" else 2
    solver = {"name": "sgd", "momentum": 0.9, "weight_decay": 0.01, "dampening": 0.0}
    return Network(
        NetworkSpec(
            model=str(path), input_shape=SHAPE, label_shape=(2, side, side), solver=solver, loss=None, batch_size=4,
            val_batch_size=4, seed=1, threads=1, device="cpu", lowering=True, recipe="native", labels="images", **more,
        )
    )  # fmt: skip


def batch(seed: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    return draw.normal(size=(4, *SHAPE)).astype(np.float32), draw.normal(size=(4, 2, 12, 12)).astype(np.float32)


@pytest.mark.parametrize("case", CASES)
def test_a_file_that_counts_on_nchw_gets_it(tmp_path: Path, case: str) -> None:
    assert network(tmp_path, case).describe()["memory_order"] == CASES[case][1]


def test_choosing_leaves_weights_averages_and_gradients(tmp_path: Path) -> None:
    import torch

    made = network(tmp_path, "plain")
    torch.manual_seed(1)
    expected = type(made.model)().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in made.model.state_dict().items())
    assert all(parameter.grad is None for parameter in made.model.parameters())


@pytest.mark.parametrize("case", ["plain", "view", "view in training", "memory"])
def test_training_is_that_of_a_plain_loop(tmp_path: Path, case: str) -> None:
    """In NCHW and without fused updates, in float64."""
    import torch

    made = network(tmp_path, case)
    plain = type(made.model)().double()
    plain.load_state_dict(made.model.state_dict())
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01, foreach=False)
    for step in range(4):
        if step == 2:  # goes on from a snapshot
            made.save(str(tmp_path))
            made = network(tmp_path, case)
            made.restore(str(tmp_path))
        features, labels = batch(step)
        made.train_step(features, labels, 0.1)
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(
            plain(torch.from_numpy(features).double()), torch.from_numpy(labels).double()
        ).backward()
        optimizer.step()
    features, _ = batch(9)
    with torch.no_grad():
        expected = plain.eval()(torch.from_numpy(features).double()).numpy()
    assert np.abs(made.predict(features, None)[0] - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("solver", ["SGD", "Adam", "AdamW", "Adagrad"])
def test_a_state_in_another_memory_order_continues(solver: str) -> None:
    """Fused updates of a parameter in NHWC from a state in NCHW, as earlier versions wrote it; float64, not fused, is right."""
    import torch
    from multiseg_torch import solver_state

    draw = torch.Generator().manual_seed(1)
    value, *slopes = (torch.randn(4, 3, 2, 2, generator=draw) for _ in range(3))
    kind, settings = getattr(torch.optim, solver), {"momentum": 0.9} if solver == "SGD" else {}
    last = torch.channels_last

    def after(
        parameter: torch.nn.Parameter, slope: torch.Tensor, state: dict[str, Any] | None, fused: bool
    ) -> dict[str, Any]:
        optimizer = kind([parameter], lr=0.1, fused=fused, **settings)
        if state is not None:
            solver_state.load(optimizer, state)
        parameter.grad = slope
        optimizer.step()
        kept: dict[str, Any] = optimizer.state_dict()
        return kept

    first = torch.nn.Parameter(value.clone())
    state = after(first, slopes[0], None, fused=True)
    moved = torch.nn.Parameter(first.detach().contiguous(memory_format=last))
    after(moved, slopes[1].contiguous(memory_format=last), state, fused=True)
    right = torch.nn.Parameter(value.double())
    state = after(right, slopes[0].double(), None, fused=False)
    after(right, slopes[1].double(), state, fused=False)
    assert torch.allclose(moved.detach().double(), right.detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["cross_entropy", "focal", "dice", "file"])
@pytest.mark.parametrize("order", ["NCHW", "NHWC"])
@pytest.mark.parametrize("classes", [4, 20])  # rows of classes are used for many classes only
def test_losses_of_classes_do_not_depend_on_the_order(kind: str, order: str, classes: int) -> None:
    """An output in either order, with weights and ignored labels; the reference is computed pixel by pixel in float64."""
    import torch
    from multiseg_torch import losses
    from multiseg_torch.class_losses import CrossEntropy, Dice, Focal

    draw = np.random.default_rng(5)
    weights = draw.uniform(0.5, 3, classes).tolist()
    scores, labels = draw.normal(size=(2, classes, 3, 5)), draw.integers(0, classes, (2, 1, 3, 5))
    labels[0, 0, 1] = 255
    loss = {
        "cross_entropy": CrossEntropy(255, weights), "focal": Focal(255, weights, gamma=2.0), "dice": Dice(255, smooth=1.0),
        "file": torch.nn.CrossEntropyLoss(torch.tensor(weights)),
    }[kind]  # fmt: skip
    output = torch.from_numpy(scores).float()
    if order == "NHWC":
        output = output.contiguous(memory_format=torch.channels_last)
    output.requires_grad_()
    value = losses.over_labels(loss, 255)(output, torch.from_numpy(labels).float())
    value.backward()

    def reference(scores: Any) -> float:
        p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        counted = labels != 255
        if kind == "dice":
            hits = np.stack([labels[:, 0] == c for c in range(classes)], 1)
            p = p * counted
            shares = [(2 * (p * hits).sum((2, 3)) + 1) / (p.sum((2, 3)) + hits.sum((2, 3)) + 1)]
            return float((1 - shares[0]).mean())
        total = weight = 0.0
        for n, _, row, column in zip(*np.nonzero(counted), strict=True):
            label = labels[n, 0, row, column]
            of_label = p[n, label, row, column]
            factor = weights[label] * ((1 - of_label) ** 2 if kind == "focal" else 1)
            total -= factor * np.log(of_label)
            weight += weights[label] if kind == "file" else 1
        return total / weight

    assert value.item() == pytest.approx(reference(scores), rel=1e-5)
    for place in [(0, 1, 0, 2), (1, 3, 2, 4), (0, 0, 1, 1)]:
        change = np.zeros_like(scores)
        change[place] = 1e-5
        slope = (reference(scores + change) - reference(scores - change)) / 2e-5
        assert output.grad is not None
        assert output.grad[place].item() == pytest.approx(slope, rel=1e-3, abs=1e-6)
