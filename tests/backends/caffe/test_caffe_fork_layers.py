"""Layers of Caffe's forks that install-caffe builds: outputs and gradients of Caffe against float64, and their descriptions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from multiseg_caffe import proto, prototxt, reader, weights_files
from multiseg_caffe.describing import fork_layers
from multiseg_caffe.install.build import FORKS, RECIPE

from helpers import pycaffe
from helpers.exported import random_weights
from multiseg import reference
from multiseg.errors import ModelError
from multiseg.topology import Topology

pytestmark = pytest.mark.needs("caffe")

POOL = (
    'layer { name: "pool" type: "Pooling" bottom: "first" top: "pooled" top: "mask" '
    "pooling_param { pool: MAX kernel_size: 2 stride: 2 } }\n"
)


def bn(fields: str) -> str:
    """A BN in place, as SegNet has them."""
    return f'layer {{ name: "bn" type: "BN" bottom: "first" top: "first" bn_param {{ {fields} }} }}'


def interp(fields: str) -> str:
    return f'layer {{ name: "interp" type: "Interp" bottom: "first" top: "out" interp_param {{ {fields} }} }}'


def upsample(fields: str) -> str:
    layer = 'layer { name: "up" type: "Upsample" bottom: "pooled" bottom: "mask" top: "out"'
    return f"{POOL}{layer} upsample_param {{ {fields} }} }}"


# layers, shape of the images, whether the phase is TRAIN
CASES: dict[str, tuple[str, tuple[int, int, int], bool]] = {
    "learn": (bn("scale_filler { value: 1 }"), (3, 5, 7), True),
    "inference": (bn("bn_mode: INFERENCE"), (3, 5, 7), True),
    "stored": (bn("momentum: 0.8"), (3, 6, 5), True),
    "stored-test": (bn("eps: 1e-4"), (3, 6, 5), False),
    "frozen": (bn("frozen: true"), (2, 4, 9), True),
    "zoom": (interp("zoom_factor: 3"), (2, 5, 4), True),
    "shrink": (interp("shrink_factor: 2"), (2, 9, 6), True),
    "shrink-zoom": (interp("shrink_factor: 3 zoom_factor: 2"), (2, 10, 13), True),
    "size": (interp("height: 11 width: 3"), (2, 6, 8), True),
    "to-one": (interp("height: 1 width: 5"), (2, 4, 4), True),
    "from-one": (interp("height: 4 width: 5"), (2, 1, 1), True),
    "crop": (interp("zoom_factor: 2 pad_beg: -1 pad_end: -2"), (2, 9, 8), True),
    "upsample": (upsample("scale: 2"), (2, 6, 8), True),
    "upsample-default": (upsample(""), (2, 4, 10), True),
    "upsample-sides": (upsample("scale_h: 2 scale_w: 3"), (2, 6, 4), True),
    "upsample-less": (upsample("scale: 2 pad_out_h: true pad_out_w: true"), (2, 5, 7), True),
    "upsample-size": (upsample("upsample_h: 7 upsample_w: 9"), (2, 7, 9), True),
}


def described(file: Path, shape: Any = None) -> Topology:
    return Topology.of(file.name, "Caffe prototxt", reader.describe(str(file), shape))


def test_outputs_and_gradients_are_those_of_float64(tmp_path: Path) -> None:
    """The loss is the sum of the output times random numbers."""
    draw = np.random.default_rng(2)
    jobs, networks = [], {}
    for name, (layers, shape, train) in CASES.items():
        size = " ".join(f"dim: {n}" for n in (2, *shape))
        first = 'layer { name: "first" type: "Scale" bottom: "data" top: "first" }\n'
        head = f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {size} }} }} }}\n{first}'
        file = tmp_path / f"{name}.prototxt"
        file.write_text(head + layers)
        topology = described(file)
        out = "first" if name in IN_PLACE else "out"
        to = topology.shapes[topology.outputs[0]]
        size = " ".join(f"dim: {n}" for n in (2, *to))
        loss = (
            f'\nlayer {{ name: "direction" type: "Input" top: "direction" input_param {{ shape {{ {size} }} }} }}\n'
            f'layer {{ name: "product" type: "Eltwise" bottom: "{out}" bottom: "direction" top: "product" '
            "eltwise_param { operation: PROD } }\n"
            'layer { name: "loss" type: "Reduction" bottom: "product" top: "loss" loss_weight: 1 }'
        )
        weights = random_weights(topology)
        weights_files.write(str(tmp_path / f"{name}.caffemodel"), weights, str(file), None, {})
        (tmp_path / f"{name}-loss.prototxt").write_text(head + layers + loss)
        images, direction = (draw.standard_normal((2, *each)).astype(np.float32) for each in (shape, to))
        networks[name] = (topology, weights, images, direction)
        jobs.append(
            {
                "net": tmp_path / f"{name}-loss.prototxt", "weights": tmp_path / f"{name}.caffemodel", "train": train,
                "backward": True, "feed": {"data": images, "direction": direction},
            }
        )  # fmt: skip
    for (name, (topology, weights, images, direction)), made in zip(
        networks.items(), pycaffe.run(tmp_path, jobs), strict=True
    ):
        trace = reference.forward(topology, weights, images, training=CASES[name][2])
        gradients = reference.backward(trace, reference.exact(direction))
        bn_names = {"bn.weight": "slope/bn/0", "bn.bias": "slope/bn/1"}
        pairs = [(gradients[name], made[key]) for name, key in bn_names.items() if name in gradients]
        pairs.append((gradients["first.weight"], made["slope/first/0"]))
        pairs.append((trace.output, made["data/first" if name in IN_PLACE else "data/out"]))
        for ours, theirs in pairs:
            apart = np.abs(ours.value - theirs.reshape(ours.value.shape))
            assert (apart / (ours.bound + reference.bounded.TINY)).max() <= 1, name
        if name == "stored":  # the averages are 0.8 of the old and 0.2 of the batch
            x = images * weights["first.weight"].reshape(1, -1, 1, 1)
            for index, part, value in ((2, "running_mean", x.mean((0, 2, 3))), (3, "running_var", x.var((0, 2, 3)))):
                expected = 0.8 * weights[f"bn.{part}"] + 0.2 * value
                assert np.allclose(made[f"weights/bn/{index}"].reshape(-1), expected, rtol=1e-5, atol=1e-6)
        elif "bn.running_mean" in weights:
            assert np.array_equal(made["weights/bn/2"].reshape(-1), weights["bn.running_mean"])


def test_spatial_dropout_drops_whole_channels_in_training_alone(tmp_path: Path) -> None:
    shape = "dim: 8 dim: 60 dim: 3 dim: 4"
    (tmp_path / "net.prototxt").write_text(
        f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {shape} }} }} }}'
        'layer { name: "first" type: "Scale" bottom: "data" top: "first" scale_param { filler { value: 2 } } }'
        'layer { name: "drop" type: "SpatialDropout" bottom: "first" top: "out" dropout_param { dropout_ratio: 0.3 } }'
        f'layer {{ name: "direction" type: "Input" top: "direction" input_param {{ shape {{ {shape} }} }} }}'
        'layer { name: "product" type: "Eltwise" bottom: "out" bottom: "direction" top: "p" eltwise_param { operation: PROD } }'
        'layer { name: "loss" type: "Reduction" bottom: "p" top: "loss" loss_weight: 1 }'
    )
    images, direction = np.random.default_rng(1).standard_normal((2, 8, 60, 3, 4)).astype(np.float32)
    job = {"net": tmp_path / "net.prototxt", "feed": {"data": images, "direction": direction}, "backward": True}
    trained, tested = pycaffe.run(tmp_path, [{**job, "train": True}, job])
    assert np.array_equal(tested["data/out"], 2 * images)
    kept = np.abs(trained["data/out"]).max((2, 3), keepdims=True) > 0
    assert np.allclose(trained["data/out"], 2 * images * kept / 0.7, rtol=1e-6)
    assert np.allclose(trained["diff/first"], direction * kept / 0.7, rtol=1e-6)
    assert abs(kept.mean() - 0.7) < 5 * np.sqrt(0.3 * 0.7 / kept.size)  # five standard deviations


IN_PLACE = [name for name, (layers, _, _) in CASES.items() if '"bn"' in layers]
INPUT = 'input: "data" input_shape { dim: 1 dim: 2 dim: 6 dim: 8 }\n'


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (bn("scale_filler { value: 1 } eps: 1e-5"), "fields of two different layers called BN: scale_filler"),
        (interp(""), "needs interp_param { height: ... width: ... }, zoom_factor or shrink_factor"),
        (interp("zoom_factor: 2 pad_beg: 1"), "both crop, so they must be at most 0"),
        (interp("zoom_factor: 2 pad_beg: -4 pad_end: -2"), "crops all of its input of 6x8"),
        (upsample("scale_h: 2"), "needs upsample_param { scale: ... }, or scale_h and scale_w"),
        (
            POOL.replace("MAX", "AVE") + 'layer { name: "r" type: "ReLU" bottom: "mask" top: "r" }',
            "only MAX pooling gives the indices",
        ),
    ],
)
def test_what_a_fork_would_not_accept_is_an_error_that_names_the_layer(
    layer: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "net.prototxt").write_text(INPUT + layer.replace('"first"', '"data"'))
    with pytest.raises(ModelError, match=r"net\.prototxt: layer '\w+' \(\w+\): .*" + re.escape(message)):
        reader.describe(str(tmp_path / "net.prototxt"), None)


def test_training_with_a_caffe_without_these_layers_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(INPUT + interp("zoom_factor: 2").replace('"first"', '"data"'))
    net = prototxt.read(str(tmp_path / "net.prototxt"))
    fork_layers.check_installed(net, ["Convolution", "Interp"], "net.prototxt")
    message = r"net\.prototxt: layer 'interp' \(Interp\): is a layer of Caffe's forks, which this Caffe lacks; `multi"
    with pytest.raises(ModelError, match=message):
        fork_layers.check_installed(net, ["Convolution", "ReLU"], "net.prototxt")


def test_the_recipe_has_the_fields_by_which_files_are_read() -> None:
    kinds = {"float": proto.FLOAT, "int32": proto.INT, "bool": proto.BOOL}
    lines = [line[1:] for line in (RECIPE / "patches" / FORKS).read_text().splitlines() if line.startswith("+")]
    found: dict[str, Any] = {}
    message, defaults = "LayerParameter", {}
    for line in lines:
        message = match[1] if (match := re.match(r"message (\w+)", line)) else message
        if field := re.match(r"  optional (\w+) (\w+) = (\d+)(?: \[default = (.+)\])?;", line):
            found.setdefault(message, {})[field[2]] = (kinds.get(field[1], field[1]), int(field[3]))
            defaults.update({f"{message}.{field[2]}": field[4]} if field[4] else {})
    assert found == proto.LAYER_FIELDS
    assert defaults == {key: value for key, value in proto.DEFAULTS.items() if key.partition(".")[0] in found}


def test_a_caffemodel_tells_its_bn_by_the_number_of_blobs(tmp_path: Path) -> None:
    """Also where the fields of the layer are those of a fork with other numbers."""
    net = proto.NetParameter()
    for name, count in (("two", 2), ("four", 4)):
        layer = net.layer.add(name=name, type="BN")
        for index in range(count):
            blob = layer.blobs.add(data=[index, index + 0.5])
            blob.shape.dim.extend([1, 2, 1, 1])
    # PSPNet's bn_param { momentum: 0.5 eps: 1 frozen: true } as field 137, which is embed_param in BVLC Caffe
    own = b"\x1d\x00\x00\x00\x3f\x25\x00\x00\x80\x3f\x28\x01"
    net.layer[1].MergeFromString(b"\xca\x08" + bytes([len(own)]) + own)
    assert net.layer[1].HasField("embed_param")
    (tmp_path / "w.caffemodel").write_bytes(net.SerializeToString())
    found = weights_files.read(str(tmp_path / "w.caffemodel"))
    assert {name: list(value) for name, value in found.items()} == {
        "two.weight": [0, 0.5], "two.bias": [1, 1.5], "four.weight": [0, 0.5], "four.bias": [1, 1.5],
        "four.running_mean": [2, 2.5], "four.running_var": [3, 3.5],
    }  # fmt: skip
