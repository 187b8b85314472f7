"""What Caffe computes does not depend on the addresses of its memory, which differ between two trainings in one process."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from multiseg import backend as registry
from multiseg.worker.client import environment

# The data of a MemoryData layer lie where the caller's array does; sasum of OpenBLAS looks at the address modulo 64.
SUMS = """
import sys, tempfile
import caffe
import numpy as np
from google.protobuf import text_format
from multiseg_caffe import losses, prototxt

net = prototxt.read(sys.argv[1])
with tempfile.NamedTemporaryFile("w") as file:
    file.write(text_format.MessageToString(losses.with_native(net)))
    file.flush()
    built = caffe.Net(file.name, caffe.TEST)
values = np.random.default_rng(5).standard_normal(4096, dtype=np.float32)
memory = np.zeros(4096 + 32, np.float32)
first = -memory.ctypes.data % 64 // 4  # numpy has these at multiples of 4 bytes
for offset in range(0, 16, 4):
    data = memory[first + offset : first + offset + 4096].reshape(1, 1, 64, 64)
    data[...] = values.reshape(data.shape)
    built.set_input_arrays(data, np.zeros(1, np.float32))
    built.forward()
    print(repr(float(built.blobs["sum"].data.flat[0])), float(np.abs(values.astype(np.float64)).sum()))
"""
NET = """
layer { name: "data" type: "MemoryData" top: "data" top: "label"
  memory_data_param { batch_size: 1 channels: 1 height: 64 width: 64 } }
layer { name: "sum" type: "Reduction" bottom: "data" top: "sum" reduction_param { operation: ASUM axis: 1 } }
layer { name: "unused" type: "Silence" bottom: "label" }
"""


@pytest.mark.needs("caffe")
def test_a_sum_of_absolute_values_is_one_number(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    caffe = registry.get("caffe")
    done = subprocess.run(
        [caffe.python, "-c", SUMS, str(tmp_path / "net.prototxt")],
        env=environment(caffe, 1), capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    lines = [[float(number) for number in line.split()] for line in done.stdout.splitlines()]
    assert len(lines) == 4
    assert len({computed for computed, _ in lines}) == 1
    assert lines[0][0] == pytest.approx(lines[0][1], rel=1e-6)
