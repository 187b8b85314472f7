"""A pycaffe loop (fill the blobs, solver.step or net.forward) for a prototxt, on batches in memory.

Its data layers are inputs here, as BVLC Caffe reads LMDB itself only with OpenCV; its L1Loss, of NVIDIA's fork alone, is what
multiseg makes of it.
"""

import tempfile
from pathlib import Path

import caffe
from serving import batches, options, serve

given = options()
pieces = batches(given)
caffe.set_mode_cpu()
caffe.set_random_seed(1)
with tempfile.TemporaryDirectory() as folder:
    Path(folder, "net.prototxt").write_text(given["net"])
    if given["what"] == "train":
        Path(folder, "solver.prototxt").write_text(f"""
            net: "{folder}/net.prototxt" base_lr: {given["rate"]} momentum: 0.9 weight_decay: {given["rate"] / 100}
            lr_policy: "fixed" max_iter: 2000000000 display: 0 snapshot_prefix: "{folder}/snapshot"
        """)
        solver = caffe.SGDSolver(f"{folder}/solver.prototxt")
        net = solver.net
    else:
        net = caffe.Net(f"{folder}/net.prototxt", caffe.TEST)


def train() -> None:
    for features, labels in pieces:
        net.blobs["data"].data[...] = features
        net.blobs["label"].data[...] = labels
        solver.step(1)
        net.blobs["loss"].data.copy()


def test() -> None:
    for features, _ in pieces:
        net.blobs["data"].data[...] = features
        net.forward()
        net.blobs[net.outputs[0]].data.copy()


serve(train if given["what"] == "train" else test, clock=given.get("clock", "wall"))
