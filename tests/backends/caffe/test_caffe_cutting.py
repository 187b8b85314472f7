"""A prototxt is cut to named outputs before it is parsed: what lies beyond is not read, and the rest means what it did."""

from __future__ import annotations

from pathlib import Path

import pytest
from multiseg_caffe import prototxt
from multiseg_caffe.cutting import cut

import multiseg
from multiseg.errors import ModelError
from multiseg.topology import Topology

SSD = """# layer { in a comment
name: "layer { in a text"
layer { name: "data" type: "AnnotatedData" top: "data" top: "label" include { phase: TRAIN }
        annotated_data_param { batch_sampler { max_sample: 1 } } data_param { batch_size: 4 } }
layer { name: "in" type: "Input" top: "data" include { phase: TEST } input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
layer { name: "conv4_3" type: "Convolution" bottom: "data" top: "c4" convolution_param { num_output: 2 kernel_size: 3 } }
layer { name: "relu4_3" type: "ReLU" bottom: "c4" top: "c4" }
layer { name: "score" type: "Convolution" bottom: "c4" top: "score" convolution_param { num_output: 3 kernel_size: 1 } }
layer { name: "slice" type: "Slice" bottom: "c4" top: "s0" top: "s1" slice_param { axis: 1 } }
layer { name: "prior" type: "PriorBox" bottom: "c4" bottom: "data" top: "prior" prior_box_param { min_size: 4.0 } }
layer { name: "mbox_loss" type: "MultiBoxLoss" bottom: "prior" bottom: "label" top: "mbox_loss" multibox_loss_param { } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" include { phase: TRAIN } }
"""


def described(folder: Path, *outputs: str, text: str = SSD) -> Topology:
    (folder / "net.prototxt").write_text(text)
    return multiseg.describe(folder / "net.prototxt", outputs=outputs)


@pytest.mark.parametrize(
    ("name", "layers", "outputs"),
    [
        ("conv4_3", ["conv4_3"], ("conv4_3",)),
        ("relu4_3", ["conv4_3", "relu4_3"], ("relu4_3",)),
        ("c4", ["conv4_3", "relu4_3"], ("relu4_3",)),  # the blob, after the last layer that writes it
        ("score", ["conv4_3", "relu4_3", "score"], ("score",)),
        ("slice", ["conv4_3", "relu4_3", "slice"], ("slice:0", "slice:1")),
        ("slice:1", ["conv4_3", "relu4_3", "slice"], ("slice:1",)),
        ("s1", ["conv4_3", "relu4_3", "slice"], ("slice:1",)),
    ],
)
def test_a_name_is_that_of_a_layer_a_blob_or_a_value(
    name: str, layers: list[str], outputs: tuple[str, ...], tmp_path: Path
) -> None:
    topology = described(tmp_path, name)
    assert [layer.name for layer in topology.layers] == layers and topology.outputs == outputs
    overwritten = "the output 'conv4_3' is that of this layer, before layer 'relu4_3' overwrites its blob 'c4'"
    assert [note.partition(";")[0] for note in topology.notes] == ([overwritten] if name == "conv4_3" else [])


def test_the_loss_is_kept_where_it_compares_the_only_output(tmp_path: Path) -> None:
    assert described(tmp_path, "score").loss == "softmax cross-entropy, mean over places (score, label)"
    assert described(tmp_path, "relu4_3").loss is None
    several = described(tmp_path, "relu4_3", "score")
    assert several.outputs == ("relu4_3", "score") and not several.trains


def test_detection_layers_stop_what_needs_them_and_name_the_way_out(tmp_path: Path) -> None:
    for outputs, message in (
        ((), r"net\.prototxt:4:\d+: annotated_data_param is of a layer of object detection \(AnnotatedData\), "),
        (("prior",), r"net\.prototxt:10:\d+: prior_box_param is of a layer of object detection \(PriorBox\), "),
    ):
        with pytest.raises(ModelError, match=message + r"which .*; cut the network before it, with outputs='relu4_3'$"):
            described(tmp_path, *outputs)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("conv4_4", "net.prototxt: outputs='conv4_4': no layer or output has this name; similar names: conv4_3"),
        (
            "slice:2",
            "net.prototxt: outputs='slice:2': no layer or output has this name; similar names: slice:1, slice:0, slice",
        ),
        ("xyz", "net.prototxt: outputs='xyz': no layer or output has this name; its last layers are: "),
    ],
)
def test_an_unknown_name_lists_similar_ones(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        described(tmp_path, name)
    assert str(caught.value).removeprefix(f"{tmp_path}/").startswith(message)


def test_lines_stay_where_they_are_and_data_layers_remain(tmp_path: Path) -> None:
    text = cut(SSD, "net.prototxt", ["score"])
    assert [len(line) for line in text.splitlines()] == [len(line) for line in SSD.splitlines()]
    (tmp_path / "net.prototxt").write_text(text)
    net = prototxt.read(str(tmp_path / "net.prototxt"))
    assert [layer.name for layer in net.layer] == ["data", "in", "conv4_3", "relu4_3", "score", "loss"]
    assert [layer.type for layer in net.layer][:2] == ["Data", "Input"]
    old = 'input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8\n' + (
        "layers { name: 'a' type: SIGMOID bottom: 'data' top: 'a' }\nlayers < name: 'b' type: RELU bottom: 'a' top: 'b' >\n"
        "layers { name: 'c' type: UNKNOWN bottom: 'b' top: 'c' }\n"
    )
    assert [layer.type for layer in described(tmp_path, "b", text=old).layers] == ["Sigmoid", "Relu"]
