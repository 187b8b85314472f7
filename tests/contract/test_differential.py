"""Random networks through training, testing, conversion and export on every backend, each number against PyTorch in float64.

The float64 network (helpers.differential) shares no code with multiseg. Five cases run with the other tests, and 500 in the
nightly set. MULTISEG_TEST_CASES=LOW-HIGH selects others.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multiseg
from helpers import differential
from multiseg.model_files import weights_file

pytestmark = pytest.mark.needs("caffe", "tensorflow", "torch")

LOW, HIGH = (int(number) for number in os.environ.get("MULTISEG_TEST_CASES", "0-500").split("-"))
ALWAYS = 5  # cases of each of these backends that run with the other tests
IN_EVERY_RUN = ("caffe", "tensorflow")
CASES = [
    (name, seed) if name in IN_EVERY_RUN and seed < ALWAYS else pytest.param(name, seed, marks=pytest.mark.nightly)
    for name in (*IN_EVERY_RUN, "torch")
    for seed in range(LOW, HIGH)
]


class Differences(list[str]):
    """Collects what differs, so that one case reports everything."""

    def check(self, what: str, actual: Any, expected: Any, tolerance: float = 2e-4) -> None:
        """Compare arrays relative to the largest expected value."""
        actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
        if actual.shape != expected.shape:
            self.append(f"{what}: shape {actual.shape} instead of {expected.shape}")
            return
        size = max(float(np.abs(expected).max(initial=0)), 1e-3)
        error = float(np.abs(actual - expected).max(initial=0)) / size
        if not error <= tolerance:
            self.append(f"{what}: differs by {error:.2g} of {size:.4g}")


@pytest.mark.parametrize(("framework", "seed"), CASES)
def test_every_number_of_a_random_network(framework: str, seed: int, tmp_path: Path) -> None:
    backend = framework
    case = differential.draw(seed, slopes=backend != "tensorflow")
    data = differential.write_data(case, tmp_path)
    (tmp_path / "net.prototxt").write_text(differential.prototxt(case))
    dataset = multiseg.Dataset.create(
        tmp_path / "dataset", input=tmp_path / "train/input", target=tmp_path / "train/target",
        val_input=tmp_path / "val/input", val_target=tmp_path / "val/target", seed=1,
        labels="classes" if case.loss == "SoftmaxWithLoss" else "images", ignore=case.ignore,
    )  # fmt: skip
    weights_file.write(tmp_path / "start.safetensors", weights_file.NeutralWeights(case.weights, "RGB"))
    differences = Differences()
    mean = np.zeros((case.channels, 1, 1))
    if case.subtract_mean != "none":
        mean = np.asarray(dataset.mean_image, np.float64)
        exact = data.train[0].astype(np.float64).mean(0)
        assert np.abs(mean - exact).max() <= 0.5 + 1e-6  # it is rounded to whole numbers
        mean = mean.mean((1, 2), keepdims=True) if case.subtract_mean == "pixel" else mean
    features = {"train": data.train[0] - mean, "val": data.val[0] - mean}

    # a loss of images stays with its framework (docs/migrate.md), so that other backends train with a loss that all have
    named = "l2" if case.loss == "EuclideanLoss" and backend != "caffe" else None
    network = differential.Network(case, case.weights, mean_squares=named is not None)
    rate = 0.02 / network.largest_gradient(features["train"], data.train[1])
    first = float(network.loss(features["val"], data.val[1]).detach())
    losses = [network.step(features["train"], data.train[1], rate) for _ in range(2)]
    job = multiseg.Job(
        dataset, backend, model=tmp_path / "net.prototxt", epochs=2, weights=tmp_path / "start.safetensors", seed=seed,
        batch_size=differential.TRAIN, val_batch_size=differential.VAL, learning_rate=rate, lr_policy={"policy": "fixed"},
        solver_options={"momentum": 0.0, "weight_decay": 0.0, **({"dampening": 0.0} if backend == "torch" else {})},
        subtract_mean=case.subtract_mean, threads=1, loss=named,
    )  # fmt: skip
    with job.train(tmp_path / "run", progress=False) as run:
        rows = run.history
        differences.check("loss of validation before training", rows[0]["val_loss"], first)
        differences.check("losses of training", [row["train_loss"] for row in rows[1:]], losses)
        trained = _weights(run, tmp_path, case)
        for name in network.weights:
            if "running" not in name:
                differences.check(f"trained {name}", trained[name], network.weights[name])
        # PyTorch and TensorFlow move statistics by rules of their own, so that theirs are taken as they are below
        for name in network.batch_statistics if backend == "caffe" else ():
            for part, expected in network.moved_statistics(name).items():
                differences.check(f"statistics {name}.{part}", trained[f"{name}.{part}"], expected, 1e-3)
        final = differential.Network(case, trained, mean_squares=named is not None)
        expected = final.output(features["val"])
        differences.check("loss of validation", rows[-1]["val_loss"], final.loss(features["val"], data.val[1]).detach())
        _check_tests(run, case, data, expected, float(final.loss(features["val"], data.val[1]).detach()), differences)
        _check_exports(run, backend, features["val"], expected, tmp_path, differences)
    assert not differences, f"{case}\n{backend}: " + "\n".join(differences)


def _weights(run: Any, folder: Path, case: differential.Case) -> dict[str, Any]:
    """Return the weights of a run by the names of the prototxt, for images in RGB."""
    multiseg.convert(run.path, "safetensors", folder / "trained.safetensors", network=folder / "net.prototxt",
                     input_shape=(case.channels, *case.size))  # fmt: skip
    content = weights_file.read(folder / "trained.safetensors")
    weights = dict(content.weights)
    if content.channel_order == "BGR" and case.channels == 3:
        weights["conv0.weight"] = weights["conv0.weight"][:, ::-1].copy()
    return weights


def _check_tests(run: Any, case: Any, data: Any, expected: Any, loss: float, differences: Differences) -> None:
    """Compare test_one, test_list and test_db with the expected outputs."""
    files = [data.folder / "val/input" / f"{index}.png" for index in range(differential.VAL)]
    differences.check("test_one", run.test_one(files[1]).array, expected[1])
    differences.check("test_list", [output.array for output in run.test_list(files)], expected)
    outputs: dict[int, Any] = {}
    result = run.test_db(
        run.dataset.path / "val_db/features", each=lambda index, output: outputs.update({index: output.array})
    )
    differences.check("test_db", [outputs[index] for index in range(differential.VAL)], expected)
    differences.check("loss of test_db", result["val_loss"], loss)
    labels = data.val[1]
    if case.loss != "SoftmaxWithLoss":
        differences.check("l1", result["l1"], np.abs(expected - labels).mean())
        differences.check("l2", result["l2"], np.square(expected - labels).mean())
        return
    counted = labels[:, 0] != (-1 if case.ignore is None else case.ignore)
    truth, predicted = labels[:, 0][counted].astype(int), np.stack(list(outputs.values())).argmax(1)[counted]
    confusion = np.zeros((case.outputs, case.outputs))
    np.add.at(confusion, (truth, predicted), 1)
    differences.check("confusion", result["confusion"], confusion, 0)
    union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    differences.check("miou", result["miou"], (confusion.diagonal()[union > 0] / union[union > 0]).mean(), 1e-9)


def _check_exports(run: Any, backend: str, images: Any, expected: Any, folder: Path, differences: Differences) -> None:
    """Compare the run's network and weights, exported to PyTorch, with the expected outputs when PyTorch runs them."""
    import torch

    path = multiseg.export(run.model, "torch", folder / "exported.py", input_shape=tuple(images.shape[1:]))
    multiseg.convert(run.path, "pt", folder / "exported.pt", network=path, input_shape=tuple(images.shape[1:]))
    namespace: dict[str, Any] = {"__name__": "exported"}
    exec(path.read_text(), namespace)
    modules = [value for value in namespace.values() if isinstance(value, type) and issubclass(value, torch.nn.Module)]
    module = modules[-1]().eval()
    module.load_state_dict(torch.load(folder / "exported.pt"))
    with torch.no_grad():
        output = module(torch.from_numpy(np.ascontiguousarray(images, np.float32))).numpy()
    differences.check("exported to PyTorch", output, expected)
