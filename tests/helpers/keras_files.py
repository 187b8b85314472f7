"""Keras models in files, written by a program of their own, with what Keras itself predicts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

START = """
import os, sys
os.environ["KERAS_BACKEND"] = "tensorflow"
import keras, numpy as np
from keras import layers as L
keras.utils.set_random_seed(1)
folder = sys.argv[1] + "/"
draw = np.random.default_rng(2)

def save(model, name, **more):
    values = [draw.normal(0, 0.3, weight.shape) for weight in model.get_weights()]
    variance = [weight.path.endswith("moving_variance") for weight in model.weights]
    model.set_weights([value if not positive else np.abs(value) + 0.5 for value, positive in zip(values, variance)])
    images = draw.uniform(0, 1, (2, *[size or 32 for size in model.inputs[0].shape[1:]])).astype(np.float32)
    model.save(folder + name)
    np.savez(folder + name + ".npz", images=images, expected=model.predict(images, verbose=0), **more)
"""


def write(folder: Path, program: str) -> None:
    """Run a program that builds models with the names `keras`, `L` (its layers) and `np`, and calls `save(model, NAME)`."""
    done = subprocess.run(
        [sys.executable, "-c", START + program, str(folder)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]


def predicted(file: Path) -> Any:
    """Return the `images` of a saved model and the output `expected` that Keras predicts for them."""
    return np.load(f"{file}.npz")
