"""The loss of a validation does not depend on its batch size, however Caffe's loss layers are normalised."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import multiseg
from helpers.void_masks import check_loss_of_any_batch_size
from multiseg import Job

pytestmark = pytest.mark.needs("caffe")

NETWORK = """
layer { name: "td" type: "Data" top: "data" include { phase: TRAIN } }
layer { name: "tl" type: "Data" top: "label" include { phase: TRAIN } }
layer { name: "vd" type: "Data" top: "data" include { phase: TEST stage: "val" } }
layer { name: "vl" type: "Data" top: "label" include { phase: TEST stage: "val" } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 3 kernel_size: 3 pad: 1 weight_filler { type: "gaussian" std: 0.01 } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "conv" bottom: "label" top: "loss" LOSS exclude { stage: "deploy" } }
"""
TWO = """
layer { name: "more" type: "SoftmaxWithLoss" bottom: "conv" bottom: "label" top: "more" loss_weight: 0.5
        loss_param { ignore_label: 255 normalization: BATCH_SIZE } exclude { stage: "deploy" } }
"""
BATCH = 4  # of training
Expected = Callable[[Any, Any], float]
CASES: dict[str, tuple[str, Expected]] = {
    "": ("", lambda v, n: v.sum() / n.sum()),
    "normalization: VALID": ("", lambda v, n: v.sum() / n.sum()),
    "normalize: true": ("", lambda v, n: v.sum() / n.sum()),
    "normalization: FULL": ("", lambda v, n: v.mean()),
    "normalization: BATCH_SIZE": ("", lambda v, n: v.sum() / len(v)),
    "normalize: false": ("", lambda v, n: v.sum() / len(v)),
    "normalization: NONE": ("", lambda v, n: v.sum() / len(v) * BATCH),  # of a batch as in training
    " ": (TWO, lambda v, n: v.sum() / n.sum() + 0.5 * v.sum() / len(v)),  # two losses of different normalisation
}


@pytest.mark.parametrize("normalisation", CASES)
def test_the_loss_does_not_depend_on_the_batch_size(
    void_dataset: multiseg.Dataset, normalisation: str, tmp_path: Path
) -> None:
    more, expected = CASES[normalisation]
    model = tmp_path / "net.prototxt"
    model.write_text(NETWORK.replace("LOSS", f"loss_param {{ ignore_label: 255 {normalisation} }}") + more)
    job = Job(dataset=void_dataset.path, backend="caffe", model=model, batch_size=BATCH, learning_rate=1e-6)
    check_loss_of_any_batch_size(job, tmp_path, lambda values, counted, labels: expected(values, counted))
