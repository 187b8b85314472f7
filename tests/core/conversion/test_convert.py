"""Converting weights, where no framework is needed: Caffe's files and neutral ones."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import save_file

import multiseg
from multiseg import backend as registry
from multiseg.cli import main
from multiseg.errors import ModelError, SettingsError
from multiseg.model_files import weights_file
from multiseg.model_files.reading import describe, read_weights
from multiseg.model_files.weights_file import NeutralWeights
from multiseg.model_files.writing import write_weights

Array = np.ndarray[Any, Any]

NET = """
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 1 dim: 3 dim: 8 dim: 8 }} }} }}
layer {{ name: "{conv1}" type: "Convolution" bottom: "data" top: "a" convolution_param {{ num_output: 4 kernel_size: 3 }} }}
layer {{ name: "{bn}" type: "BatchNorm" bottom: "a" top: "b" }}
layer {{ name: "{scale}" type: "Scale" bottom: "b" top: "c" scale_param {{ bias_term: true }} }}
layer {{ name: "prelu" type: "PReLU" bottom: "c" top: "c2" prelu_param {{ channel_shared: true }} }}
layer {{ name: "{deconv}" type: "Deconvolution" bottom: "c2" top: "d"
         convolution_param {{ num_output: 6 group: 2 kernel_size: 2 stride: 2 bias_term: false }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "d" top: "e" inner_product_param {{ num_output: 5 transpose: {t} }} }}
"""
NAMES = {"conv1": "conv1", "bn": "bn", "scale": "bn_scale", "deconv": "up", "t": "false"}


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.prototxt"
    path.write_text(NET.format(**NAMES))
    return path


@pytest.fixture
def weights(net: Path) -> dict[str, Array]:
    draw = np.random.default_rng(3)
    return {name: draw.random(shape, np.float32) for name, shape in describe(net).weights.items()}


@pytest.fixture
def model(net: Path, weights: dict[str, Array], tmp_path: Path) -> Path:
    write_weights(registry.get("caffe"), tmp_path / "net.caffemodel", weights, net, None)
    return tmp_path / "net.caffemodel"


def test_a_caffemodel_reads_back_as_it_was_written(model: Path, weights: dict[str, Array]) -> None:
    np.testing.assert_equal(dict(read_weights(model)), weights)


def test_to_neutral_weights_and_back(model: Path, weights: dict[str, Array], net: Path, tmp_path: Path) -> None:
    there = multiseg.convert(model, "safetensors", tmp_path / "w.safetensors")
    assert (there.channel_order, there.reversed, there.left_out, there.how) == ("BGR", (), (), "name")
    np.testing.assert_equal(dict(read_weights(there.path)), weights)
    back = multiseg.convert(there.path, "caffemodel", tmp_path / "again.caffemodel", network=net)
    assert back.path.read_bytes() == model.read_bytes()


def test_without_a_network_layers_keep_their_names_and_shapes(
    model: Path, weights: dict[str, Array], tmp_path: Path
) -> None:
    multiseg.convert(model, "safetensors", tmp_path / "w.safetensors")
    multiseg.convert(tmp_path / "w.safetensors", "caffemodel", tmp_path / "again.caffemodel")
    found = read_weights(tmp_path / "again.caffemodel")
    np.testing.assert_equal({name: value.reshape(weights[name].shape) for name, value in found.items()}, weights)


def test_names_of_another_file_are_found_by_structure(model: Path, weights: dict[str, Array], net: Path) -> None:
    other = net.with_name("other.prototxt")
    other.write_text(NET.format(conv1="first", bn="n/1", scale="n/2", deconv="last", t="true"))
    found = multiseg.convert(model, "caffemodel", net.with_name("o.caffemodel"), other, source_network=net)
    assert found.how == "structure" and found.matched["n/2.bias"] == "bn_scale.bias"
    theirs = read_weights(found.path)
    assert all(np.array_equal(theirs[name], weights[own]) for name, own in found.matched.items())
    assert "conv1.weight -> first.weight" in str(found)


def test_images_of_the_same_colours(model: Path, weights: dict[str, Array], net: Path) -> None:
    """Neutral weights that say RGB, for Caffe, whose images are BGR; and images that say nothing."""
    rgb = net.with_name("rgb.safetensors")
    weights_file.write(rgb, NeutralWeights(weights, "RGB"))
    found = multiseg.convert(rgb, "caffemodel", net.with_name("o.caffemodel"), net)
    assert (found.reversed, found.channel_order) == (("conv1.weight",), "BGR")
    theirs = read_weights(found.path)
    np.testing.assert_array_equal(theirs["conv1.weight"], weights["conv1.weight"][:, ::-1])
    kept = multiseg.convert(rgb, "caffemodel", net.with_name("o.caffemodel"), net, channels="keep")
    assert (kept.reversed, kept.channel_order) == ((), "RGB")
    np.testing.assert_equal(dict(read_weights(kept.path)), weights)
    with pytest.raises(ModelError, match=r"candidates are conv1\.weight, up\.weight; specify the network file"):
        multiseg.convert(rgb, "caffemodel", net.with_name("o.caffemodel"))
    weights_file.write(rgb, NeutralWeights({name: weights[name] for name in weights if name != "up.weight"}, "RGB"))
    assert multiseg.convert(rgb, "caffemodel", net.with_name("o.caffemodel")).reversed == ("conv1.weight",)
    save_file(weights, net.with_name("w.safetensors"))
    with pytest.raises(
        ModelError, match=r"w\.safetensors: does not say whether its network is fed RGB or BGR; specify its"
    ):
        multiseg.convert(net.with_name("w.safetensors"), "caffemodel", net.with_name("o.caffemodel"), net)
    evident = {name: weights[name] for name in ("conv1.weight", "conv1.bias", "ip.bias")}
    save_file(evident, net.with_name("few.safetensors"))
    with pytest.raises(ModelError, match=r"few\.safetensors: does not say whether its network is fed RGB or BGR"):
        multiseg.convert(net.with_name("few.safetensors"), "caffemodel", net.with_name("o.caffemodel"))
    told = multiseg.convert(
        net.with_name("w.safetensors"), "caffemodel", net.with_name("o.caffemodel"), net, source_network=net
    )
    assert (told.reversed, told.channel_order) == ((), "BGR")


def test_three_channels_that_are_made_are_colours_or_classes(tmp_path: Path) -> None:
    head = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 8 dim: 8 } } }'
    conv = 'layer { name: "c" type: "Convolution" bottom: "data" top: "c" convolution_param { num_output: 3 kernel_size: 1 } }'
    file, rgb = tmp_path / "net.prototxt", tmp_path / "rgb.safetensors"
    file.write_text(head + conv)
    weights = {"c.weight": np.float32([[[[1]]], [[[2]]], [[[3]]]]), "c.bias": np.float32([1, 2, 3])}
    weights_file.write(rgb, NeutralWeights(weights, "RGB"))
    with pytest.raises(
        SettingsError, match="whether the three channels of its output are colours or scores of classes"
    ):
        multiseg.convert(rgb, "caffemodel", tmp_path / "o", network=file)
    colours = multiseg.convert(rgb, "caffemodel", tmp_path / "o", network=file, label_shape=(3, 8, 8))
    assert colours.reversed == ("c.weight", "c.bias")
    np.testing.assert_array_equal(read_weights(colours.path)["c.bias"], [3, 2, 1])
    assert not multiseg.convert(rgb, "caffemodel", tmp_path / "o", network=file, label_shape=(1, 8, 8)).reversed
    file.write_text(head + conv + 'layer { name: "s" type: "Softmax" bottom: "c" top: "s" }')
    assert not multiseg.convert(rgb, "caffemodel", tmp_path / "o", network=file).reversed


def test_what_is_left_out_is_told(model: Path, weights: dict[str, Array], net: Path) -> None:
    more = net.with_name("more.safetensors")
    extra = {**weights, "head.weight": np.ones((2, 2), np.float32)}
    weights_file.write(
        more, NeutralWeights(extra, "BGR", {"momentum/ip.weight": weights["ip.weight"]}, {"name": "sgd"})
    )
    found = multiseg.convert(more, "caffemodel", net.with_name("o.caffemodel"), net)
    assert found.left_out == ("head.weight", "the solver's state")
    assert "left out: head.weight, the solver's state" in str(found)
    same = multiseg.convert(more, "safetensors", net.with_name("o.safetensors"))
    assert not same.left_out and weights_file.read(same.path).solver == {"name": "sgd"}
    assert list(weights_file.read(same.path).state) == ["momentum/ip.weight"]
    renamed = multiseg.convert(more, "safetensors", net.with_name("o.safetensors"), map={"ip": "fc"})
    assert renamed.left_out == ("the solver's state",) and weights_file.read(renamed.path).solver is None


def test_weights_that_are_not_of_their_network_are_refused(model: Path, net: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.prototxt"
    other.write_text(NET.format(**NAMES).replace("num_output: 5", "num_output: 7"))
    with pytest.raises(
        ModelError,
        match=r"does not belong to the network in other\.prototxt, which has 'ip\.weight' \(7, 864\); here it is",
    ):
        multiseg.convert(model, "caffemodel", tmp_path / "o.caffemodel", net, source_network=other)
    with pytest.raises(
        ModelError, match=r"'ip\.weight' has the shape \(5, 864\), in other\.prototxt it has \(7, 864\)"
    ):
        multiseg.convert(model, "caffemodel", tmp_path / "o.caffemodel", other)


def test_nothing_is_left_of_what_fails(model: Path, net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "o.caffemodel").write_bytes(b"old")

    def half(path: str, **_: Any) -> None:
        Path(path).write_bytes(b"half")
        raise ModelError("no more")

    monkeypatch.setattr("multiseg_caffe.weights_files.write", half)
    with pytest.raises(ModelError, match="no more"):
        multiseg.convert(model, "caffemodel", out / "o.caffemodel", net)
    assert [path.name for path in out.iterdir()] == ["o.caffemodel"] and (out / "o.caffemodel").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"to": "onnx"}, r"to='onnx': choose one of safetensors, caffemodel, tf, pt"),
        ({"channels": "rgb"}, r"channels='rgb': choose image .* or keep"),
        ({"out": "nowhere/o.caffemodel"}, r"cannot be written: there is no folder"),
        ({"out": "."}, r"cannot be written: is a folder"),
        (
            {"out": "net.caffemodel"},
            r"^net.caffemodel: would overwrite the input .*net.caffemodel; specify another file",
        ),
        ({"out": "net.prototxt", "network": "net.prototxt"}, r"net.prototxt: would overwrite the input"),
        ({"out": "net.prototxt", "source_network": "./net.prototxt"}, r"net.prototxt: would overwrite the input"),
        (
            {"source_network": "net.prototxt", "with_network": "net.prototxt"},
            r"net.prototxt: would overwrite the input",
        ),
        (
            {"source_network": "net.prototxt", "out": "z.prototxt", "with_network": "z.prototxt"},
            r"z.prototxt: cannot be both the weights and with_network",
        ),
        ({"to": "pt", "network": "net.prototxt"}, r"is a Caffe prototxt; to='pt' needs a network file of PyTorch"),
        ({"network": "net.prototxt", "with_network": "o.prototxt"}, r"network and with_network exclude each other"),
        (
            {"with_network": "o.prototxt"},
            r"with_network needs the source's network; specify its file with source_network=FILE",
        ),
        ({"with_network": "o.txt"}, r"o\.txt: the name of a network file for Caffe must end in \.prototxt"),
        ({"to": "safetensors", "with_network": "o.py"}, r"safetensors is for any framework"),
        ({"source": "net.prototxt"}, r"is a Caffe prototxt, which contains network"),
        ({"source": "nothing.pt"}, r"nothing\.pt: cannot be read: No such file"),
        ({"source": "."}, r"is not a weights file of a known kind; .*; safetensors \(\.safetensors\); found a folder"),
        ({"map": {"conv": "conv1"}}, r"has no layer or parameter 'conv'; similar names: conv1"),
    ],
)
def test_what_is_wrong_is_told(
    arguments: dict[str, Any], why: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"source": str(model), "to": "caffemodel", "out": "o.caffemodel", **arguments}
    with pytest.raises((ModelError, SettingsError), match=why):
        multiseg.convert(**given)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.caffemodel", "net.prototxt"]


@pytest.mark.parametrize("to", ["safetensors", "caffemodel"])
def test_converting_nothing_is_refused(to: str, tmp_path: Path) -> None:
    weights_file.write(tmp_path / "w", NeutralWeights({}, "BGR"))
    done = CliRunner().invoke(main, ["convert", str(tmp_path / "w"), "--to", to, "-o", str(tmp_path / "o")])
    assert (done.exit_code, done.output) == (
        2, f"multiseg: {tmp_path}/w: holds no weights, so that there is nothing to convert\n"
    )  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["w"]


def test_a_network_without_parameters_takes_no_weights(model: Path, tmp_path: Path) -> None:
    pool = tmp_path / "pool.prototxt"
    pool.write_text(
        NET.splitlines()[1].replace("{{", "{").replace("}}", "}")
        + ' layer { name: "p" type: "Pooling" bottom: "data" top: "p" pooling_param { kernel_size: 2 } }'
    )
    with pytest.raises(
        ModelError, match=r"pool\.prototxt: has no parameters, so that none of the 10 of .* can be written"
    ):
        multiseg.convert(model, "caffemodel", tmp_path / "o", pool)
    assert not (tmp_path / "o").exists()


def test_what_a_caffemodel_has_no_place_for_is_refused(tmp_path: Path) -> None:
    weights_file.write(tmp_path / "w", NeutralWeights({"lstm.weight_ih": np.ones((2, 2), np.float32)}, "BGR"))
    with pytest.raises(
        ModelError, match=rf"^{tmp_path}/o: cannot infer the type of layer 'lstm' from its weights weight_ih"
    ):
        multiseg.convert(tmp_path / "w", "caffemodel", tmp_path / "o")


def test_a_backend_that_writes_no_weights_is_none_to_convert_to(fourth: str, model: Path, tmp_path: Path) -> None:
    from multiseg.conversion.conversion import formats

    assert list(formats()) == ["safetensors", "caffemodel", "tf", "pt"]
    with pytest.raises(ModelError, match=r"backend 'numpy' reads weights, but cannot write them"):
        write_weights(registry.get("numpy"), tmp_path / "o", {}, None, None)


def test_the_command(model: Path, net: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.safetensors"
    done = CliRunner().invoke(
        main, ["convert", str(model), "--to", "safetensors", "-o", str(out), "--map", "conv1=first", "--json"]
    )
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["path"] == str(out) and said["matched"]["first.weight"] == "conv1.weight" and said["how"] == "map"
    assert said["channel_order"] == "BGR" and said["reversed"] == said["left_out"] == [] and said["network"] is None
    done = CliRunner().invoke(main, ["convert", str(model), "--to", "safetensors", "-o", str(out)])
    assert done.stdout == f"{out}: 10 arrays, matched by name\n"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--map", "conv1"], "--map 'conv1' is not of the form OLD=NEW"),
        (["--snapshot", "first"], "--snapshot 'first': choose last, best, or the number of an epoch"),
        (["--snapshot", "²"], "--snapshot '²': choose last, best, or the number of an epoch"),
        (["--with-network", "o.prototxt"], "specify its file with --source-network FILE"),
    ],
)
def test_the_command_tells_in_its_own_words(arguments: list[str], why: str, model: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        main, ["convert", str(model), "--to", "caffemodel", "-o", str(tmp_path / "o"), *arguments]
    )
    assert done.exit_code == 2 and why in done.stderr, done.output


def test_a_link_is_written_through_and_what_is_no_file_stays(model: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there/w")
    for _ in range(2):  # first it leads nowhere
        multiseg.convert(model, "safetensors", tmp_path / "link")
        assert (tmp_path / "link").is_symlink() and [each.name for each in (tmp_path / "there").iterdir()] == ["w"]
        weights_file.read(tmp_path / "there/w")
    (tmp_path / "own").symlink_to(model)
    with pytest.raises(SettingsError, match="own: would overwrite the input"):
        multiseg.convert(model, "safetensors", tmp_path / "own")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SettingsError, match="pipe: cannot be written: is not a regular file"):
        multiseg.convert(model, "safetensors", tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()


def test_a_file_of_a_checkpoint_that_is_no_file_stays(
    model: Path, net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def several(path: str, **_: Any) -> dict[str, list[str]]:
        for end in (".data", ".index"):
            Path(path + end).write_bytes(b"new")
        return {"taken": [], "started": []}

    monkeypatch.setattr("multiseg_caffe.weights_files.write", several)
    os.mkfifo(tmp_path / "o.index")
    with pytest.raises(SettingsError, match=r"o\.index: cannot be written: is not a regular file"):
        multiseg.convert(model, "caffemodel", tmp_path / "o", net)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["net.caffemodel", "net.prototxt", "o.index"]


def test_what_cannot_be_written_is_named_as_it_was_given(model: Path, tmp_path: Path, net: Path) -> None:
    for out in (tmp_path / ("a" * 252), Path("a" * 252)):  # the hidden file that it is written to first is too long
        for arguments in (["convert", str(model), "--to", "safetensors"], ["export", str(net), "--to", "caffe"]):
            name = out.with_name(out.name[:-9] + ".prototxt") if arguments[0] == "export" else out
            found = CliRunner().invoke(main, [*arguments, "-o", str(name)])
            assert (found.exit_code, found.output) == (2, f"multiseg: {name}: File name too long\n")
