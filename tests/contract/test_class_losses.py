"""The named losses of classes: the reference against PyTorch in float64, and every backend against the reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multiseg
from helpers.class_masks import VOID, class_masks, net
from helpers.zoo import load
from multiseg import Dataset, Job
from multiseg import backend as registry
from multiseg.parity.comparing import returned_loss
from multiseg.reference import losses as reference
from multiseg.reference.bounded import Bounded
from multiseg.settings.losses import LOSSES, complete_options

OF_CLASSES = [name for name, row in LOSSES.items() if row.labels == "classes"]
WEIGHTS = (1.0, 0.25, 2.5)  # exact in float32
OPTIONS: dict[str, list[dict[str, float]]] = {"focal": [{}, {"gamma": 0.5}], "dice": [{}, {"smooth": 0.25}]}
CASES = [
    (name, options, weights)
    for name in OF_CLASSES
    for options in OPTIONS.get(name, [{}])
    for weights in ((), WEIGHTS)[: 1 + LOSSES[name].weighted]
]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return class_masks(tmp_path_factory.mktemp("three"))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return class_masks(tmp_path_factory.mktemp("two"), classes=2)


def _by_hand(name: str, scores: Any, labels: Any, options: Any, weights: Any) -> Any:
    """Return a loss by PyTorch's functions, of scores (N, C, H, W) and indices (N, H, W) with VOID."""
    import torch
    from torch.nn import functional

    counted = labels != VOID
    count = max(int(counted.sum()), 1)
    weight = torch.tensor(weights, dtype=scores.dtype) if weights else None
    if name == "cross_entropy":
        return functional.cross_entropy(scores, labels, weight, ignore_index=VOID, reduction="sum") / count
    if name == "focal":
        surprise = functional.cross_entropy(scores, labels, ignore_index=VOID, reduction="none")
        factor = 1 if weight is None else weight[torch.where(counted, labels, 0)]
        return (factor * (1 - torch.exp(-surprise)) ** options["gamma"] * surprise).nan_to_num()[counted].sum() / count
    if name == "dice":
        total, smooth = scores.new_zeros(()), options["smooth"]
        for p, label, valid in zip(scores.softmax(1), labels, counted, strict=True):
            for number in range(len(p)):
                truth = (label == number)[valid].to(p.dtype)
                guess = p[number][valid]
                total = total + 1 - (2 * (truth * guess).sum() + smooth) / (truth.sum() + guess.sum() + smooth)
        return total / (scores.shape[0] * scores.shape[1])
    return _by_hand("cross_entropy", scores, labels, {}, weights) + _by_hand("dice", scores, labels, options, ())


@pytest.mark.needs("torch")
@pytest.mark.parametrize(("name", "options", "weights"), CASES)
def test_the_reference_is_the_loss_of_pytorchs_functions(name: str, options: dict[str, float], weights: Any) -> None:
    import torch

    draw = np.random.default_rng(3)
    for scale, void in ((1, 0.3), (8, 0.3), (1, 1.0)):
        values, labels = draw.normal(0, scale, (3, 3, 5, 4)), draw.integers(0, 3, (3, 1, 5, 4))
        labels[draw.random(labels.shape) < void] = VOID
        complete = complete_options(name, options)
        (exact, *_), slope = reference.named(name, Bounded(values), labels, complete, weights, [VOID])
        scores = torch.tensor(values, requires_grad=True)
        expected = _by_hand(name, scores, torch.tensor(labels[:, 0]), complete, weights)
        expected.backward()
        assert float(exact.value) == pytest.approx(float(expected.detach()), rel=1e-13, abs=1e-15)
        np.testing.assert_allclose(slope.value, scores.grad.numpy(), rtol=1e-11, atol=1e-15)
        assert void < 1 or (float(exact.value) == 0 and not slope.value.any())


@pytest.mark.needs("torch")
def test_the_reference_of_the_binary_cross_entropy_is_pytorchs() -> None:
    import torch
    from torch.nn import functional

    draw = np.random.default_rng(3)
    values, labels = draw.normal(0, 5, (3, 1, 5, 4)), draw.integers(0, 256, (3, 1, 5, 4))
    (exact, _), slope = reference.named("binary_cross_entropy", Bounded(values), labels, {"label_max": 255}, (), [7, 9])
    scores, counted = torch.tensor(values, requires_grad=True), torch.tensor((labels != 7) & (labels != 9))
    expected = functional.binary_cross_entropy_with_logits(scores[counted], torch.tensor(labels / 255)[counted])
    expected.backward()
    assert float(exact.value) == pytest.approx(float(expected.detach()), rel=1e-13)
    np.testing.assert_allclose(slope.value, scores.grad.numpy(), rtol=1e-11, atol=1e-15)


def test_the_dice_loss_of_a_class_that_is_nowhere_is_0() -> None:
    """Of two classes, one of which is certain and right in all 4 pixels."""
    scores = np.stack([np.full((2, 2), 400.0), np.full((2, 2), -400.0)])[np.newaxis]
    (exact,), slope = reference.named("dice", Bounded(scores), np.zeros((1, 1, 2, 2)), {"smooth": 1.0})
    assert float(exact.value) == pytest.approx(0, abs=1e-15) and np.abs(slope.value).max() < 1e-15
    (wrong,), _ = reference.named("dice", Bounded(-scores), np.zeros((1, 1, 2, 2)), {"smooth": 1.0})
    assert float(wrong.value) == pytest.approx(1 - 1 / 5)  # both: (0 + 1) / (4 + 0 + 1)


@pytest.mark.parametrize("last", [None, "Softmax"])
def test_loss_gradient_and_steps_are_the_references(
    backend: str, three: Dataset, last: str | None, tmp_path: Path
) -> None:
    for name, options, weights in CASES:
        parity = multiseg.check_parity(
            three, [backend], net(tmp_path, last=last), steps=2, loss=name, loss_options=options,
            class_weights=weights or None, batch_size=3, threads=1, device="cpu",
        )  # fmt: skip
        assert parity.ok and not parity.left_out, f"{name} {weights}: {parity}"
        assert {"loss", "gradient", "step"} <= {row.stage for row in parity.rows}


@pytest.mark.parametrize("last", [None, "Sigmoid"])
def test_the_binary_cross_entropy_is_the_references(
    backend: str, two: Dataset, last: str | None, tmp_path: Path
) -> None:
    parity = multiseg.check_parity(
        two, [backend], net(tmp_path, 1, last), steps=2, loss="binary_cross_entropy", batch_size=3, threads=1, device="cpu",
    )  # fmt: skip
    assert parity.ok and not parity.left_out, str(parity)
    assert parity.settings["loss_options"] == {"label_max": 1.0}
    assert {"loss", "gradient", "step"} <= {row.stage for row in parity.rows}


def test_two_classes_are_trained_with_one_channel(backend: str, two: Dataset, tmp_path: Path) -> None:
    """Metrics leave out the labels that do not count, as the loss does."""
    job = Job(
        dataset=two, backend=backend, model=net(tmp_path, 1), epochs=1, loss="binary_cross_entropy", batch_size=3, seed=1,
        threads=1, learning_rate=1e-4, subtract_mean="none",
    )  # fmt: skip
    with job.train(tmp_path / "run", progress=False) as run:
        features, labels = two.train.read(range(len(two.train)))
        assert labels is not None
        output, counted = run.predict(features), labels != VOID
        tested = run.test_db(two.path / "train_db" / "features", batch_size=4)
    guess, truth = (output > 0)[counted], labels[counted] == 1
    assert tested["iou"] == pytest.approx((guess & truth).sum() / (guess | truth).sum())
    assert tested["pixel_accuracy"] == pytest.approx((guess == truth).mean())
    z = output.astype(np.float64)[counted]
    assert tested["val_loss"] == pytest.approx((np.logaddexp(0, z) - z * truth).mean(), rel=1e-5)


def test_the_numpy_backend_has_them_too(fourth: str, three: Dataset, two: Dataset, tmp_path: Path) -> None:
    for name, options, weights in [*CASES, ("binary_cross_entropy", {}, ())]:
        path = tmp_path / "net.json"
        path.write_text(json.dumps({"numpy network": {"dropout": 0, "channels": 1 if "binary" in name else 3}}))
        parity = multiseg.check_parity(
            two if "binary" in name else three, [fourth], path, steps=2, loss=name, loss_options=options,
            class_weights=weights or None, batch_size=3, subtract_mean="none", threads=1, device="cpu",
        )  # fmt: skip
        assert parity.ok, f"{name} {weights}: {parity}"
        assert {"loss", "gradient", "step"} <= {row.stage for row in parity.rows}


@pytest.mark.parametrize("name", [*OF_CLASSES, "binary_cross_entropy"])
def test_without_a_label_that_counts_loss_and_gradient_are_0(backend: str, name: str, tmp_path: Path) -> None:
    binary = name == "binary_cross_entropy"
    model = net(tmp_path, 1 if binary else 3)
    if backend != "caffe":
        model = multiseg.export(model, backend, tmp_path / "net.py")
    more: dict[str, Any] = {"loss_options": complete_options(name, {}), "ignore_index": VOID}
    more["class_weights"] = WEIGHTS if LOSSES[name].weighted else ()
    more["labels"] = LOSSES[name].labels
    images, labels = np.random.default_rng(1).random((2, 1, 8, 8), np.float32), np.full((2, 1, 8, 8), VOID, np.float32)
    if backend == "tensorflow":
        images, labels = images.transpose(0, 2, 3, 1), labels.transpose(0, 2, 3, 1)
    with load(backend, model, (1, 8, 8), (1, 8, 8), loss=name, **more) as worker:
        before = worker.call("get_weights")
        assert worker.call("train_step", features=images, labels=labels, rate=1.0, seed=0) == 0
        after = worker.call("get_weights")
        assert all(before[parameter].tobytes() == after[parameter].tobytes() for parameter in before)
        _, terms = worker.call("evaluate", features=images, labels=labels)
        assert sum(total for total, _ in terms) == 0


@pytest.mark.parametrize("name", OF_CLASSES)
def test_a_class_can_be_ignored(backend: str, name: str, tmp_path: Path) -> None:
    """Labels of a class that does not count, as if they were void, are left out of every sum."""
    model = net(tmp_path)
    if backend != "caffe":
        model = multiseg.export(model, backend, tmp_path / "net.py")
    draw = np.random.default_rng(2)
    images, labels = draw.random((2, 1, 8, 8), np.float32), draw.integers(0, 3, (2, 1, 8, 8)).astype(np.float32)

    def order(values: Any) -> Any:
        return values.transpose(0, 2, 3, 1) if backend == "tensorflow" else values

    more: dict[str, Any] = {"loss_options": complete_options(name, {}), "ignore_index": 0, "labels": "classes"}
    with load(backend, model, (1, 8, 8), (1, 8, 8), loss=name, **more) as worker:
        output, *_ = worker.call("predict", features=order(images), labels=None)
        _, terms = worker.call("evaluate", features=order(images), labels=order(labels))
    scores = output.transpose(0, 3, 1, 2) if backend == "tensorflow" else output
    (exact, *_), _ = reference.named(
        name, Bounded(scores.astype(np.float64)), labels, complete_options(name, {}), (), [0]
    )
    assert sum(total / max(count, 1) for total, count in terms) == pytest.approx(float(exact.value), rel=1e-5)


def test_the_loss_that_parity_expects_is_clipped_in_caffe_only() -> None:
    scores = Bounded(np.array([[[[200.0]], [[0.0]]]]))
    values, _ = reference.named("cross_entropy", scores, np.ones((1, 1, 1, 1)), {}, (), [])
    losses = {name: float(returned_loss(values, registry.get(name)).value) for name in ("caffe", "torch", "tensorflow")}
    assert losses == pytest.approx({"caffe": 126 * np.log(2), "torch": 200, "tensorflow": 200})


@pytest.mark.parametrize("name", ["cross_entropy+dice", "focal"])
def test_the_validation_loss_does_not_depend_on_the_batches(
    backend: str, name: str, three: Dataset, tmp_path: Path
) -> None:
    job = Job(
        dataset=three, backend=backend, model=net(tmp_path), epochs=1, batch_size=4, val_batch_size=2, loss=name,
        class_weights=WEIGHTS, seed=1, threads=1, metric="val_loss", learning_rate=1e-5, subtract_mean="none",
    )  # fmt: skip
    with job.train(tmp_path / "run", progress=False) as run:
        features, labels = three.train.read(range(len(three.train)))
        assert labels is not None
        scores = Bounded(run.predict(features).astype(np.float64))
        values, _ = reference.named(name, scores, labels, complete_options(name, {}), WEIGHTS, [VOID])
        exact = returned_loss(values, registry.get(backend))
        for size in (1, 4, 6):
            tested = run.test_db(three.path / "train_db" / "features", batch_size=size)
            assert tested["val_loss"] == pytest.approx(float(exact.value), rel=1e-5)
    assert json.loads((tmp_path / "run" / "job.json").read_text())["settings"]["class_weights"] == list(WEIGHTS)


def test_the_recipe_equal_has_the_cross_entropy_for_class_indices(backend: str, three: Dataset, tmp_path: Path) -> None:
    job = Job(
        dataset=three, backend=backend, model=net(tmp_path, last="Softmax"), epochs=1, recipe="equal", batch_size=3, seed=1,
        threads=1, class_weights="balanced",
    )  # fmt: skip
    with job.train(tmp_path / "run", progress=False) as run:
        assert run.settings["loss"] == "cross_entropy"
        weights = run.settings["class_weights"]
    labels = np.stack([three.train.label(index) for index in range(len(three.train))])
    counts = np.array([(labels == number).sum() for number in range(3)])
    np.testing.assert_allclose(weights, counts.sum() / (3 * counts), rtol=1e-15)
    with job.train(tmp_path / "run", resume=True, progress=False) as run:
        assert run.settings["class_weights"] == weights


def test_an_exported_run_keeps_its_cross_entropy_and_names_other_losses(
    backend: str, three: Dataset, tmp_path: Path
) -> None:
    """The file's own loss, without weights of its own, has the value of the named one."""
    job = Job(
        dataset=three, backend=backend, model=net(tmp_path), epochs=1, batch_size=3, loss="cross_entropy", seed=1, threads=1,
        class_weights=WEIGHTS, divide_std=[200.0], learning_rate=1e-3,
    )  # fmt: skip
    target = {"caffe": "torch", "torch": "tensorflow", "tensorflow": "caffe"}[backend]
    file = tmp_path / {"caffe": "kept.prototxt"}.get(target, "kept.py")
    with job.train(tmp_path / "run", progress=False) as run:
        own = run.test_db(three.path / "train_db" / "features")["val_loss"]
        multiseg.export(run, target, file)
    again = Job(
        dataset=three, backend=target, model=file, epochs=1, batch_size=3, learning_rate=1e-30, seed=1, threads=1,
        weights=tmp_path / "run", divide_std=[200.0], metric="val_loss", solver_state=False,
    )  # fmt: skip
    with again.train(tmp_path / "again", progress=False) as run:
        assert run.settings["loss"] not in LOSSES
        assert run.test_db(three.path / "train_db" / "features")["val_loss"] == pytest.approx(own, rel=1e-5)


def test_an_exported_run_names_a_loss_that_is_not_in_the_file(fourth: str, three: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "net.json"
    path.write_text(json.dumps({"numpy network": {"dropout": 0, "channels": 3}}))
    job = Job(dataset=three, backend=fourth, model=path, epochs=1, batch_size=3, loss="dice", seed=1, threads=1)
    with job.train(tmp_path / "run", progress=False) as run:
        multiseg.export(run, "caffe", tmp_path / "file.prototxt")
    head = (tmp_path / "file.prototxt").read_text().replace("\n#   ", " ")
    assert (
        "run run is trained with the soft Dice loss(smooth=1), which is not in this file; train it with the same loss"
        in head
    )
