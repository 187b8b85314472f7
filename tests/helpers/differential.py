"""Random networks in DIGITS' manner, as prototxts of three states, and computed by PyTorch in float64 without multiseg."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

Array = Any
LOSSES = ("EuclideanLoss", "SigmoidCrossEntropyLoss", "SoftmaxWithLoss")
TRAIN, VAL = 8, 4  # images of each kind


@dataclass
class Case:
    """A network, a dataset and the settings of a job, drawn at random with ``seed``.

    ``steps`` are the layers (type, name, bottoms, parameters) between ``data`` and the scores; ``weights`` are the initial
    weights by ``layer.part``, for images in RGB.
    """

    seed: int
    channels: int
    size: tuple[int, int]
    loss: str
    outputs: int
    ignore: int | None
    scale: float | None
    subtract_mean: str
    steps: list[tuple[str, str, list[str], dict[str, Any]]] = field(default_factory=list)
    weights: dict[str, Array] = field(default_factory=dict)

    @property
    def scores(self) -> str:
        """The blob that the loss takes."""
        return self.steps[-1][1]

    @property
    def activation(self) -> str | None:
        """The layer of deployment after the scores."""
        return {"EuclideanLoss": None, "SigmoidCrossEntropyLoss": "Sigmoid", "SoftmaxWithLoss": "Softmax"}[self.loss]

    def __str__(self) -> str:
        layers = " ".join(f"{kind}{parameters or ''}" for kind, _, _, parameters in self.steps)
        return (
            f"case {self.seed}: {self.channels}x{self.size} {layers} {self.loss} outputs {self.outputs} ignore {self.ignore} "
            f"scale {self.scale} mean {self.subtract_mean}"
        )


def draw(seed: int, slopes: bool = True) -> Case:
    """Return the case of a seed; without ``slopes``, its PReLU layers have one fixed slope.

    TensorFlow has no PReLU, so that an exported network with one is not the same network.
    """
    random = np.random.default_rng(seed)

    def one_of(*choices: Any) -> Any:
        return choices[random.integers(len(choices))]

    loss = one_of(*LOSSES)
    channels = one_of(1, 3)
    case = Case(
        seed,
        channels,
        (2 * int(random.integers(3, 6)), 2 * int(random.integers(3, 6))),
        loss,
        1 if loss != "SoftmaxWithLoss" else int(random.integers(2, 5)),
        255 if loss == "SoftmaxWithLoss" and random.random() < 0.5 else None,
        one_of(None, 0.00390625, 0.0125),
        one_of("none", "pixel", "image"),
    )
    blob, width = "data", channels

    def add(kind: str, name: str, bottoms: list[str], **parameters: Any) -> str:
        case.steps.append((kind, name, bottoms, parameters))
        return name

    for index in range(int(random.integers(1, 4))):
        before, before_width = blob, width
        width = int(random.integers(2, 5)) if random.random() < 0.7 or index == 0 else width
        kernel, dilation = one_of((3, 1), (5, 1), (1, 1), (3, 2))
        bias = random.random() < 0.7
        blob = add(
            "Convolution", f"conv{index}", [blob], num_output=width, kernel_size=kernel, dilation=dilation,
            pad=dilation * (kernel - 1) // 2, bias_term=bias,
        )  # fmt: skip
        fan_in = before_width * kernel * kernel * (255 if index == 0 and case.scale is None else 1)
        case.weights[f"{blob}.weight"] = random.normal(size=(width, before_width, kernel, kernel)) / np.sqrt(fan_in)
        if bias:
            case.weights[f"{blob}.bias"] = random.normal(size=width) / 10
        if random.random() < 0.5:
            stored = one_of(None, None, True)
            blob = add("BatchNorm", f"bn{index}", [blob], use_global_stats=stored, eps=one_of(1e-5, 1e-3),
                       fraction=one_of(0.999, 0.9))  # fmt: skip
            case.weights[f"{blob}.running_mean"] = random.normal(size=width) / 4
            case.weights[f"{blob}.running_var"] = random.uniform(0.5, 2, width)
            blob = add("Scale", f"scale{index}", [blob])
            case.weights[f"{blob}.weight"] = random.uniform(0.5, 1.5, width)
            case.weights[f"{blob}.bias"] = random.normal(size=width) / 4
        kind = one_of("ReLU", "ReLU", "TanH", "Sigmoid", "PReLU", "ELU", "LeakyReLU", "AbsVal", None)
        if kind == "PReLU" and not slopes:
            kind = "LeakyReLU"
        if kind is not None:
            blob = add(kind, f"act{index}", [blob])
            if kind == "PReLU":
                case.weights[f"{blob}.weight"] = random.uniform(0.1, 0.4, width)
        if random.random() < 0.3:
            blob = add("Pooling", f"pool{index}", [blob], pool=one_of("MAX", "AVE"))
            kernel = one_of(2, 4)
            blob = add(
                "Deconvolution", f"up{index}", [blob], num_output=width, kernel_size=kernel, pad=(kernel - 2) // 2
            )
            case.weights[f"{blob}.weight"] = random.normal(size=(width, width, kernel, kernel)) / np.sqrt(width * 4)
            case.weights[f"{blob}.bias"] = random.normal(size=width) / 10
        if index and width == before_width and random.random() < 0.5:
            blob = add("Eltwise", f"sum{index}", [blob, before])
        elif index and random.random() < 0.2:
            blob = add("Concat", f"join{index}", [blob, before])
            width += before_width
    blob = add(
        "Convolution", "score", [blob], num_output=case.outputs, kernel_size=1, dilation=1, pad=0, bias_term=True
    )
    case.weights["score.weight"] = random.normal(size=(case.outputs, width, 1, 1)) / np.sqrt(width)
    case.weights["score.bias"] = random.normal(size=case.outputs) / 4
    case.weights = {name: value.astype(np.float32) for name, value in case.weights.items()}
    return case


def prototxt(case: Case) -> str:
    """Return the case's network as DIGITS users write it: data layers, losses and deployment by stage."""
    transform = "" if case.scale is None else f" transform_param {{ scale: {case.scale} }}"
    parts = [f'name: "case{case.seed}"']
    for stage in ("train", "val"):
        parts.append(
            f'layer {{ name: "{stage}-data" type: "Data" top: "data" include {{ stage: "{stage}" }}{transform} '
            f"data_param {{ batch_size: {TRAIN if stage == 'train' else VAL} }} }}"
        )
        parts.append(
            f'layer {{ name: "{stage}-label" type: "Data" top: "label" include {{ stage: "{stage}" }} '
            f"data_param {{ batch_size: {TRAIN if stage == 'train' else VAL} }} }}"
        )
    for kind, name, bottoms, parameters in case.steps:
        sources = " ".join(f'bottom: "{bottom}"' for bottom in bottoms)
        in_caffe = "ReLU" if kind == "LeakyReLU" else kind
        parts.append(f'layer {{ name: "{name}" type: "{in_caffe}" {sources} top: "{name}" {_text(kind, parameters)} }}')
    ignored = "" if case.ignore is None else f" loss_param {{ ignore_label: {case.ignore} }}"
    parts.append(
        f'layer {{ name: "loss" type: "{case.loss}" bottom: "{case.scores}" bottom: "label" top: "loss"{ignored} '
        'exclude { stage: "deploy" } }'
    )
    if case.activation is not None:
        parts.append(
            f'layer {{ name: "output" type: "{case.activation}" bottom: "{case.scores}" top: "output" '
            'include { stage: "deploy" } }'
        )
    return "\n".join(parts) + "\n"


def _text(kind: str, parameters: dict[str, Any]) -> str:
    """Return the parameters of a layer in a prototxt."""
    if kind in ("Convolution", "Deconvolution"):
        stride = " stride: 2" if kind == "Deconvolution" else ""
        values = " ".join(f"{key}: {str(value).lower()}" for key, value in parameters.items())
        return f'convolution_param {{ {values}{stride} weight_filler {{ type: "xavier" }} }}'
    if kind == "BatchNorm":
        stored = parameters["use_global_stats"]
        words = "" if stored is None else f" use_global_stats: {str(stored).lower()}"
        return (
            f"batch_norm_param {{ eps: {parameters['eps']} moving_average_fraction: {parameters['fraction']}{words} }}"
        )
    if kind == "Scale":
        return "scale_param { bias_term: true }"
    if kind == "Pooling":
        return f"pooling_param {{ pool: {parameters['pool']} kernel_size: 2 stride: 2 }}"
    return "relu_param { negative_slope: 0.125 }" if kind == "LeakyReLU" else ""


class Network:
    """The case's network in float64; ``weights`` change with :meth:`step`.

    With ``mean_squares``, the loss of images is the mean over all elements instead of Caffe's EuclideanLoss.
    """

    def __init__(self, case: Case, weights: dict[str, Array], mean_squares: bool = False) -> None:
        self.case = case
        self.mean_squares = mean_squares
        self.batch_statistics: dict[str, list[Any]] = {}
        self._started = dict(weights)
        self.weights = {name: torch.tensor(np.asarray(value), dtype=torch.float64) for name, value in weights.items()}

    def scores(self, images: Array, training: bool = False) -> Any:
        """Return what the loss takes for images whose mean is subtracted, (N, C, H, W) in RGB."""
        blobs = {"data": torch.tensor(images, dtype=torch.float64) * (self.case.scale or 1)}
        for kind, name, bottoms, parameters in self.case.steps:
            own = {
                part: self.weights.get(f"{name}.{part}") for part in ("weight", "bias", "running_mean", "running_var")
            }
            blobs[name] = self._layer(kind, name, parameters, own, [blobs[bottom] for bottom in bottoms], training)
        return blobs[self.case.scores]

    def _layer(self, kind: str, name: str, p: dict[str, Any], w: dict[str, Any], x: list[Any], training: bool) -> Any:
        first = x[0]
        if kind == "Convolution":
            return functional.conv2d(first, w["weight"], w["bias"], padding=p["pad"], dilation=p["dilation"])
        if kind == "Deconvolution":
            return functional.conv_transpose2d(first, w["weight"], w["bias"], stride=2, padding=p["pad"])
        if kind == "BatchNorm":
            mean, variance = w["running_mean"], w["running_var"]
            if training and not p["use_global_stats"]:
                mean, variance = first.mean((0, 2, 3)), first.var((0, 2, 3), unbiased=False)
                self.batch_statistics.setdefault(name, []).append(
                    (mean.detach(), variance.detach(), first.numel() // len(mean))
                )
            centred = first - mean[:, None, None]
            return centred / torch.sqrt(variance[:, None, None] + p["eps"])
        if kind == "Scale":
            return first * w["weight"][:, None, None] + w["bias"][:, None, None]
        if kind == "PReLU":
            return torch.where(first > 0, first, first * w["weight"][:, None, None])
        if kind == "Pooling":
            pool = functional.max_pool2d if p["pool"] == "MAX" else functional.avg_pool2d
            return pool(first, 2)
        if kind == "Eltwise":
            return x[0] + x[1]
        if kind == "Concat":
            return torch.cat(x, 1)
        return FUNCTIONS[kind](first)

    def output(self, images: Array) -> Array:
        """Return the output of deployment."""
        with torch.no_grad():
            scores = self.scores(images)
            activation = self.case.activation
            if activation == "Sigmoid":
                scores = torch.sigmoid(scores)
            return (torch.softmax(scores, 1) if activation == "Softmax" else scores).numpy()

    def loss(self, images: Array, labels: Array, training: bool = False) -> Any:
        """Return Caffe's loss, by its documentation, or the mean square; labels are (N, 1, H, W)."""
        scores, y = self.scores(images, training), torch.tensor(labels.astype(np.float64))
        if self.case.loss == "EuclideanLoss":
            squares = (scores - y) ** 2
            return squares.mean() if self.mean_squares else squares.sum() / (2 * len(y))
        if self.case.loss == "SigmoidCrossEntropyLoss":
            return functional.binary_cross_entropy_with_logits(scores, y, reduction="sum") / len(y)
        logs = torch.log_softmax(scores, 1)
        counts = y[:, 0] != (-1 if self.case.ignore is None else self.case.ignore)
        index = torch.where(counts, y[:, 0], torch.zeros_like(y[:, 0])).long()
        terms = -logs.gather(1, index[:, None])[:, 0] * counts
        return terms.sum() / max(int(counts.sum()), 1)

    def moved_statistics(self, name: str) -> dict[str, Array]:
        """Return the stored statistics of a BatchNorm after the steps, as Caffe's BatchNorm moves them, starting at factor 1."""
        fraction = next(parameters["fraction"] for _, other, _, parameters in self.case.steps if other == name)
        factor, mean, variance = (
            1.0,
            *(self._started[f"{name}.running_{part}"].astype(np.float64) for part in ("mean", "var")),
        )
        for batch_mean, batch_variance, count in self.batch_statistics[name]:
            factor = factor * fraction + 1
            mean = mean * fraction + batch_mean.numpy()
            variance = variance * fraction + batch_variance.numpy() * count / (count - 1)
        return {"running_mean": mean / factor, "running_var": variance / factor}

    def largest_gradient(self, images: Array, labels: Array) -> float:
        """Return the largest absolute value of the gradient of the loss."""
        learned = [value.requires_grad_() for name, value in self.weights.items() if "running" not in name]
        gradients = torch.autograd.grad(self.loss(images, labels, training=True), learned)
        self.batch_statistics.clear()
        return max(float(gradient.abs().max()) for gradient in gradients)

    def step(self, images: Array, labels: Array, rate: float) -> float:
        """Take a step of gradient descent on one batch, and return the loss before it."""
        learned = {name: value.requires_grad_() for name, value in self.weights.items() if "running" not in name}
        loss = self.loss(images, labels, training=True)
        gradients = torch.autograd.grad(loss, list(learned.values()))
        for (name, value), gradient in zip(learned.items(), gradients, strict=True):
            self.weights[name] = (value - rate * gradient).detach()
        return float(loss)


FUNCTIONS = {
    "ReLU": torch.relu,
    "TanH": torch.tanh,
    "Sigmoid": torch.sigmoid,
    "ELU": functional.elu,
    "LeakyReLU": lambda x: functional.leaky_relu(x, 0.125),
    "AbsVal": torch.abs,
}


@dataclass
class Data:
    """The images and labels of a case, as stored: ``train`` and ``val`` are pairs of arrays (N, C, H, W)."""

    folder: Path
    train: tuple[Array, Array]
    val: tuple[Array, Array]

    def mean(self, case: Case) -> Array:
        """Return the mean of the training images that is subtracted: its values are whole numbers, see docs/dataset.md."""
        if case.subtract_mean == "none":
            return np.zeros((case.channels, 1, 1))
        image = np.round(self.train[0].astype(np.float64).mean(0))
        return image if case.subtract_mean == "image" else image.mean((1, 2), keepdims=True)


def write_data(case: Case, folder: Path) -> Data:
    """Draw the images and labels of a case, and write them as PNG files to ``folder``."""
    random = np.random.default_rng(1000 + case.seed)
    height, width = case.size
    arrays = []
    for split, count in (("train", TRAIN), ("val", VAL)):
        images = random.integers(0, 256, (count, case.channels, height, width), np.uint8)
        limit = {"EuclideanLoss": 256, "SigmoidCrossEntropyLoss": 2}.get(case.loss, case.outputs)
        labels = random.integers(0, limit, (count, 1, height, width), np.uint8)
        if case.ignore is not None:
            labels[random.random(labels.shape) < 0.2] = case.ignore
        for kind, batch in (("input", images), ("target", labels)):
            (folder / split / kind).mkdir(parents=True)
            for index, image in enumerate(batch):
                picture = image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)
                Image.fromarray(picture).save(folder / split / kind / f"{index}.png")
        arrays.append((images, labels))
    return Data(folder, arrays[0], arrays[1])
