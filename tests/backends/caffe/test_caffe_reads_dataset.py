"""Caffe itself reads the databases that we write: its Data layer, its mean, its own message definitions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multiseg import Dataset
from multiseg.layout import Layout

pytestmark = pytest.mark.needs("caffe")

READER = """
import sys
import numpy as np
from multiseg import Dataset          # in one process with pycaffe: neither messages nor files may collide
split = Dataset.open(sys.argv[1]).train
first = split[0][0]

import caffe
from caffe.proto import caffe_pb2

folder, out, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
net = f'''
layer {{ name: "data" type: "Data" top: "data" data_param {{ source: "{folder}/train_db/features" backend: LMDB batch_size: {count} }} }}
layer {{ name: "centred" type: "Data" top: "centred" transform_param {{ mean_file: "{folder}/train_db/mean.binaryproto" }}
         data_param {{ source: "{folder}/train_db/features" backend: LMDB batch_size: {count} }} }}
layer {{ name: "label" type: "Data" top: "label" data_param {{ source: "{folder}/train_db/labels" backend: LMDB batch_size: {count} }} }}
'''
with open(out + ".prototxt", "w") as file:
    file.write(net)
read = caffe.Net(out + ".prototxt", caffe.TRAIN)
read.forward()
blob = caffe_pb2.BlobProto.FromString(open(folder + "/train_db/mean.binaryproto", "rb").read())
np.savez(out, mean=caffe.io.blobproto_to_array(blob), **{name: read.blobs[name].data for name in ("data", "centred", "label")})
assert np.array_equal(split[0][0], first)
"""  # noqa: E501


@pytest.mark.parametrize("channels", ["L", "RGB"])
def test_caffes_data_layer_reads_what_we_read(tmp_path: Path, channels: str) -> None:
    numbers = np.random.default_rng(4)
    for kind, shape in (("input", (9, 7, 3)), ("target", (9, 7))):
        (tmp_path / kind).mkdir()
        for index in range(12):
            Image.fromarray(numbers.integers(0, 256, shape, np.uint8)).save(tmp_path / kind / f"{index}.png")
    dataset = Dataset.create(
        tmp_path / "out",
        input=tmp_path / "input",
        target=tmp_path / "target",
        channels=channels,
        feature_encoding="none",
        seed=2,
    )
    count = len(dataset.train)
    python = os.environ.get("MULTISEG_CAFFE_PYTHON", sys.executable)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "GLOG_minloglevel": "2"}
    command = [python, "-c", READER, str(dataset.path), str(tmp_path / "read"), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "read.npz")

    features, labels = dataset.train.read(range(count))
    caffes = Layout("NCHW", "BGR")
    assert np.array_equal(found["data"], caffes.features(features))
    assert np.array_equal(found["label"], caffes.labels(labels))
    assert np.array_equal(found["centred"], Layout("NCHW", "BGR", dataset.mean_image).features(features))
    assert np.array_equal(found["mean"], caffes.labels(dataset.mean_image[np.newaxis].astype(np.uint8)))
