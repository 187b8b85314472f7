"""Metrics of class indices against scikit-learn, and against hand calculations where it has no such metric."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from multiseg.inference.evaluation import Evaluation
from multiseg.network import CLASSES, IMAGES, LabelKind
from multiseg.settings.confusion import Confusion, mean
from multiseg.settings.metrics import MEASURES, METRICS, columns, scores_of

EXACT = 1e-12


@pytest.fixture
def metrics() -> Any:
    """scikit-learn's metrics. Only the environment `core` has it: wherever it is installed, TensorFlow's Keras imports it too."""
    from sklearn import metrics

    return metrics


def case(name: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return scores (N, 7, H, W) and labels (N, 1, H, W) with 255 for void."""
    draw = np.random.default_rng(sum(map(ord, name)))
    scores, labels = draw.normal(size=(5, 7, 6, 4)), draw.integers(0, 7, (5, 1, 6, 4))
    if name == "void":
        labels[draw.random(labels.shape) < 0.3] = 255
    elif name == "absent":  # 2 is absent, 3 only predicted, 5 only in the labels
        labels[np.isin(labels, (2, 3))] = 0
        scores[:, (2, 5)] = -9
    elif name == "one class":
        labels[:] = 4
    elif name == "one class, always right":
        labels[:], scores[:, 4] = 4, 9
    elif name == "ties":
        scores = draw.integers(0, 3, scores.shape).astype(float)
    elif name == "all void":
        labels[:] = 255
    return scores, labels


CASES = ("random", "void", "absent", "one class", "one class, always right", "ties")


@pytest.mark.parametrize("name", CASES)
def test_metrics_of_pixels_equal_scikit_learn(metrics: Any, name: str) -> None:
    scores, labels = case(name)
    counts = Confusion(7, ignore=(255,))
    counts.add(scores[:2], labels[:2])  # in two batches
    counts.add(scores[2:], labels[2:])
    truth = labels[:, 0].ravel()
    predicted = scores.argmax(1).ravel()[truth != 255]
    truth = truth[truth != 255]
    present = sorted({*truth.tolist(), *predicted.tolist()})
    assert np.array_equal(counts.counts, metrics.confusion_matrix(truth, predicted, labels=range(7)))
    options: dict[str, Any] = {"labels": present, "average": None, "zero_division": 0}
    expected = {
        "iou": metrics.jaccard_score(truth, predicted, **options),
        "dice": metrics.f1_score(truth, predicted, **options),
        "accuracy": metrics.recall_score(truth, predicted, **options),
    }
    table = counts.per_class(["a", "b"])
    for key, values in expected.items():
        assert [table[index][key] for index in present] == pytest.approx(values, abs=EXACT)
        assert all(table[index][key] is None for index in range(7) if index not in present)
    assert [row["name"] for row in table[:3]] == ["a", "b", "2"]
    assert [row["pixels"] for row in table] == [int((truth == index).sum()) for index in range(7)]
    result = scores_of(counts)
    assert result["pixel_accuracy"] == pytest.approx(metrics.accuracy_score(truth, predicted), abs=EXACT)
    assert result["miou"] == pytest.approx(expected["iou"].mean(), abs=EXACT)
    assert result["dice"] == pytest.approx(expected["dice"].mean(), abs=EXACT)
    assert result["mean_accuracy"] == pytest.approx(expected["accuracy"].mean(), abs=EXACT)
    weighted = metrics.jaccard_score(truth, predicted, average="weighted", zero_division=0)
    assert result["fwiou"] == pytest.approx(weighted, abs=EXACT)
    assert result["iou"] is None and result["accuracy"] is None and result["l1"] is None


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("void", "ties")])
def test_metrics_of_whole_images_equal_scikit_learn(metrics: Any, name: str) -> None:
    scores, labels = (values[:, :, :1, :1] for values in case(name))
    scores, labels = np.concatenate([scores] * 9), np.concatenate([labels] * 9)
    evaluation = Evaluation(labels=CLASSES)
    evaluation.add(scores.astype(np.float32), labels, [(1.0, 1.0)], "db")
    result = evaluation.result()
    truth, flat = labels.ravel(), scores[:, :, 0, 0].astype(np.float32)
    assert result["accuracy"] == pytest.approx(metrics.accuracy_score(truth, flat.argmax(1)), abs=EXACT)
    top = metrics.top_k_accuracy_score(truth, flat, k=5, labels=range(7))
    assert result["top5_accuracy"] == pytest.approx(top, abs=EXACT)
    assert result["miou"] is None and result["pixel_accuracy"] is None
    assert np.array_equal(
        evaluation.classes()["confusion"], metrics.confusion_matrix(truth, flat.argmax(1), labels=range(7))
    )


def test_of_equal_scores_the_lowest_class_is_predicted() -> None:
    counts = Confusion(7)
    counts.add(np.zeros((7, 7, 1, 1)), np.arange(7).reshape(7, 1, 1, 1))
    assert counts.predicted.tolist() == [7, 0, 0, 0, 0, 0, 0] and counts.in_top == 5


def test_without_counted_labels_nothing_is_defined() -> None:
    counts = Confusion(7, ignore=(255,))
    counts.add(*case("all void"))
    assert counts.total == 0 and set(scores_of(counts).values()) == {None}
    assert set(scores_of(counts, one_label=True).values()) == {None} and mean([None]) is None


@pytest.mark.parametrize("labels", [CLASSES, IMAGES])
def test_metrics_of_outputs_that_are_not_numbers_are_not_defined(labels: LabelKind) -> None:
    evaluation = Evaluation(labels=labels)
    outputs = np.zeros((2, 1 if labels == IMAGES else 3, 4, 4), np.float32)
    outputs[1, 0, 2, 3] = np.nan
    evaluation.add(outputs[:1], np.zeros((1, 1, 4, 4)), [(1.0, 1.0)], "db")
    assert evaluation.result()["pixel_accuracy"] is not None
    evaluation.add(outputs[1:], np.zeros((1, 1, 4, 4)), [(np.nan, 1.0)], "db")
    result = evaluation.result()
    assert np.isnan(result.pop("val_loss") or 0) and set(result.values()) == {None} and evaluation.classes() == {}


def test_labels_that_are_no_class_are_left_out() -> None:
    counts = Confusion(2)
    labels = np.array([[[[0, 1, 2, -1, 255, 0.5]]]], np.float32)
    counts.add(np.zeros((1, 2, 1, 6)), labels)
    assert counts.counts.tolist() == [[1, 0], [1, 0]]


def test_shapes_must_correspond() -> None:
    with pytest.raises(ValueError, match="scores are"):
        Confusion(3).add(np.zeros((1, 3, 2, 2)), np.zeros((1, 1, 1, 1)))


def test_up_to_five_classes_have_no_top_five() -> None:
    counts = Confusion(5)
    counts.add(np.zeros((1, 5, 1, 1)), np.zeros((1, 1, 1, 1)))
    assert counts.top is None and counts.accuracy == 1


def test_columns_are_those_of_the_labels() -> None:
    def shown(*runs: dict[str, float]) -> list[str]:
        return [
            metric.key for metric in columns([{**dict.fromkeys(METRICS), **run} for run in runs]) if metric.is_measured
        ]

    images = ["iou", "l1", "pixel_accuracy", "dice"]
    assert shown({}) == images and shown({"l1": 1.0}) == images
    assert shown({"accuracy": 1.0, "mean_accuracy": 1.0}) == ["accuracy", "mean_accuracy"]
    assert shown({"miou": 0.5, "pixel_accuracy": 0.5, "dice": 0.1}) == ["miou", "pixel_accuracy", "dice"]
    assert shown({"miou": 0.5}, {"iou": 0.5}) == ["iou", "miou", "l1", "pixel_accuracy", "dice"]
    assert set(MEASURES) >= {"miou", "mean_accuracy", "pixel_accuracy", "dice", "accuracy"}
