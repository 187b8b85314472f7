"""ONNX files of networks whose weights are in Torch7's files, beside the network, or a vector without any names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from helpers.t7_writer import t7, tensor
from helpers.torch7_networks import network
from multiseg import backend as registry
from multiseg.exporting import onnx as onnx_export
from multiseg.worker.client import Worker

pytestmark = pytest.mark.needs("torch")


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker(registry.get("torch"), threads=1) as started:
        yield started


def run(path: Path, images: Any) -> Any:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images.astype(np.float32)})[0]


def test_a_model_of_torch7_holds_its_weights(worker: Worker, tmp_path: Path) -> None:
    import torch
    from multiseg_torch import files

    (tmp_path / "model.t7").write_bytes(t7(network()))
    onnx_export.export(tmp_path / "model.t7", tmp_path / "net.onnx", (1, 6, 6), None, worker)
    images = np.random.default_rng(2).standard_normal((2, 1, 6, 6)).astype(np.float32)
    model = files.load(str(tmp_path / "model.t7"), (1, 6, 6)).model.eval()
    expected = model(torch.from_numpy(images)).detach().numpy()
    assert np.abs(run(tmp_path / "net.onnx", images) - expected).max() <= 1e-5 * np.abs(expected).max()


def test_a_vector_of_weights_is_cut_in_the_networks_order(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "net.lua").write_text("return nn.Sequential():add(nn.SpatialConvolution(1, 2, 2, 2)):add(nn.ReLU())")
    (tmp_path / "flat.t7").write_bytes(t7(tensor(np.arange(10, dtype=np.float32))))
    onnx_export.export(tmp_path / "net.lua", tmp_path / "net.onnx", (1, 6, 6), tmp_path / "flat.t7", worker)
    made = run(tmp_path / "net.onnx", np.ones((1, 1, 6, 6)))
    assert made[0, :, 0, 0].tolist() == [0 + 1 + 2 + 3 + 8, 4 + 5 + 6 + 7 + 9]
