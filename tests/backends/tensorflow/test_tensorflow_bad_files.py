"""Wrong TensorFlow files: each is one clear error that names the file and the fix, and nothing crashes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers import tensorflow_graphs
from helpers.tensorflow_files import HEAD, LINEAR, model
from helpers.tensorflow_graphs import Written, describe, linear, load
from multiseg.errors import ModelError
from multiseg.model_files import reading

pytestmark = pytest.mark.needs("tensorflow")


def frozen(folder: Path, build: Callable[[Any], Any] = linear) -> Any:
    """The message in a frozen graph's file, to be spoilt."""
    Written(folder, build)
    graph = tensorflow_graphs.tf().GraphDef()
    graph.ParseFromString((folder / "frozen.pb").read_bytes())
    return graph


def cut_short(folder: Path) -> Path:
    path = folder / "cut.pb"
    frozen(folder)
    path.write_bytes((folder / "frozen.pb").read_bytes()[:-40])
    return path


def text_as_pb(folder: Path) -> Path:
    path = folder / "notes.pb"
    path.write_text("this is the network that we trained in May\n")
    return path


def wrong_text(folder: Path) -> Path:
    path = folder / "wrong.pbtxt"
    path.write_text('node {\n  name: "a"\n  op: "Placeholder"\n  colour: "red"\n}\n')
    return path


def unknown_operation(folder: Path) -> Path:
    graph = frozen(folder)
    next(node for node in graph.node if node.op == "BiasAdd").op = "FancyBiasAdd"
    path = folder / "unknown.pb"
    path.write_bytes(graph.SerializeToString())
    return path


def two_inputs(folder: Path) -> Path:
    def build(x: Any) -> Any:
        v1 = tensorflow_graphs.tf()
        return linear(x) + v1.placeholder_with_default(v1.zeros([1, 8, 8, 1]), [None, 8, 8, 1], "depth")

    frozen(folder, build)
    return folder / "frozen.pb"


def two_outputs(folder: Path) -> Path:
    graph = frozen(folder)
    other = graph.node.add(name="edges", op="Abs", input=["image"])
    other.attr["T"].type = 1  # float
    path = folder / "two.pb"
    path.write_bytes(graph.SerializeToString())
    return path


def no_input(folder: Path) -> Path:
    graph = tensorflow_graphs.tf().GraphDef()
    graph.node.add(name="nothing", op="NoOp")
    path = folder / "none.pb"
    path.write_bytes(graph.SerializeToString())
    return path


def a_placeholder_without_value(folder: Path) -> Path:
    graph = frozen(folder)
    path = folder / "scaled.pb"
    factor = graph.node.add(name="brightness", op="Placeholder")
    factor.attr["dtype"].type = 1
    factor.attr["shape"].shape.SetInParent()
    product = graph.node.add(name="scaled", op="Mul", input=["output", "brightness"])
    product.attr["T"].type = 1
    path.write_bytes(graph.SerializeToString())
    return path


def a_graph_that_trains(folder: Path) -> Path:
    v1 = tensorflow_graphs.tf()
    with v1.Graph().as_default():
        output = v1.nn.relu(linear(v1.placeholder(v1.float32, [None, 8, 8, 1], "image")), name="result")
        loss = v1.reduce_mean(v1.square(output - v1.placeholder(v1.float32, [None, 8, 8, 1], "labels")))
        v1.train.GradientDescentOptimizer(0.1).minimize(loss)
        v1.train.export_meta_graph(str(folder / "train.meta"))
    return folder / "train.meta"


def a_place_beside_no_operation(folder: Path) -> Path:
    graph = frozen(folder)
    next(node for node in graph.node if node.op == "BiasAdd").attr["_class"].list.s.append(
        b"c:@weightz"
    )  # TensorFlow skips it: not "loc:@"
    path = folder / "colocated.pb"
    path.write_bytes(graph.SerializeToString())
    return path


def no_such_name(folder: Path) -> Path:
    frozen(folder)
    (folder / "frozen.pb.json").write_text('{"output": "probability"}')
    return folder / "frozen.pb"


def names_that_are_no_json(folder: Path) -> Path:
    frozen(folder)
    (folder / "frozen.pb.json").write_text("output = probability")
    return folder / "frozen.pb"


def names_of_other_things(folder: Path) -> Path:
    frozen(folder)
    (folder / "frozen.pb.json").write_text('{"result": "output"}')
    return folder / "frozen.pb"


def no_variables(folder: Path) -> Path:
    Written(folder, linear)
    shutil.rmtree(folder / "saved" / "variables")
    return folder / "saved"


def a_part_of_a_saved_model(folder: Path) -> Path:
    Written(folder, linear)
    return folder / "saved" / "saved_model.pb"


def a_damaged_saved_model(folder: Path) -> Path:
    (folder / "saved").mkdir()
    (folder / "saved" / "saved_model.pb").write_bytes(b"\x08\x01\x12\xff\xff\x03abc")
    return folder / "saved"


def a_saved_model_of_damaged_variables(folder: Path) -> Path:
    Written(folder, linear)
    (folder / "saved" / "variables" / "variables.index").write_bytes(b"cut short")
    return folder / "saved"


def a_checkpoint_without_data(folder: Path) -> Path:
    Written(folder, linear)
    (folder / "net.data-00000-of-00001").unlink()
    return folder / "net.meta"


def three_channels(folder: Path) -> Path:
    Written(folder, lambda x: linear(x[..., :1]), (8, 8, 3))
    return folder / "frozen.pb"


def another_size(folder: Path) -> Path:
    v1 = tensorflow_graphs.tf()
    Written(folder, lambda x: v1.nn.avg_pool(linear(x), [1, 2, 2, 1], [1, 2, 2, 1], "VALID"))
    return folder / "frozen.pb"


def digits_file(text: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / "net.py"
        path.write_text(text)
        return path

    return write


BAD = {
    "a syntax error": (digits_file("x = 1\nclass UserModel(Tower:\n"), ["net.py, line 2", "is not Python 3"]),
    "Python 2": (digits_file(HEAD + "    print 'net'\n"), ["net.py, line 9", "is not Python 3"]),
    "no UserModel": (
        digits_file("class Model(Tower):\n    pass\n"),
        ["net.py", "define one with", "inference and loss"],
    ),
    "no loss": (digits_file(model(LINEAR, rest="")), ["net.py", "no loss", "@model_property"]),
    "a list": (digits_file(model("return [self.x]")), ["net.py", "inference returns", "one tensor of images"]),
    "another size": (
        digits_file(model("return slim.conv2d(self.x, 3, [3, 3], padding='VALID')")),
        ["net.py", "(6, 6, 3)", "(8, 8, 1)", "change strides"],
    ),
    "contrib": (
        digits_file(model("return tf.contrib.crf.f()")),
        ["line 11", "tf.contrib.crf was removed", "available in tf.contrib: slim"],
    ),
    "a contrib import": (
        digits_file("import tensorflow.contrib.keras\n"),
        ["net.py, line 1", "tf.contrib.keras was removed", "available in tf.contrib: slim"],
    ),
    "before TensorFlow 1": (digits_file(model("return tf.mul(self.x, 2)")), ["line 11", "use tf.multiply"]),
    "a cut file": (cut_short, ["cut.pb", "is damaged or truncated", "copy it again"]),
    "text": (text_as_pb, ["notes.pb", "is not a TensorFlow network", "GraphDef"]),
    "wrong text": (wrong_text, ["wrong.pbtxt", "4:3", "colour"]),
    "an unknown operation": (unknown_operation, ["unknown.pb", "'FancyBiasAdd'", "export the graph without it"]),
    "two inputs": (two_inputs, ["frozen.pb", "2 inputs", "data, depth", "training and testing want one"]),
    "two outputs": (two_outputs, ["two.pb", "2 outputs", "output:0", "edges:0", "two.pb.json"]),
    "a graph that trains": (
        a_graph_that_trains,
        ["train.meta", "no outputs", "result:0 (?, 8, 8, 1)", "train.meta.json"],
    ),
    "a place beside no operation": (a_place_beside_no_operation, ["colocated.pb", "is damaged", "'c:@weightz'"]),
    "no input": (no_input, ["none.pb", "no outputs", "none"]),
    "a placeholder": (a_placeholder_without_value, ["scaled.pb", "brightness:0", "scaled.pb.json", '"values"']),
    "no such name": (no_such_name, ["frozen.pb", "no tensor 'probability'", "output"]),
    "no JSON": (names_that_are_no_json, ["frozen.pb.json", "is not valid JSON"]),
    "other names": (names_of_other_things, ["frozen.pb.json", "result is not valid", '"input"']),
    "no variables": (no_variables, ["saved", "no variables/variables.index", "copy the whole folder"]),
    "a part": (a_part_of_a_saved_model, ["saved_model.pb", "specify its folder", "saved"]),
    "a damaged SavedModel": (a_damaged_saved_model, ["saved_model.pb", "is damaged or truncated"]),
    "damaged variables": (
        a_saved_model_of_damaged_variables,
        ["saved", "file is too short to be an sstable", "copy the whole"],
    ),
    "no data": (a_checkpoint_without_data, ["net", "net.data-00000-of-00001 is missing", "copy all files"]),
    "three channels": (three_channels, ["frozen.pb", "takes images of 3 channels, but the images have 1", "convert"]),
    "a graph of another size": (another_size, ["frozen.pb", "(4, 4, 1)", "(8, 8, 1)"]),
    "nothing": (lambda folder: folder / "nothing.pb", ["nothing.pb", "No such file"]),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_file_is_one_clear_error(tmp_path: Path, bad: str) -> None:
    make, words = BAD[bad]
    path = make(tmp_path)
    with pytest.raises(ModelError) as caught:
        load(path)
    said = str(caught.value)
    assert str(tmp_path) in said and "\n" not in said
    assert all(word in said for word in words), said


WEIGHTS = {
    "no data": (a_checkpoint_without_data, "net", ["net.data-00000-of-00001 is missing"]),
    "no checkpoint": (text_as_pb, "notes.pb", ["is not a TensorFlow checkpoint", ".index"]),
}


@pytest.mark.parametrize("bad", WEIGHTS)
def test_bad_weights_are_one_clear_error(tmp_path: Path, bad: str) -> None:
    from multiseg_tensorflow.reader import read_weights

    make, name, words = WEIGHTS[bad]
    make(tmp_path)
    with pytest.raises(ModelError) as caught:
        read_weights(str(tmp_path / name))
    said = str(caught.value)
    assert str(tmp_path / name) in said and "\n" not in said
    assert all(word in said for word in words), said


def test_a_dense_layer_whose_inputs_have_no_known_order_is_refused(tmp_path: Path) -> None:
    from multiseg_tensorflow.reader import read_weights

    def dense(x: Any) -> Any:
        v1 = tensorflow_graphs.tf()
        net = v1.nn.conv2d(x, v1.get_variable("conv/weights", [3, 3, 1, 2]), [1, 1, 1, 1], "SAME")
        return v1.matmul(v1.reshape(net, [-1, 128]), v1.get_variable("fc/weights", [128, 5]))

    Written(tmp_path, dense)
    weights = read_weights(str(tmp_path / "net"))  # the graph beside it says the order
    held = tensorflow_graphs.tf().train.load_checkpoint(str(tmp_path / "net")).get_tensor("fc/weights")
    # H, W, C of TensorFlow to C, H, W
    assert (weights["fc.weight"].reshape(5, 2, 8, 8) == held.T.reshape(5, 8, 8, 2).transpose(0, 3, 1, 2)).all()
    (tmp_path / "net.meta").unlink()
    with pytest.raises(ModelError, match=r"net: fc\.weight takes 128 inputs.*flattened image.*put net\.meta"):
        read_weights(str(tmp_path / "net"))


def test_a_file_that_does_not_say_its_images_size_asks_for_it(tmp_path: Path) -> None:
    path = digits_file(model(LINEAR))(tmp_path)
    with pytest.raises(ModelError, match=r"net\.py: does not specify its image size; specify input_shape"):
        describe(path)


@pytest.mark.parametrize("bad", ["text", "a cut file", "an unknown operation"])
def test_the_worker_lives_on_and_says_the_same(tmp_path: Path, bad: str) -> None:
    make, words = BAD[bad]
    path = make(tmp_path)
    with pytest.raises(ModelError) as caught:
        reading.describe(path, (1, 8, 8))
    assert path.name in str(caught.value)
    if bad != "text":  # which is of no kind
        assert all(word in str(caught.value) for word in words)


def test_a_graph_that_trains_predicts_with_the_output_that_is_named(tmp_path: Path) -> None:
    path = a_graph_that_trains(tmp_path)
    path.with_name("train.meta.json").write_text('{"output": "result"}')
    assert set(load(path).get_weights()) == {"only.weight", "only.bias"}
    assert [layer["type"] for layer in describe(path)["layers"]] == ["Conv", "Relu"]
