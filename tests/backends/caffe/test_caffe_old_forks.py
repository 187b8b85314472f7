"""Files of forks in Caffe's older syntax, `layers { type: ... }`: those of FCN (CROP), DeconvNet (UNPOOLING) and SegNet (BN)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from multiseg_caffe import proto, prototxt, reader

import multiseg
from helpers.exported import random_weights
from multiseg import reference
from multiseg.errors import ModelError
from multiseg.model_files import weights_file
from multiseg.model_files.weights_file import NeutralWeights
from multiseg.training import progress

INPUT = 'input: "data" input_dim: 1 input_dim: 2 input_dim: 8 input_dim: 12\n'


def convolution(name: str, bottom: str, outputs: int, kernel: int, more: str = "", kind: str = "CONVOLUTION") -> str:
    return (
        f'layers {{ name: "{name}" type: {kind} bottom: "{bottom}" top: "{name}" convolution_param {{ num_output: {outputs} '
        f"kernel_size: {kernel} {more} }} }}\n"
    )


def fcn8s() -> str:
    """The geometry of FCN-8s (Shelhamer et al.), with two channels."""
    text, blob = INPUT, "data"
    for block, count in enumerate((2, 2, 3, 3, 3), 1):
        for index in range(1, count + 1):
            name = f"conv{block}_{index}"
            text += convolution(name, blob, 2, 3, f"pad: {100 if block == index == 1 else 1}")
            text += f'layers {{ name: "relu_{name}" type: RELU bottom: "{name}" top: "{name}" }}\n'
            blob = name
        text += f'layers {{ name: "pool{block}" type: POOLING bottom: "{blob}" top: "pool{block}" '
        text += "pooling_param { kernel_size: 2 stride: 2 } }\n"
        blob = f"pool{block}"
    text += convolution("fc6", blob, 2, 7) + convolution("score", "fc6", 2, 1)
    up = "stride: {} bias_term: false"
    text += convolution("upscore2", "score", 2, 4, up.format(2), "DECONVOLUTION")
    for deeper, block, target in (("upscore2", 4, "upscore_pool4"), ("upscore_pool4", 3, "upscore8")):
        text += convolution(f"score_pool{block}", f"pool{block}", 2, 1)
        text += f'layers {{ name: "crop{block}" type: CROP bottom: "score_pool{block}" bottom: "{deeper}" top: "crop{block}" }}\n'
        text += f'layers {{ name: "fuse{block}" type: ELTWISE bottom: "{deeper}" bottom: "crop{block}" top: "fuse{block}" }}\n'
        kernel, stride = (4, 2) if block == 4 else (16, 8)
        text += convolution(target, f"fuse{block}", 2, kernel, up.format(stride), "DECONVOLUTION")
    return text + 'layers { name: "crop" type: CROP bottom: "upscore8" bottom: "data" top: "out" }\n'


def test_crops_align_by_coordinates_as_in_the_published_files(tmp_path: Path) -> None:
    """The files that were published for BVLC Caffe state these offsets: 5, 9 and 31 (fcn.berkeleyvision.org, voc-fcn8s)."""
    (tmp_path / "net.prototxt").write_text(fcn8s())
    crops = [layer for layer in prototxt.read(str(tmp_path / "net.prototxt")).layer if layer.type == "Crop"]
    assert [list(layer.crop_param.offset) for layer in crops] == [[5, 5], [9, 9], [31, 31]]
    assert multiseg.describe(tmp_path / "net.prototxt").shapes["crop"] == (2, 8, 12)


HED = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 60 dim: 50 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param { num_output: 4 pad: 35 kernel_size: 3 } }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "crop" type: "Crop" bottom: "conv1" bottom: "data" top: "one" }
layer { name: "up" type: "Deconvolution" bottom: "pool1" top: "up"
        convolution_param { kernel_size: 4 stride: 2 num_output: 4 } }
layer { name: "crop" type: "Crop" bottom: "up" bottom: "data" top: "two" }
layer { name: "sum" type: "Eltwise" bottom: "one" bottom: "two" top: "sum" }
layer { name: "same" type: "Crop" bottom: "sum" bottom: "data" top: "out" }
"""


def test_a_crop_without_offset_that_the_fork_would_align_is_noted(tmp_path: Path) -> None:
    """conv1 has at y + 34 the value of the pixel y (35 - (3 - 1) / 2); up at 2 (y + 34 - 0.5) / 2 + 1.5 = y + 35.

    BVLC Caffe crops at 0 in this syntax, whose description stays.
    """
    file = tmp_path / "hed.prototxt"
    file.write_text(HED)
    topology = multiseg.describe(file)
    assert [layer.parameters["offset"] for layer in topology.layers if layer.type == "Crop"] == [[0], [0], [0]]
    one, two = topology.notes
    weights_file.write(tmp_path / "w.safetensors", NeutralWeights(random_weights(topology), "BGR"))
    converted = multiseg.convert(tmp_path / "w.safetensors", "safetensors", tmp_path / "o", source_network=file)
    assert converted.notes == topology.notes and converted.to_json()["notes"] == [one, two]
    for note, top, offset in ((one, "one", 34), (two, "two", 35)):
        assert f"hed.prototxt: layer 'crop' (Crop, top '{top}') states no offset: it crops at (0, 0)" in note
        assert f"crops at ({offset}, {offset})" in note
        assert f"crop_param {{ axis: 2 offset: {offset} offset: {offset} }}" in note
    for top, offset in (("one", 34), ("two", 35)):  # as the notes say, which settles it
        state = f"crop_param {{ axis: 2 offset: {offset} offset: {offset} }}"
        file.write_text(file.read_text().replace(f'top: "{top}" }}', f'top: "{top}" {state} }}'))
    topology = multiseg.describe(file)
    assert topology.notes == ()
    assert [layer.parameters["offset"] for layer in topology.layers if layer.type == "Crop"] == [
        [34, 34],
        [35, 35],
        [0],
    ]
    file.write_text(fcn8s())
    assert multiseg.describe(file).notes == ()  # the older syntax is the fork's


@pytest.mark.needs("caffe")
def test_a_training_prints_the_note_once(tmp_path: Path, dataset: multiseg.Dataset) -> None:
    size = " ".join(f"dim: {n}" for n in (1, *dataset.train.shape))
    (tmp_path / "net.prototxt").write_text(f"""
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {size} }} }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param {{ num_output: 1 pad: 5 kernel_size: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "crop" type: "Crop" bottom: "conv" bottom: "data" top: "out" }}
""")
    events: list[dict[str, Any]] = []
    job = multiseg.Job(dataset, "caffe", model=tmp_path / "net.prototxt", loss="l2", epochs=1, learning_rate=1e-9)
    job.train(tmp_path / "run", progress=events.append)
    (note,) = events[0]["notes"]
    assert "layer 'crop' (Crop, top 'out') states no offset" in note and "crops at (4, 4)" in note
    lines = progress.notes_of_start(events[0])
    assert lines[0] == f"note: {note}"


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (convolution("b", "data", 2, 2), r"'crop' \(Crop\): its inputs do not align: y in the first is 1 y \+ -0.5"),
        (convolution("b", "data", 2, 3, "stride: 2"), r"do not align: y in the first is 0.5 y"),
        ('layers { name: "b" type: INNER_PRODUCT bottom: "data" top: "b" inner_product_param { num_output: 2 } }',
         r"layer 'b' \(InnerProduct\) before it has no coordinates; specify crop_param"),
        ('layers { name: "b" type: RELU bottom: "c" top: "b" } layers { name: "c" type: RELU bottom: "b" top: "c" }',
         r"its inputs 'data' and 'b' have no common ancestor"),
    ],
)  # fmt: skip
def test_inputs_that_do_not_align_are_an_error(tmp_path: Path, layer: str, message: str) -> None:
    crop = 'layers { name: "crop" type: CROP bottom: "data" bottom: "b" top: "out" }'
    (tmp_path / "net.prototxt").write_text(INPUT + layer + crop)
    with pytest.raises(ModelError, match=message):
        multiseg.describe(tmp_path / "net.prototxt")


def test_deconvnet_puts_values_where_its_pooling_found_them(tmp_path: Path) -> None:
    """A folded BN is a factor and a summand for each channel; a BN that outputs its statistics is read without them."""
    learn = 'layers { name: "learn" type: BN bottom: "pool" top: "learn" top: "mean" top: "var" }\n'
    learn += 'layers { name: "quiet" type: SILENCE bottom: "mean" bottom: "var" }\n'
    (tmp_path / "net.prototxt").write_text(
        INPUT + 'layers { name: "bn" type: BN bottom: "data" top: "bn" bn_param { bn_mode: INFERENCE } }\n'
        'layers { name: "pool" type: POOLING bottom: "bn" top: "pool" top: "mask" pooling_param { kernel_size: 2 stride: 2 } }\n'
        f"{learn}"
        'layers { name: "unpool" type: UNPOOLING bottom: "learn" bottom: "mask" top: "unpool" '
        "unpooling_param { unpool: MAX kernel_size: 2 stride: 2 unpool_h: 8 unpool_w: 12 } }\n"
    )
    weights = proto.NetParameter()
    values = {"bn": ([2.0, -1.0], [0.5, 0.0]), "learn": ([1.0, 1.0], [0.0, 0.0])}
    for name, pair in values.items():  # as the forks write it, BN is type 43
        layer = weights.layers.add(name=name, type=43)
        for numbers in pair:
            layer.blobs.add(num=1, channels=2, height=1, width=1, data=numbers)
    (tmp_path / "net.caffemodel").write_bytes(weights.SerializeToString())
    assert text_format.MessageToString(weights).count("type: BN") == 2
    topology = multiseg.describe(tmp_path / "net.prototxt")
    assert [layer.type for layer in topology.layers] == ["Scale", "MaxPool", "BatchNormalization", "MaxUnpool"]
    read = reader.read_weights(str(tmp_path / "net.caffemodel"))
    x = np.random.default_rng(3).standard_normal((1, 2, 8, 12))
    y = x * np.array([2.0, -1])[:, None, None] + np.array([0.5, 0])[:, None, None]
    windows = y.reshape(1, 2, 4, 2, 6, 2)
    peak = windows.max((3, 5), keepdims=True)
    mean, var = peak.mean((2, 4), keepdims=True), peak.var((2, 4), keepdims=True)
    expected = np.where(windows == peak, (windows - mean) / np.sqrt(var + 1e-9), 0).reshape(x.shape)
    result = reference.forward(topology, read, x).output.value
    assert np.abs(result - expected).max() <= 1e-6


def test_other_unpoolings_are_an_error_that_names_what_is_supported(tmp_path: Path) -> None:
    text = (
        INPUT
        + 'layers { name: "u" type: UNPOOLING bottom: "data" top: "u" unpooling_param { unpool: TILE unpool_size: 16 } }'
    )
    (tmp_path / "net.prototxt").write_text(text)
    with pytest.raises(ModelError, match=r"layer 'u' \(Unpooling\): only unpooling to the positions of maxima"):
        multiseg.describe(tmp_path / "net.prototxt")


def test_deeplab_is_read_with_holes_as_dilation_without_what_it_writes(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "data" type: "ImageSegData" top: "data" top: "label" top: "data_dim" '
        "image_data_param { batch_size: 1 label_type: NONE } }\n"
        'layer { name: "a" type: "Convolution" bottom: "data" top: "a" '
        "convolution_param { num_output: 3 kernel_size: 3 pad: 4 hole: 4 } }\n"
        'layer { name: "b" type: "Convolution" bottom: "a" top: "b" '
        "convolution_param { num_output: 2 kernel_size: 3 pad_h: 1 pad_w: 2 hole_h: 1 hole_w: 2 } }\n"
        'layer { name: "drop" type: "Dropout" bottom: "b" top: "b" dropout_param { engine: CUDNN } }\n'
        'layer { name: "quiet" type: "Silence" bottom: "label" bottom: "data_dim" }\n'
        'layer { name: "write" type: "MatWrite" bottom: "b" mat_write_param { prefix: "out" source: "list" strip: 0 period: 1 } }'
    )
    topology = multiseg.describe(tmp_path / "net.prototxt", input_shape=(3, 9, 9))
    assert [layer.parameters.get("dilations") for layer in topology.layers] == [[4, 4], [1, 2], None]
    assert topology.outputs == ("drop",) and topology.shapes["drop"] == (2, 9, 9)
