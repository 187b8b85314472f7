"""Networks written as another framework's source: names, refusals, and what is right for images of other sizes."""

from __future__ import annotations

import ast
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import multiseg
from helpers.networks import fcn, layer, random_network, seeds, topology
from multiseg import backend as registry
from multiseg.cli import main
from multiseg.dataset.labels import read_as_classes
from multiseg.errors import BackendUnavailable, ModelError, SettingsError
from multiseg.exporting import source as writing
from multiseg.topology import Topology

BACKENDS = ("caffe", "tensorflow", "torch")
FIXED = "right for images of"


def source(target: str, network: Topology, classes: bool = False) -> str:
    return writing.source(registry.get(target), network, classes)


def one(kind: str, shape: tuple[int, ...] = (4, 8, 8), **parameters: Any) -> Topology:
    return topology([layer("it", kind, "data", **parameters)], shape=shape)


@pytest.mark.parametrize("target", BACKENDS)
def test_a_file_is_written_whole_and_its_path_returned(target: str, tmp_path: Path) -> None:
    name = tmp_path / f"fcn{registry.get(target).formats[0]}"
    assert multiseg.export(topology(fcn(), shape=(1, 32, 32)), target, name) == name
    assert [each.name for each in tmp_path.iterdir()] == [name.name]
    text = name.read_text()
    assert "for images of 1x32x32" in text
    assert FIXED not in text
    assert all(each in text for each in ("conv1", "conv2", "deconv"))


@pytest.mark.parametrize("target", BACKENDS)
def test_what_cannot_be_said_is_refused_by_name_all_at_once_and_nothing_written(target: str, tmp_path: Path) -> None:
    refused = {"caffe": "Transpose", "tensorflow": "Pad", "torch": "Resize"}[target]
    layers = [
        layer("turned", "Transpose", "data", perm=[0, 1, 3, 2]),
        layer("edges", "Pad", "turned", pads=[1, 1, 1, 1], mode="edge"),
        layer("grown", "Resize", "edges", mode="linear", scales=[2.0, 2.0], coordinates="asymmetric"),
        {**layer("strange", "Wavelet", "grown"), "shapes": [[3, 52, 52]]},
    ]
    with pytest.raises(ModelError) as raised:
        multiseg.export(topology(layers), target, tmp_path / f"net{registry.get(target).formats[0]}")
    message = str(raised.value)
    assert message.startswith(f"a.prototxt: {registry.get(target).title} cannot express it exactly; layer '")
    assert "layer 'strange' (Wavelet): is beyond the layers that can be written in another framework" in message
    assert f"({refused}): " in message
    assert "\n" not in message
    assert not any(tmp_path.iterdir())


def test_several_outputs_have_their_names_in_the_file_and_no_loss() -> None:
    two = [layer("a", "Relu", "data"), layer("b", "Abs", "a")]
    description = {
        "input": "data", "input_shape": (3, 8, 8), "layers": two, "outputs": ["a", "b"], "output_titles": ["main", "aux"],
        "loss": "of both",
    }  # fmt: skip
    described = Topology.of("net.lua", "test", description)
    for backend, returned in (
        ("torch", "return a, b\n"),
        ("tensorflow", "return a, b\n"),
        ("caffe", 'top: "a_output"'),
    ):
        text = source(backend, described)
        assert returned in text
        assert "Outputs: main 3x8x8, aux 3x8x8." in text or "Outputs: a_output 3x8x8, b 3x8x8." in text
        assert "Note: the loss of net.lua (of both) is not in this file, which has 2 outputs" in text
        assert "SoftmaxWithLoss" not in text and '"loss":' not in text and "def loss" not in text


def test_an_unknown_backend_lists_the_known_and_a_name_must_end_as_the_files_do(tmp_path: Path) -> None:
    network = topology(fcn(), shape=(1, 32, 32))
    with pytest.raises(BackendUnavailable, match=r"'mxnet'.*caffe, tensorflow, torch"):
        multiseg.export(network, "mxnet", tmp_path / "fcn.py")
    with pytest.raises(ModelError, match=r"fcn.prototxt: the name of a network file for PyTorch must end in \.py"):
        multiseg.export(network, "torch", tmp_path / "fcn.prototxt")
    assert not any(tmp_path.iterdir())


NAMES = ["conv/3x3", "conv.3x3", "conv_3x3", "1", "class", "forward", "x", "data", "loss", 'a "b" \\', "größe"]


def named() -> Topology:
    """A chain of convolutions with difficult names."""
    before = "data"
    layers = []
    for name in NAMES:
        layers.append(layer(name, "Conv", before, num_output=3, kernel_shape=[1, 1]))
        before = name
    # values that are still needed at the end keep names of their own
    layers.append(layer("sum", "Sum", *NAMES))
    return Topology.of(
        "a net.lua", "test", {"input": "in", "input_shape": (3, 8, 8), "layers": renamed(layers), "outputs": ["sum"]}
    )


def renamed(layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    layers[0]["inputs"] = ["in"]
    return layers


@pytest.mark.parametrize("target", ["tensorflow", "torch"])
def test_names_that_a_language_has_not_are_spelt_otherwise_and_stay_distinct(target: str) -> None:
    text = source(target, named())
    tree = ast.parse(text)
    if target == "torch":
        made = re.findall(r"self\.(\w+) = nn", text)
        expected = ["conv_3x3", "conv_3x3_2", "conv_3x3_3", "layer_1", "class_", "forward_", "x_", "data", "loss"]
        assert made[:9] == expected
    else:
        calls = [
            node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "convolution"
        ]
        made = [ast.literal_eval(call.args[1]) for call in calls]
        assert made[:6] == ["conv.3x3", "conv.3x3_2", "conv_3x3", "1", "class", "forward"]
    assert len(set(made)) == len(NAMES)


def test_caffe_has_any_name_but_those_of_its_data_and_loss() -> None:
    text = source("caffe", named())
    made = re.findall(r'name: "(.*)"\n  type: "Convolution"', text)
    assert made == [*NAMES[:7], "data_2", "loss_2", 'a \\"b\\" \\\\', "größe"]


def test_the_same_network_gives_the_same_text() -> None:
    for target in BACKENDS:
        assert source(target, named()) == source(target, named())


@pytest.mark.parametrize(
    ("target", "network", "fixed"),
    [
        ("torch", one("Conv", num_output=2, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"), True),
        ("torch", one("Conv", num_output=2, kernel_shape=[4, 4], auto_pad="SAME_UPPER"), False),
        ("tensorflow", one("Conv", num_output=2, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"), False),
        ("caffe", one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"), True),
        ("caffe", one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=True), False),
        ("tensorflow", one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=True), False),
        ("tensorflow", one("MaxPool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=True, pads=[1] * 4), True),
        ("torch", one("Resize", mode="linear", scales=[2.0, 2.0]), False),
        ("torch", one("Resize", mode="linear", sizes=[16, 16]), True),
        ("caffe", one("Slice", axes=[1], starts=[1], ends=[3]), False),
        ("caffe", one("Slice", axes=[2], starts=[1], ends=[-1]), True),
    ],
)
def test_what_holds_for_images_of_one_size_only_says_so(target: str, network: Topology, fixed: bool) -> None:
    assert (f"{FIXED} 4x8x8 only" in source(target, network)) == fixed


windows = st.fixed_dictionaries(
    {
        "kernel_shape": st.tuples(st.integers(1, 4), st.integers(1, 4)).map(list),
        "strides": st.tuples(st.integers(1, 3), st.integers(1, 3)).map(list),
    }
)
padding = st.one_of(
    st.just({"auto_pad": "SAME_UPPER"}),
    st.fixed_dictionaries({"pads": st.lists(st.integers(0, 2), min_size=4, max_size=4), "ceil_mode": st.booleans()}),
    st.fixed_dictionaries({"pads": st.integers(0, 2).map(lambda n: [n] * 4), "ceil_mode": st.booleans()}),
)
sizes = st.tuples(st.just(4), st.integers(5, 12), st.integers(5, 12))


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(BACKENDS), st.sampled_from(["MaxPool", "AveragePool", "Conv", "ConvTranspose"]), windows, padding,
    st.booleans(), sizes, sizes,
)  # fmt: skip
def test_what_does_not_say_so_is_the_same_text_for_other_sizes(
    target: str, kind: str, window: Any, pads: Any, counted: bool, size: Any, another: Any
) -> None:
    more = {"num_output": 4} if kind.startswith("Conv") else {"count_include_pad": counted}
    texts = []
    for each in (size, another):
        try:
            texts.append(source(target, one(kind, each, **window, **pads, **more)))
        except ModelError:
            return  # it cannot be said at this size, or not be at all
    if not any(FIXED in text for text in texts):
        first, second = (
            re.sub("input_param .*", "", text).replace("x".join(map(str, each)), "")  # a prototxt states its image size
            for text, each in zip(texts, (size, another), strict=True)
        )
        assert first == second


@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from(["tensorflow", "torch"]))
def test_random_networks_are_written_as_python_that_compiles(seed: int, target: str) -> None:
    network = topology(random_network(seed))
    compile(source(target, network), "net.py", "exec")
    compile(source(target, network, classes=True), "net.py", "exec")


def test_labels_are_class_numbers_by_their_shape_or_the_networks_own_loss() -> None:
    image, vector = one("Relu", (5, 8, 8)), topology([layer("flat", "Flatten", "data")])
    assert read_as_classes(image, (1, 8, 8))
    assert not read_as_classes(image, (5, 8, 8))
    assert read_as_classes(vector, (1, 1, 1))
    assert not read_as_classes(one("GlobalMaxPool", (1, 8, 8)), (1, 1, 1))
    assert read_as_classes(vector)
    assert not read_as_classes(image)
    assert read_as_classes(replace(topology([layer("a", "Relu", "data")]), loss_labels="classes"))


def test_the_docs_show_what_is_written() -> None:
    described = multiseg.describe(registry.get("caffe").default_model_path, (1, 32, 32))
    shown = (Path(__file__).parents[3] / "docs" / "migrate.md").read_text()
    assert f"```python\n{source('torch', described)}```" in shown


def test_command_line(tmp_path: Path) -> None:
    fcn_file = registry.get("caffe").default_model_path
    run = CliRunner().invoke
    out = tmp_path / "fcn.py"
    result = run(main, ["export", str(fcn_file), "--to", "torch", "--input-shape", "1,32,32", "-o", str(out)])
    assert (result.exit_code, result.output) == (0, f"{out}\n")
    assert "nn.ConvTranspose2d(1024, 1, 16, stride=16)" in out.read_text()
    for arguments, words in (
        (
            ["--to", "mxnet", "--input-shape", "1,32,32", "-o", str(tmp_path / "b.py")],
            "'mxnet'; known are: caffe, tensorflow, torch, onnx",
        ),
        (["--to", "torch", "-o", str(tmp_path / "b.py")], "--input-shape"),
        (["--to", "torch", "--input-shape", "1,32,32", "-o", str(tmp_path / "no" / "b.py")], "no"),
    ):
        result = run(main, ["export", str(fcn_file), *arguments])
        assert result.exit_code == 2
        assert words in result.output
        assert "Traceback" not in result.output
    assert [each.name for each in tmp_path.iterdir()] == ["fcn.py"]


def test_layers_that_share_weights_are_refused_by_name(tmp_path: Path) -> None:
    conv = {"num_output": 3, "kernel_shape": [3, 3], "pads": [1] * 4}
    twice = [layer("e", "Conv", "data", **conv), layer("e", "Conv", "e", outputs=["e:2"], **conv)]
    caffe = tmp_path / "net.prototxt"
    lines = ['layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }']
    for name, bottom, own in (("a", "data", "w"), ("b", "a", "w"), ("c", "b", "v")):
        lines.append(
            f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" param {{ name: "{own}" }} '
            "convolution_param { num_output: 3 kernel_size: 3 } }"
        )
    caffe.write_text("\n".join(lines))
    again = {"input": "data", "input_shape": (3, 8, 8), "layers": twice, "outputs": ["e:2"]}
    for network, names in ((Topology.of("net.py", "test", again), "e"), (multiseg.describe(caffe), "a, b")):
        assert ", ".join(network.shared_weights) == names
        assert Topology.of("again", "test", network.to_json()).shared_weights == network.shared_weights
        for target in (*BACKENDS, "onnx"):
            out = tmp_path / f"o{'.onnx' if target == 'onnx' else registry.get(target).formats[0]}"
            weights = tmp_path / "w" if target == "onnx" else None
            save_file({"x": np.zeros(1, np.float32)}, tmp_path / "w")
            with pytest.raises(ModelError, match=f"cannot express it exactly; layers that share weights.*: {names}$"):
                multiseg.export(network, target, out, weights=weights)
            assert not out.exists()


def test_a_file_that_is_read_is_not_replaced(tmp_path: Path) -> None:
    file = tmp_path / "fcn.prototxt"
    multiseg.export(topology(fcn(), shape=(1, 32, 32)), "caffe", file)
    (tmp_path / "link.prototxt").symlink_to(file)
    before = file.read_bytes()
    for out in (file, tmp_path / "link.prototxt"):
        found = CliRunner().invoke(main, ["export", str(file), "--to", "caffe", "-o", str(out)])
        assert found.exit_code == 2 and f"{out}: would overwrite the input {file}" in found.output
    (tmp_path / "w.onnx").write_bytes(b"weights")
    with pytest.raises(SettingsError, match=r"w\.onnx: would overwrite the input"):
        multiseg.export(file, "onnx", tmp_path / "w.onnx", weights=tmp_path / "w.onnx")
    assert file.read_bytes() == before and (tmp_path / "w.onnx").read_bytes() == b"weights"


def test_a_link_is_written_through_and_what_is_no_file_stays(tmp_path: Path) -> None:
    network, pipe = topology(fcn(), shape=(1, 32, 32)), tmp_path / "pipe.prototxt"
    (tmp_path / "link.prototxt").symlink_to(tmp_path / "real.prototxt")
    multiseg.export(network, "caffe", tmp_path / "link.prototxt")
    assert (tmp_path / "link.prototxt").is_symlink() and (tmp_path / "real.prototxt").is_file()
    os.mkfifo(pipe)
    with pytest.raises(SettingsError, match=r"pipe\.prototxt: cannot be written: is not a regular file"):
        multiseg.export(network, "caffe", pipe)
    assert pipe.is_fifo()
    for out, to in (("no/x.prototxt", "caffe"), ("no/x.onnx", "onnx")):
        with pytest.raises(SettingsError, match=rf"{out}: cannot be written: there is no folder .*no$"):
            multiseg.export(network, to, tmp_path / out)
