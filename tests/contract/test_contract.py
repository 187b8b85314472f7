"""The contract suite over the three backends, each with a file of the same small network."""

from __future__ import annotations

from pathlib import Path

import pytest

from multiseg.testing import BackendContract

NEW_PROCESSES = True  # see lent_workers in tests/conftest.py
NETS = Path(__file__).parents[1] / "nets"


class Contract(BackendContract):
    """Images in colour, so that orders of channels show."""

    input_shape = (3, 8, 12)


@pytest.mark.needs("caffe")
class TestCaffe(Contract):
    backend = "caffe"
    model = NETS / "contract.prototxt"


@pytest.mark.needs("torch")
class TestTorch(Contract):
    backend = "torch"
    model = NETS / "contract_torch.py"


@pytest.mark.needs("tensorflow")
class TestTensorflow(Contract):
    backend = "tensorflow"
    model = NETS / "contract_tensorflow.py"
