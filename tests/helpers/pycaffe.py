"""Caffe itself, in a process of its own, for tests that compare with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

SCRIPT = """
import json
import sys
import numpy as np
import caffe

for job in json.load(open(sys.argv[1])):
    print(job["net"], file=sys.stderr, flush=True)
    phase = caffe.TRAIN if job.get("train") else caffe.TEST
    net = caffe.Net(job["net"], phase)
    numbers = np.random.RandomState(job.get("seed", 1))
    if job.get("weights"):
        net.copy_from(job["weights"])
    elif "seed" in job:
        types = dict(zip(net._layer_names, [layer.type for layer in net.layers]))
        for name, blobs in net.params.items():
            signs = [1] if types[name] == "BatchNorm" else [-1, 1]  # a variance is positive
            for blob in blobs:
                blob.data[...] = numbers.uniform(0.1, 0.5, blob.data.shape) * numbers.choice(signs, blob.data.shape)
    for name, path in job.get("feed", {}).items():
        net.blobs[name].data[...] = np.load(path)
    found = {}
    if job.get("forward", True):
        net.forward()
    if job.get("backward"):
        net.backward()
        found.update({"diff/" + name: blob.diff for name, blob in net.blobs.items()})
        found.update({"slope/%s/%d" % (name, i): b.diff for name, blobs in net.params.items() for i, b in enumerate(blobs)})
    found.update({"data/" + name: blob.data for name, blob in net.blobs.items()})
    found.update({"weights/%s/%d" % (name, i): b.data for name, blobs in net.params.items() for i, b in enumerate(blobs)})
    np.savez(job["out"], **found)
    if job.get("save"):
        net.save(job["save"])
    if job.get("hdf5"):
        net.save_hdf5(job["hdf5"])
"""


def run(folder: Path, jobs: list[dict[str, Any]]) -> list[dict[str, np.ndarray]]:
    """Build each net, in one process, and return what it holds: data/BLOB, diff/BLOB, weights/LAYER/INDEX, slope/LAYER/INDEX.

    A job has ``net`` (a file), and may have ``weights`` (a caffemodel), or ``seed`` for random ones, ``feed`` (arrays for
    blobs), ``backward``, ``train``, and ``save`` and ``hdf5`` (where to write a caffemodel in its two formats).
    """
    files = []
    for index, job in enumerate(jobs):
        feed = {}
        for name, array in job.get("feed", {}).items():
            feed[name] = str(folder / f"feed-{index}-{name.replace('/', '_')}.npy")
            np.save(feed[name], array)
        paths = {key: str(job[key]) for key in ("net", "weights", "save") if key in job}
        files.append({**job, **paths, "feed": feed, "out": str(folder / f"out-{index}.npz")})
    (folder / "jobs.json").write_text(json.dumps(files))
    python(SCRIPT, str(folder / "jobs.json"))
    return [dict(np.load(file["out"])) for file in files]


def python(code: str, *arguments: str) -> None:
    """Run code in the interpreter that has pycaffe; it may import multiseg, too."""
    command = [os.environ.get("MULTISEG_CAFFE_PYTHON", sys.executable), "-c", code, *arguments]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "GLOG_minloglevel": "2",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-600:]
