"""Graphs that write files when their operations are run: nothing of them is run but what networks compute with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.tensorflow_graphs import linear, tf
from multiseg.errors import ModelError

pytestmark = pytest.mark.needs("tensorflow")

Graph = Callable[[Path, Path], Path]


def load(path: Path) -> Any:
    from multiseg_tensorflow import files

    return files.load(path)


def write_to(file: Path) -> Any:
    return tf().io.write_file(str(file), "written")


def frozen(folder: Path, written: Path) -> Path:
    """The output waits for an operation that writes."""
    v1 = tf()
    with v1.Graph().as_default() as graph:
        x = v1.placeholder(v1.float32, [None, 8, 8, 1], "image")
        with v1.control_dependencies([write_to(written)]):
            v1.identity(v1.nn.relu(x), name="output")
        (folder / "net.pb").write_bytes(graph.as_graph_def().SerializeToString())
    return folder / "net.pb"


def function(folder: Path, written: Path) -> Path:
    """The output is that of a function that writes."""
    v1 = tf()
    import tensorflow

    @tensorflow.function(input_signature=[tensorflow.TensorSpec([None, 8, 8, 1], name="image")])
    def inner(x: Any) -> Any:
        with v1.control_dependencies([write_to(written)]):
            return v1.nn.relu(x)

    @tensorflow.function(input_signature=[tensorflow.TensorSpec([None, 8, 8, 1], name="image")])
    def outer(x: Any) -> Any:
        return v1.identity(inner(x), name="output")

    definition = outer.get_concrete_function().graph.as_graph_def()
    (folder / "net.pb").write_bytes(definition.SerializeToString())
    return folder / "net.pb"


def printing(folder: Path, written: Path) -> Path:
    """The output passes an operation that prints to a file."""
    v1 = tf()
    with v1.Graph().as_default() as graph:
        x = v1.placeholder(v1.float32, [None, 8, 8, 1], "image")
        with v1.control_dependencies([v1.print("written", output_stream=f"file://{written}")]):
            v1.identity(v1.nn.relu(x), name="output")
        (folder / "net.pb").write_bytes(graph.as_graph_def().SerializeToString())
    return folder / "net.pb"


def reading(folder: Path, written: Path) -> Path:
    """A weight is what another file has."""
    v1 = tf()
    with v1.Graph().as_default() as graph:
        x = v1.placeholder(v1.float32, [None, 8, 8, 1], "image")
        offset = v1.decode_raw(v1.io.read_file("/proc/self/environ"), v1.uint8)[0]
        v1.identity(v1.nn.relu(x) + v1.cast(offset, v1.float32), name="output")
        (folder / "net.pb").write_bytes(graph.as_graph_def().SerializeToString())
    return folder / "net.pb"


def meta_graph(folder: Path, written: Path) -> Path:
    """A variable without a value in the checkpoint is initialised by an operation that writes."""
    v1 = tf()
    with v1.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(v1.float32, [None, 8, 8, 1], "image")
        with v1.control_dependencies([write_to(written)]):
            initial = v1.ones([1, 1, 1, 1])
        kernel = v1.get_variable("kernel", initializer=initial)
        saved = v1.get_variable("saved", [1], initializer=v1.zeros_initializer())
        v1.nn.bias_add(v1.nn.conv2d(x, kernel, [1, 1, 1, 1], "SAME"), saved, name="output")
        session.run(saved.initializer)
        saver = v1.train.Saver([saved])
        saver.save(session, str(folder / "net"))
    return folder / "net.meta"


REFUSED: dict[str, tuple[Graph, str]] = {
    "a frozen graph": (frozen, "WriteFile"),
    "a function in a function": (function, "WriteFile"),
    "a print": (printing, "PrintV2"),
    "a read file": (reading, "ReadFile"),
    "an initialiser": (meta_graph, "WriteFile"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_operations_beyond_the_list_are_refused_by_name_and_not_run(what: str, tmp_path: Path) -> None:
    graph, operation = REFUSED[what]
    path = graph(tmp_path, tmp_path / "written")
    with pytest.raises(ModelError) as error:
        load(path)
    assert str(path) in str(error.value) and f"({operation}) is not one of a network" in str(error.value)
    assert "--trust-graph, or the environment variable MULTISEG_TRUST_GRAPH=1" in str(error.value)
    assert not (tmp_path / "written").exists()


def test_a_user_can_trust_a_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = meta_graph(tmp_path, tmp_path / "written")
    monkeypatch.setenv("MULTISEG_TRUST_GRAPH", "1")
    assert load(path).weights["model/kernel"].tolist() == [[[[1.0]]]]
    assert (tmp_path / "written").read_text() == "written"


def saved_model(folder: Path, written: Path) -> tuple[Path, np.ndarray]:
    """A SavedModel whose initialisation writes, and its kernel."""
    v1 = tf()
    with v1.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(v1.float32, [None, 8, 8, 1], "image")
        output = v1.identity(linear(x), "output")
        session.run(v1.global_variables_initializer())
        kernel = session.run(v1.global_variables()[0])
        builder = v1.saved_model.builder.SavedModelBuilder(str(folder / "saved"))
        signature = v1.saved_model.signature_def_utils.predict_signature_def({"image": x}, {"output": output})
        builder.add_meta_graph_and_variables(
            session, ["serve"], {"serving_default": signature}, main_op=write_to(written), clear_devices=True
        )
        builder.save()
    return folder / "saved", kernel


def test_the_initialisation_of_a_saved_model_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, kernel = saved_model(tmp_path, tmp_path / "written")
    (tmp_path / "written").unlink(missing_ok=True)
    assert (load(folder).weights["model/only/weights"] == kernel).all()
    assert not (tmp_path / "written").exists()
    monkeypatch.setenv("MULTISEG_TRUST_GRAPH", "1")
    load(folder)
    assert (tmp_path / "written").exists()


def test_weights_are_read_without_the_graph_beside_their_checkpoint(tmp_path: Path) -> None:
    from multiseg_tensorflow import weights_files

    path = meta_graph(tmp_path, tmp_path / "written")
    weights = weights_files.read(path.with_suffix(".index"))
    assert [value.tolist() for value in weights.values()] == [[0.0]] and not (tmp_path / "written").exists()


def test_no_operation_that_reaches_files_or_hosts_is_allowed() -> None:
    import tensorflow
    from multiseg_tensorflow.allowed import is_allowed

    words = (
        "File", "Write", "Save", "Restore", "Print", "Dataset", "Iterator", "Reader", "Summary", "PyFunc", "Remote", "Send",
        "Recv", "Rpc", "Lmdb", "LMDB", "Debug", "Checkpoint", "Abort", "Queue", "Table", "Proto", "Library", "Load", "Nccl",
        "Collective",
    )  # fmt: skip
    harmless = {  # they return text, or work on arrays of tensors
        "AudioSummary", "AudioSummaryV2", "HistogramSummary", "ImageSummary", "MergeSummary", "ScalarSummary", "TensorSummary",
        "TensorSummaryV2", "BoostedTreesMakeStatsSummary", "TensorArrayWrite", "TensorArrayWriteV2", "TensorArrayWriteV3",
    }  # fmt: skip
    operations = [name for name in dir(tensorflow.raw_ops) if name[0].isupper()]
    assert len(operations) > 1000
    assert {name for name in operations if any(word in name for word in words) and is_allowed(name)} - harmless == set()
    needed = {
        "Conv2D",
        "Relu",
        "FusedBatchNormV3",
        "ReadVariableOp",
        "StatefulPartitionedCall",
        "RandomUniform",
        "BatchMatMulV2",
    }
    assert all(map(is_allowed, needed))
