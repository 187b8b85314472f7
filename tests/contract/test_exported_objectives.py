"""Cross entropies of prototxts, exported: loss, gradient and output of the exported network against float64 NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from multiseg_caffe import proto

from helpers.exported import Array, Frameworks
from multiseg import backend as registry
from multiseg.exporting import files
from multiseg.layout import Layout
from multiseg.topology import Topology

CLASSES, IGNORED = 3, 7
RULES = 'exclude { stage: "deploy" }'
NET = """
layer {{ name: "data" type: "Input" top: "data" include {{ stage: "deploy" }}
        input_param {{ shape {{ dim: 1 dim: 2 dim: 4 dim: 5 }} }} }}
layer {{ name: "images" type: "Data" top: "data" exclude {{ stage: "deploy" }} }}
layer {{ name: "labels" type: "Data" top: "label" {label} exclude {{ stage: "deploy" }} }}
layer {{ name: "score" type: "Convolution" bottom: "data" top: "score"
        convolution_param {{ num_output: {outputs} kernel_size: 1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "prob" type: "{last}" bottom: "score" top: "prob" include {{ stage: "deploy" }} }}
layer {{ name: "loss" type: "{loss}" bottom: "score" bottom: "label" top: "loss" {options} exclude {{ stage: "deploy" }} }}
"""


@pytest.fixture(scope="module")
def frameworks() -> Iterator[Frameworks]:
    workers = Frameworks()
    yield workers
    workers.close()


def softmax(scores: Array) -> Array:
    powers: Array = np.exp(scores - scores.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def divisor(normalization: str, counted: Array) -> float:
    """Caffe's divisor, by its documentation of NormalizationMode."""
    return {"VALID": counted.sum(), "FULL": counted.size, "BATCH_SIZE": len(counted), "NONE": 1}[normalization]


def class_reference(scores: Array, labels: Array, ignored: bool, normalization: str) -> tuple[float, Array]:
    """Return the loss and its gradient at the scores."""
    counted = labels[:, 0] != IGNORED if ignored else np.ones_like(labels[:, 0], bool)
    right = np.where(counted, labels[:, 0], 0).astype(int)[:, None]
    shifted = scores - scores.max(1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    total = -(np.take_along_axis(logs, right, 1)[:, 0] * counted).sum()
    slope = softmax(scores)
    np.put_along_axis(slope, right, np.take_along_axis(slope, right, 1) - 1, 1)
    by = max(divisor(normalization, counted), 1)
    return float(total / by), slope * counted[:, None] / by


def sigmoid_reference(scores: Array, labels: Array, ignored: bool, normalization: str) -> tuple[float, Array]:
    counted = labels != IGNORED if ignored else np.ones_like(labels, bool)
    terms = np.logaddexp(0, scores) - scores * labels
    by = max(divisor(normalization, counted), 1)
    return float((terms * counted).sum() / by), (1 / (1 + np.exp(-scores)) - labels) * counted / by


def run(
    frameworks: Frameworks, backend: str, text: str, labels: Array, folder: Path
) -> tuple[float, Array, Array, dict[str, Array]]:
    """Export, load, and return loss, scores, output, and the gradient of each parameter of the network in ``backend``."""
    (folder / "net.prototxt").write_text(text)
    original = frameworks.describe(folder / "net.prototxt", (2, 4, 5))
    return apply(frameworks, backend, original, labels, folder, 150.0)


def apply(
    frameworks: Frameworks, backend: str, original: Topology, labels: Array, folder: Path, size: float
) -> tuple[float, Array, Array, dict[str, Array]]:
    """As run, for a described network; ``size`` is that of the weights."""
    path = files.export(
        original, backend, folder / f"net_exported{registry.get(backend).formats[0]}", label_shape=labels.shape[1:]
    )
    draw = np.random.default_rng(1)
    images = draw.standard_normal((len(labels), 2, 4, 5)).astype(np.float32)
    outputs = original.weights["score.weight"][0]
    # scores of up to a few hundred: the probability of the right class is 0 in float32 at many pixels
    weights = {
        "score.weight": (size * draw.standard_normal((outputs, 2, 1, 1))).astype(np.float32),
        "score.bias": draw.standard_normal(outputs).astype(np.float32),
    }
    solver = {"name": "sgd", "momentum": 0.0, "weight_decay": 0.0}
    worker = frameworks.load(backend, path, original, weights, label_shape=labels.shape[1:], solver=solver)
    layout = Layout(registry.get(backend).data_order, "RGB", None)
    batch = {"features": layout.features(images), "labels": layout.labels(labels)}
    output, loss, _ = worker.call("predict", **batch)
    step_loss = worker.call("train_step", **batch, rate=2.0**-10, seed=0)
    assert step_loss == pytest.approx(loss, rel=1e-5, abs=1e-6)
    after = worker.call("get_weights")
    gradient = {name: (weights[name].astype(np.float64) - after[name]) * 2**10 for name in weights}
    kernel = weights["score.weight"][:, :, 0, 0].astype(np.float64)
    scores = (
        np.einsum("oi,nihw->nohw", kernel, images.astype(np.float64))
        + weights["score.bias"].astype(np.float64)[:, None, None]
    )
    return loss, scores, layout.activation(output), {"images": images, **gradient}


def check_gradient(gradient: dict[str, Array], slope: Array, tolerance: float = 2e-2) -> None:
    expected = {
        "score.weight": np.einsum("nohw,nihw->oi", slope, gradient["images"].astype(np.float64))[:, :, None, None],
        "score.bias": slope.sum((0, 2, 3)),
    }
    for name, value in expected.items():
        # the change of a float32 weight of size 150 by 2**-10 of the gradient is rounded to 2**-17
        assert np.abs(gradient[name] - value).max() <= tolerance + 1e-5 * np.abs(value).max(), name


NORMALIZED = {
    "": ("VALID", "BATCH_SIZE"),  # the default of SoftmaxWithLoss, of SigmoidCrossEntropyLoss
    "normalization: FULL": ("FULL",) * 2,
    "normalization: BATCH_SIZE": ("BATCH_SIZE",) * 2,
    "normalize: false": ("BATCH_SIZE",) * 2,
    "normalize: true": ("VALID",) * 2,
    "normalization: NONE": ("NONE",) * 2,
}


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("option", NORMALIZED)
def test_softmax_for_deployment_with_softmax_loss(
    backend: str, frameworks: Frameworks, option: str, ignored: bool, tmp_path: Path
) -> None:
    labels = np.random.default_rng(5).integers(0, CLASSES, (2, 1, 4, 5)).astype(np.float32)
    options = f"loss_param {{ {option} {f'ignore_label: {IGNORED}' if ignored else ''} }}"
    if ignored:
        labels[:1, :, 1:3] = IGNORED
    text = NET.format(label="", outputs=CLASSES, last="Softmax", loss="SoftmaxWithLoss", options=options)
    loss, scores, output, gradient = run(frameworks, backend, text, labels, tmp_path)
    expected, slope = class_reference(scores, labels, ignored, NORMALIZED[option][0])
    assert (np.abs(slope) > 0.99 * np.abs(slope).max()).sum() > 5  # confident errors
    if backend != "caffe":  # which clips probabilities at 1e-38 in the loss, not in the gradient
        assert loss == pytest.approx(expected, rel=1e-4)
    check_gradient(gradient, slope)
    assert output == pytest.approx(softmax(scores), abs=1e-4)


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("option", NORMALIZED)
def test_sigmoid_for_deployment_with_sigmoid_loss(
    backend: str, frameworks: Frameworks, option: str, ignored: bool, tmp_path: Path
) -> None:
    labels = np.random.default_rng(5).integers(0, 2, (2, 1, 4, 5)).astype(np.float32)
    options = f"loss_param {{ {option} {f'ignore_label: {IGNORED}' if ignored else ''} }}"
    if ignored:
        labels[:1, :, 1:3] = IGNORED
    text = NET.format(label="", outputs=1, last="Sigmoid", loss="SigmoidCrossEntropyLoss", options=options)
    loss, scores, output, gradient = run(frameworks, backend, text, labels, tmp_path)
    expected, slope = sigmoid_reference(scores, labels, ignored, NORMALIZED[option][1])
    assert (np.abs(slope) > 0.99 * np.abs(slope).max()).sum() > 5
    if backend != "caffe" or not ignored:  # Caffe leaves ignored labels out of the gradient alone
        assert loss == pytest.approx(expected, rel=1e-4)
    check_gradient(gradient, slope)
    assert output == pytest.approx(1 / (1 + np.exp(-scores)), abs=1e-4)


def test_weights_of_losses_and_factors_of_labels_are_kept(backend: str, frameworks: Frameworks, tmp_path: Path) -> None:
    labels = 255 * np.random.default_rng(5).integers(0, 2, (2, 1, 4, 5)).astype(np.float32)
    scaled = "transform_param { scale: 0.00392156862745098 }"
    text = NET.format(
        label=scaled, outputs=1, last="Sigmoid", loss="SigmoidCrossEntropyLoss", options="loss_weight: 0.5"
    )
    loss, scores, _, gradient = run(frameworks, backend, text, labels, tmp_path)
    expected, slope = sigmoid_reference(scores, labels / 255, False, "BATCH_SIZE")
    assert loss == pytest.approx(expected / 2, rel=1e-4)
    check_gradient(gradient, slope / 2)


@pytest.mark.parametrize("loss", ["SoftmaxWithLoss", "SigmoidCrossEntropyLoss"])
def test_a_batch_whose_labels_are_all_ignored_has_the_loss_0(
    backend: str, frameworks: Frameworks, loss: str, tmp_path: Path
) -> None:
    outputs, last = (CLASSES, "Softmax") if loss == "SoftmaxWithLoss" else (1, "Sigmoid")
    options: dict[str, Any] = {"label": "", "outputs": outputs, "last": last, "loss": loss}
    labels = np.full((2, 1, 4, 5), IGNORED, np.float32)
    text = NET.format(**options, options=f"loss_param {{ ignore_label: {IGNORED} }}")
    value, _, _, gradient = run(frameworks, backend, text, labels, tmp_path)
    if (backend, loss) != ("caffe", "SigmoidCrossEntropyLoss"):
        assert value == 0
    check_gradient(gradient, np.zeros((2, outputs, 4, 5)))


MATRICES = {
    "diagonal": np.diag([1.0, 0.25, 3.0]),
    "general": np.array([[1.0, 0.5, 0.0], [0.125, 2.0, 0.25], [0.5, 0.0, 3.0]]),
}


def matrix_reference(scores: Array, labels: Array, matrix: Array, ignored: bool, by: str) -> tuple[float, Array]:
    """Return -sum over k of H[l, k] log p[k] and its gradient, divided as in infogain_loss_layer.cpp."""
    counted = labels[:, 0] != IGNORED if ignored else np.ones_like(labels[:, 0], bool)
    rows = np.moveaxis(matrix[np.where(counted, labels[:, 0], 0).astype(int)], 3, 1) * counted[:, None]
    shifted = scores - scores.max(1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    number = np.take_along_axis(rows, np.where(counted, labels[:, 0], 0).astype(int)[:, None], 1).sum()
    count = number if by == "WEIGHTED" else max(divisor(by, counted), 1)
    return float(-(rows * logs).sum() / count), (softmax(scores) * rows.sum(1, keepdims=True) - rows) / count


def with_matrix(folder: Path, kind: str, option: str = "") -> str:
    """Write the matrix into ``folder``, and return the text of a prototxt with this InfogainLoss."""
    values = MATRICES[kind].ravel()
    blob = proto.BlobProto(num=1, channels=1, height=CLASSES, width=CLASSES, data=values)
    (folder / "H.binaryproto").write_bytes(blob.SerializeToString())
    options = f'loss_weight: 0.5 infogain_loss_param {{ source: "H.binaryproto" }} loss_param {{ {option} }}'
    return NET.format(label="", outputs=CLASSES, last="Softmax", loss="InfogainLoss", options=options)


@pytest.mark.parametrize("kind", MATRICES)
@pytest.mark.parametrize(
    ("option", "by"), [("", "VALID"), ("normalization: FULL", "FULL"), ("normalization: NONE", "NONE")]
)
@pytest.mark.parametrize("ignored", [False, True])
def test_the_matrix_of_an_infogain_loss_is_kept(
    backend: str, frameworks: Frameworks, kind: str, option: str, by: str, ignored: bool, tmp_path: Path
) -> None:
    labels = np.random.default_rng(5).integers(0, CLASSES, (2, 1, 4, 5)).astype(np.float32)
    if ignored:
        labels[:1, :, 1:3] = IGNORED
    text = with_matrix(tmp_path, kind, f"{option} {f'ignore_label: {IGNORED}' if ignored else ''}")
    loss, scores, output, gradient = run(frameworks, backend, text, labels, tmp_path)
    expected, slope = matrix_reference(scores, labels, MATRICES[kind], ignored, by)
    if backend != "caffe":  # which clips probabilities at 1e-20 in the loss, not in the gradient
        assert loss == pytest.approx(expected / 2, rel=1e-4)
    check_gradient(gradient, slope / 2)
    assert output == pytest.approx(softmax(scores), abs=1e-4)
    exported = next(tmp_path.glob("net_exported*"))
    assert not files.exported_notes(exported)
    if backend != "tensorflow":  # whose losses are not described
        again = frameworks.describe(exported, (2, 4, 5)).objective
        assert again is not None and np.allclose(again["matrix"], MATRICES[kind]) and again["weight"] == 0.5


TORCH = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.score = nn.Conv2d(2, {outputs}, 1)

    def forward(self, x):
        return self.score(x)


def network(params):
    return {{"model": Net(), "loss": {loss}}}
"""


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_class_weights_are_kept_or_named(backend: str, frameworks: Frameworks, reduction: str, tmp_path: Path) -> None:
    loss = f'nn.CrossEntropyLoss(weight=torch.tensor([1.0, 0.25, 3.0]), ignore_index=7, reduction="{reduction}")'
    (tmp_path / "net.py").write_text(TORCH.format(outputs=CLASSES, loss=loss))
    original = frameworks.describe(tmp_path / "net.py", (2, 4, 5))
    labels = np.random.default_rng(5).integers(0, CLASSES, (2, 1, 4, 5)).astype(np.float32)
    labels[:1, :, 1:3] = IGNORED
    value, scores, _, gradient = apply(frameworks, backend, original, labels, tmp_path, 1.0)
    exact = reduction == "sum" or backend != "caffe"
    by = "NONE" if reduction == "sum" else "WEIGHTED" if exact else "VALID"
    expected, slope = matrix_reference(scores, labels, MATRICES["diagonal"], True, by)
    assert value == pytest.approx(expected, rel=1e-4)
    check_gradient(gradient, slope, 1e-3)
    notes = files.exported_notes(next(tmp_path.glob("net_exported*")))
    assert not notes if exact else "sum of the weights of its labels" in notes[0]


@pytest.mark.parametrize(
    ("suffix", "text", "words"),
    [
        (".prototxt", NET.format(label="", outputs=CLASSES, last="Softmax", loss="HingeLoss", options=""), "hinge"),
        (".prototxt", NET.format(label="", outputs=CLASSES, last="Softmax", loss="InfogainLoss",
                                 options='infogain_loss_param { source: "none" }'), "by a matrix"),
        (".py", TORCH.format(outputs=CLASSES, loss="nn.CrossEntropyLoss(label_smoothing=0.1)"), "softmax"),
        (".py", TORCH.format(outputs=1, loss="nn.BCEWithLogitsLoss(pos_weight=torch.tensor([2.0]))"), "binary"),
    ],
)  # fmt: skip
def test_a_loss_that_is_not_kept_is_named(
    backend: str, frameworks: Frameworks, suffix: str, text: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / f"net{suffix}").write_text(text)
    topology = frameworks.describe(tmp_path / f"net{suffix}", (2, 4, 5))
    path = files.export(topology, backend, tmp_path / f"net_exported{registry.get(backend).formats[0]}")
    (note,) = files.exported_notes(path)
    assert note.startswith(f"the loss of net{suffix} (") and words in note and "is not expressed" in note


def test_a_criterion_of_pytorch_takes_the_output_after_a_softmax(
    backend: str, frameworks: Frameworks, tmp_path: Path
) -> None:
    """CrossEntropyLoss of a network that ends in a softmax is the cross entropy of the softmax of probabilities."""
    text = TORCH.format(outputs=CLASSES, loss="nn.CrossEntropyLoss()").replace(
        "return self.score(x)", "return torch.softmax(self.score(x), 1)"
    )
    (tmp_path / "net.py").write_text(text)
    original = frameworks.describe(tmp_path / "net.py", (2, 4, 5))
    labels = np.random.default_rng(5).integers(0, CLASSES, (2, 1, 4, 5)).astype(np.float32)
    loss, scores, output, gradient = apply(frameworks, backend, original, labels, tmp_path, 1.0)
    p = softmax(scores)
    expected, at_p = class_reference(p, labels, False, "VALID")
    assert loss == pytest.approx(expected, rel=1e-5)
    check_gradient(gradient, p * (at_p - (at_p * p).sum(1, keepdims=True)), 1e-3)  # through the softmax
    assert output == pytest.approx(p, abs=1e-5)
