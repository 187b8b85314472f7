"""Datasets of class masks with ignored pixels, and a small prototxt for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

import multiseg

VOID = 255
NET = """
layer {{ name: "data" type: "Data" top: "data" exclude {{ stage: "deploy" }} }}
layer {{ name: "label" type: "Data" top: "label" exclude {{ stage: "deploy" }} }}
layer {{ name: "data" type: "Input" top: "data" include {{ stage: "deploy" }}
        input_param {{ shape {{ dim: 1 dim: 1 dim: 8 dim: 8 }} }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param {{ num_output: {outputs} kernel_size: 3 pad: 1 weight_filler {{ type: "xavier" }} }} }}
"""
LAST = """
layer {{ name: "prob" type: "{type}" bottom: "conv" top: "prob" include {{ stage: "deploy" }} }}
"""


def class_masks(folder: Path, classes: int = 3, count: int = 8, ignore: int | None = VOID) -> multiseg.Dataset:
    """Return a dataset of ``count`` images of 8x8 and class masks, a quarter for validation; some rows and one mask are void."""
    draw = np.random.default_rng(1)
    for name in ("input", "target"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        mask = draw.integers(0, classes, (8, 8), dtype=np.uint8)
        if ignore is not None:
            mask[: number % 3 * 2] = ignore
            mask[:] = ignore if number == 4 else mask
        Image.fromarray(mask).save(folder / "target" / f"{number}.png")
        image = draw.integers(0, 200, (8, 8), dtype=np.uint8)
        Image.fromarray(image).save(folder / "input" / f"{number}.png")
    return multiseg.Dataset.create(
        folder / "dataset", input=folder / "input", target=folder / "target", val_percent=25, seed=1, labels="classes",
        classes=[f"class {number}" for number in range(classes)], ignore=ignore,
    )  # fmt: skip


def net(folder: Path, outputs: int = 3, last: str | None = None) -> Path:
    """Return a prototxt whose network ends in scores, or when deployed in a layer of the type ``last``."""
    path = folder / f"net_{outputs}_{last}.prototxt"
    path.write_text(NET.format(outputs=outputs) + ("" if last is None else LAST.format(type=last)))
    return path
