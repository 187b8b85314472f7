"""A named loss in the layers of Caffe."""

from __future__ import annotations

from pathlib import Path

import pytest
from multiseg_caffe import named_losses, prototxt
from multiseg_caffe.deploy import Deployed

from multiseg.errors import ModelError, SettingsError
from multiseg.network import NetworkSpec


def spec(loss: str, **more: object) -> NetworkSpec:
    plain = NetworkSpec("net.prototxt", (1, 8, 8), (1, 8, 8), None, loss, None, None, 1, 1, "cpu", False).to_json()
    return NetworkSpec.from_json({**plain, **more})


def net(tmp_path: Path) -> Deployed:
    path = tmp_path / "net.prototxt"
    path.write_text(
        'layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 3 } }'
    )
    return Deployed(prototxt.read(str(path)), "data", None, ["conv"])


@pytest.mark.parametrize(
    ("loss", "more", "types"),
    [
        ("cross_entropy", {}, ["SoftmaxWithLoss"]),
        ("cross_entropy", {"class_weights": (1, 2, 3)}, ["DummyData", "Concat", "InfogainLoss"]),
        ("focal", {"loss_options": {"gamma": 2.0}}, ["Python"]),
        ("binary_cross_entropy", {"loss_options": {"label_max": 255.0}}, ["Power", "SigmoidCrossEntropyLoss"]),
    ],
)
def test_layers_of_a_loss(tmp_path: Path, loss: str, more: dict[str, object], types: list[str]) -> None:
    deployed = net(tmp_path)
    result = named_losses.with_loss(deployed.net, spec(loss, **more), deployed, "conv", (3, 8, 8), 64)
    assert [layer.type for layer in result.layer] == ["Convolution", *types]


def test_the_dice_loss_has_layers_of_caffe_only(tmp_path: Path) -> None:
    deployed = net(tmp_path)
    told = spec("dice", loss_options={"smooth": 1.0}, ignore_index=255)
    result = named_losses.with_loss(deployed.net, told, deployed, "conv", (3, 8, 8), 64)
    assert "Python" not in {layer.type for layer in result.layer}
    assert [layer.name for layer in result.layer if layer.loss_weight] == ["dice"]


def test_a_caffe_without_python_layers_has_no_focal_loss() -> None:
    named_losses.check_layers(spec("focal"), ["Python"])
    named_losses.check_layers(spec("dice"), [])
    with pytest.raises(
        SettingsError, match="loss='focal': is a Python layer in Caffe, and this Caffe was built without"
    ):
        named_losses.check_layers(spec("focal"), ["Softmax"])


def test_as_many_class_weights_as_scores() -> None:
    spec("focal", class_weights=(1, 2)).check_class_weights(2)
    with pytest.raises(
        ModelError, match=r"net.prototxt: has scores of 3 classes, and class_weights are 2 numbers; specify one"
    ):
        spec("focal", class_weights=(1, 2)).check_class_weights(3)
