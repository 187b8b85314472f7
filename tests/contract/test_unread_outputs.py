"""A part of a split that nothing reads is no output of the exported network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from multiseg import backend as registry
from multiseg.parity import case as cases
from multiseg.parity.case import Case
from multiseg.parity.start import start_weights
from multiseg.topology import Topology
from multiseg.worker import pool


@pytest.mark.parametrize("read", ["part_0", "part_1"])
def test_a_part_that_nothing_reads(backend: str, read: str, tmp_path: Path) -> None:
    layers = [
        {"name": "part", "type": "Split", "inputs": ["data"], "outputs": ["part_0", "part_1"],
         "parameters": {"axis": 1, "split": [1, 3]}},
        {"name": "score", "type": "Conv", "inputs": [read], "parameters": {"num_output": 2, "kernel_shape": [1, 1]}},
    ]  # fmt: skip
    description = {"input": "data", "input_shape": (4, 5, 6), "layers": layers, "outputs": ["score"]}
    topology = Topology.of("parts", "random", description)
    images = np.random.default_rng(1).normal(size=(2, 4, 5, 6)).astype(np.float32)
    labels = np.zeros((2, 2, 5, 6), np.float32)
    worker = pool.start(registry.get(backend), 1)
    try:
        case = Case(topology, start_weights(topology, 1), images, labels, steps=1)
        parity = cases.check(case, worker.backend, worker, tmp_path)
    finally:
        worker.close()
    assert parity.ok, parity.first_divergence
    assert parity.complete
    assert {row.stage for row in parity.rows} >= {"forward", "output", "loss", "gradient", "step"}
