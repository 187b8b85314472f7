"""Networks with several inputs and outputs, whole and cut: every framework computes each output as float64 does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import multiseg
from helpers import alone, pycaffe
from helpers.exported import random_weights
from multiseg import backend as registry
from multiseg import reference
from multiseg.errors import ModelError
from multiseg.model_files.writing import write_weights
from multiseg.topology.cutting import cut

pytestmark = pytest.mark.needs("caffe", "tensorflow", "torch")

Array = np.ndarray[Any, Any]
CONVOLUTION = """
layer {{ name: "{0}" type: "Convolution" bottom: "{1}" top: "{0}"
        convolution_param {{ num_output: {2} kernel_size: {3} pad: {4} weight_filler {{ type: "xavier" }} }} }}
"""
BODY = "".join(
    [
        CONVOLUTION.format("conv1", "data", 4, 3, 1),
        'layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }\n',
        CONVOLUTION.format("conv2", "depth", 4, 3, 1),
        'layer { name: "sum" type: "Eltwise" bottom: "conv1" bottom: "conv2" top: "sum" }\n',
        CONVOLUTION.format("score", "sum", 2, 1, 0),
        CONVOLUTION.format("aux", "conv1", 5, 3, 0),
    ]
)
TWO = """
input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 9 }
input: "depth" input_shape { dim: 1 dim: 1 dim: 8 dim: 9 }
"""
DETECTOR = """
layer { name: "proposal" type: "Python" bottom: "aux" bottom: "im_info" top: "rois"
        python_param { module: "rpn.proposal_layer" layer: "ProposalLayer" } }
layer { name: "pool5" type: "ROIPooling" bottom: "conv1" bottom: "rois" top: "pool5"
        roi_pooling_param { pooled_w: 2 pooled_h: 2 } }
layer { name: "prior" type: "PriorBox" bottom: "aux" bottom: "data" top: "prior" prior_box_param { min_size: 4 } }
"""
FILES = {
    "whole": (TWO + BODY, ()),
    "cut": (TWO + 'input: "im_info" input_shape { dim: 1 dim: 3 }\n' + BODY + DETECTOR, ("relu1", "aux")),
}
TORCH = """
import importlib.util, json, sys, numpy, torch
for job in json.load(open(sys.argv[1])):
    spec = importlib.util.spec_from_file_location("net", job["net"])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.network({})["model"].eval()
    model.load_state_dict(torch.load(job["weights"], weights_only=True), strict=True)
    with torch.no_grad():
        made = model(*(torch.from_numpy(array) for array in numpy.load(job["images"]).values()))
    numpy.savez(job["out"], *(output.numpy() for output in made))
"""
TENSORFLOW = """
import json, sys, numpy
import tensorflow.compat.v1 as tf
for job in json.load(open(sys.argv[1])):
    with tf.Graph().as_default(), tf.Session() as session:
        tf.train.import_meta_graph(job["weights"] + ".meta").restore(session, job["weights"])
        arrays = [array.transpose(0, 2, 3, 1) for array in numpy.load(job["images"]).values()]
        made = session.run(job["outputs"], dict(zip(["x:0", "model/depth:0"], arrays)))
        numpy.savez(job["out"], *(output.transpose(0, 3, 1, 2) for output in made))
"""
# outputs in Caffe, where one that a layer reads has a blob of its own, and the tensors in TensorFlow
BLOBS = {"whole": ("score", "aux"), "cut": ("Relu_output", "aux")}
TENSORS = {
    "whole": ("model/score/BiasAdd:0", "model/aux/BiasAdd:0"), "cut": ("model/Relu:0", "model/aux/BiasAdd:0"),
}  # fmt: skip


def run(backend: str, code: str, jobs: list[dict[str, Any]], folder: Path) -> list[list[Array]]:
    """What a framework alone, without multiseg, computes for each job: its outputs in their order."""
    alone.run(backend, code, jobs, folder)
    return [list(np.load(job["out"]).values()) for job in jobs]


def test_every_output_is_the_same_in_every_framework(tmp_path: Path) -> None:
    draw = np.random.default_rng(3)
    jobs: dict[str, list[dict[str, Any]]] = {"torch": [], "tensorflow": [], "caffe": []}
    expected, results = [], {"onnx": list[list[Array]]()}
    for name, (text, outputs) in FILES.items():
        folder = tmp_path / name
        folder.mkdir()
        file, model = folder / "net.prototxt", folder / "first.caffemodel"
        file.write_text(TWO + BODY)
        whole = multiseg.describe(file)
        weights = random_weights(whole)
        write_weights(registry.get("caffe"), model, weights, file, (3, 8, 9))
        file.write_text(text)
        topology = multiseg.describe(file, outputs=outputs)
        assert topology == cut(whole, outputs)

        images = {
            "x": draw.standard_normal((1, 3, 8, 9)).astype(np.float32),
            **({"depth": draw.standard_normal((1, 1, 8, 9)).astype(np.float32)} if topology.more_inputs else {}),
        }
        np.savez(folder / "images.npz", **images)
        kept = {key: value for key, value in weights.items() if key in topology.weights}
        trace = reference.forward(topology, kept, images["x"][:, ::-1], more_images={
            key: images[key] for key in topology.more_inputs
        })  # fmt: skip
        expected.append([trace.values[value] for value in topology.outputs])

        own = {backend: folder / f"net_{backend}.py" for backend in ("torch", "tensorflow")}
        pt, tf, back = folder / "w.pt", folder / "w.ckpt", folder / "w.caffemodel"
        multiseg.convert(model, "pt", pt, source_network=file, with_network=own["torch"], outputs=outputs)
        shape = (3, 8, 9)
        multiseg.convert(pt, "tf", tf, source_network=own["torch"], with_network=own["tensorflow"], input_shape=shape)
        deploy = folder / "back.prototxt"
        multiseg.convert(
            tf, "caffemodel", back, source_network=own["tensorflow"], with_network=deploy, input_shape=shape
        )
        read = multiseg.model_files.reading.read_weights(back)
        assert {key: value.tobytes() for key, value in read.items()} == {
            key: value.tobytes() for key, value in kept.items()
        }
        common = {"images": str(folder / "images.npz"), "outputs": TENSORS[name]}
        jobs["torch"].append({"net": str(own["torch"]), "weights": str(pt), "out": str(folder / "pt.npz"), **common})
        jobs["tensorflow"].append({"weights": str(tf), "out": str(folder / "tf.npz"), **common})
        feed = {
            "data": np.ascontiguousarray(images["x"][:, ::-1]),
            **{key: images[key] for key in topology.more_inputs},
        }
        jobs["caffe"].append({"net": deploy, "weights": back, "feed": feed})

        path = multiseg.export(file, "onnx", folder / "net.onnx", weights=model, outputs=outputs)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        assert [entry.name for entry in session.get_inputs()] == list(topology.inputs)
        assert [entry.name for entry in session.get_outputs()] == list(outputs or ("score", "aux"))
        results["onnx"].append(session.run(None, feed))

    results["torch"] = run("torch", TORCH, jobs["torch"], tmp_path)
    results["tensorflow"] = run("tensorflow", TENSORFLOW, jobs["tensorflow"], tmp_path)
    blobs = pycaffe.run(tmp_path, jobs["caffe"])
    results["caffe"] = [[made[f"data/{blob}"] for blob in BLOBS[name]] for name, made in zip(FILES, blobs, strict=True)]
    for framework, made in results.items():
        for name, outputs_made, exact in zip(FILES, made, expected, strict=True):
            assert len(outputs_made) == len(exact) == 2
            for output, value in zip(outputs_made, exact, strict=True):
                assert output.shape == value.value.shape
                assert np.all(np.abs(output - value.value) <= value.bound), (framework, name)


TORCH_NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.aux = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1)
        self.relu, self.score = nn.ReLU(inplace=True), nn.Conv2d(4, 3, 1)

    def forward(self, x):
        x = self.relu(self.conv(x))
        return {"aux": self.aux(x), "score": self.score(x)}
"""
TENSORFLOW_NET = """
from model import Tower
from utils import model_property
import tensorflow as tf
import tensorflow.contrib.slim as slim

class UserModel(Tower):
    @model_property
    def inference(self):
        net = slim.conv2d(self.x, 4, [3, 3], scope='conv')
        aux = slim.conv2d(net, 2, [1, 1], activation_fn=None, scope='aux')
        return {'aux': aux, 'score': slim.conv2d(net, 3, [1, 1], activation_fn=None, scope='score')}
"""
CAFFE_NET = (
    'layer { name: "data" type: "Input" top: "data" }\n'
    + CONVOLUTION.format("conv", "data", 4, 3, 1)
    + 'layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }\n'
    + CONVOLUTION.format("aux", "conv", 2, 1, 0)
    + CONVOLUTION.format("score", "conv", 3, 1, 0)
)
NETS = {"net.prototxt": CAFFE_NET, "net_torch.py": TORCH_NET, "net_tensorflow.py": TENSORFLOW_NET}


def test_a_network_with_an_auxiliary_output_trains_by_the_output_that_is_named(
    coloured: multiseg.Dataset, tmp_path: Path
) -> None:
    for name, text in NETS.items():
        (tmp_path / name).write_text(text)
    models = [tmp_path / name for name in NETS]
    parity = multiseg.check_parity(
        coloured, models=models, outputs=["score"], steps=2, batch_size=2, loss="l2", threads=1
    )
    assert [row for row in parity.rows if not row.ok] == [] and parity.complete
    assert {row.side.partition(" ")[0] for row in parity.rows} == {"Caffe", "PyTorch", "TensorFlow"}
    for model in models:
        with pytest.raises(ModelError, match=r"training and testing want one.*outputs=NAME"):
            multiseg.check_parity(coloured, models=[model], backends=[registry_name(model)], steps=0, loss="l2")


def registry_name(model: Path) -> str:
    """The backend of a network file of NETS."""
    return {".prototxt": "caffe"}.get(model.suffix, "torch" if "torch" in model.name else "tensorflow")
