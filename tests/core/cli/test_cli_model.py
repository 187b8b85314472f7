"""``multiseg describe`` and ``multiseg visualize``, over prototxts, which need no framework."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import multiseg
from multiseg import backend as registry
from multiseg.backend import package_folder
from multiseg.cli import main

MODELS = package_folder("multiseg_models")
FCN = MODELS / "fcn.prototxt"
SHAPE = ("--input-shape", "1,32,32")


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """The FCN with another stride."""
    path = tmp_path / "other.prototxt"
    path.write_text(
        FCN.read_text().replace(
            "kernel_size: 16\n    stride: 16\n    weight", "kernel_size: 16\n    stride: 8\n    weight"
        )
    )
    return path


def test_describe_lists_the_layers() -> None:
    result = run("describe", FCN, *SHAPE)
    assert result.exit_code == 0
    assert "8,652,097 weights" in result.output
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in result.output.splitlines() if line.startswith("│")
    ]
    assert [row[:3] for row in rows] == [
        ["conv1", "Conv", "32x32x32"],
        ["relu1", "Relu", "32x32x32"],
        ["conv2", "Conv", "1024x2x2"],
        ["relu2", "Relu", "1024x2x2"],
        ["deconv", "ConvTranspose", "1x32x32"],
    ]
    assert rows[2][3:] == [
        "1024 filters 16x16, stride 16",
        "8,389,632",
        "33,554,432",
    ]  # 1024 * (32*16*16 + 1), 4 * 1024 * 32*16*16


def test_describe_as_json() -> None:
    found = json.loads(run("describe", FCN, *SHAPE, "--json").output)
    assert found["parameter_count"] == 8652097
    assert [layer["name"] for layer in found["layers"]] == ["conv1", "relu1", "conv2", "relu2", "deconv"]
    assert found["layers"][2]["weights"] == {"weight": [1024, 32, 16, 16], "bias": [1024]}


def test_two_files_of_one_network(tmp_path: Path) -> None:
    copy = tmp_path / "copy.prototxt"
    copy.write_text(FCN.read_text().replace('"conv1"', '"first"'))
    result = run("describe", FCN, copy, *SHAPE)
    assert (result.exit_code, result.output) == (0, "fcn.prototxt and copy.prototxt hold the same network\n")
    assert json.loads(run("describe", FCN, copy, *SHAPE, "--json").output)["equal"] is True


def test_two_files_that_differ_exit_1(other: Path) -> None:
    result = run("describe", FCN, other, *SHAPE)
    assert result.exit_code == 1
    assert result.output.splitlines() == ["conv2: stride 16 in fcn.prototxt, 8 in other.prototxt"]
    found = json.loads(run("describe", FCN, other, *SHAPE, "--json").output)
    assert found["equal"] is False
    assert found["differences"] == result.output.splitlines()
    page = other.with_suffix(".html")
    drawn = run("describe", FCN, other, *SHAPE, "-o", page)
    assert (drawn.exit_code, drawn.output) == (1, f"{result.output}{page}\n")
    assert "stride 16 → 8" in page.read_text()


def test_the_shape_may_come_from_a_dataset(dataset: multiseg.Dataset) -> None:
    found = json.loads(run("describe", FCN, "--dataset", dataset.path, "--json").output)
    assert found["input_shape"] == [1, 32, 32]


@pytest.mark.parametrize("ending", ["svg", "png", "html"])
def test_visualize(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"topology.{ending}"
    result = run("visualize", FCN, "-o", path, *SHAPE)
    assert (result.exit_code, result.output.strip()) == (0, str(path))
    assert path.stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("describe", FCN), "--input-shape C,H,W or --dataset DIR"),
        (("describe", FCN, "--input-shape", "32x32"), "'32x32' is not of the form C,H,W"),
        (("describe", FCN, "--input-shape", "1,0,32"), "must be three integers of at least 1"),
        (("describe", "missing.prototxt"), "missing.prototxt: cannot be read: No such file"),
        (("describe", FCN, "--dataset", "missing"), "missing: no such dataset folder"),
        (("describe", __file__), "is not a network file of a known kind"),
        (("visualize", FCN, *SHAPE, "-o", "OUT/t.pdf"), "is drawn as .svg, .png or .html"),
        (("visualize", FCN, *SHAPE, "-o", "OUT/missing/t.svg"), "t.svg: cannot be written: there is no folder"),
        (("describe", FCN, FCN, *SHAPE, "-o", "OUT/t.svg"), "t.svg: the drawing of two networks is a page"),
        (("describe", FCN, FCN, *SHAPE, "-o", "OUT/missing/t.html"), "t.html: cannot be written: there is no folder"),
        (("visualize", FCN, "-o", "OUT/t.svg"), "--input-shape C,H,W or --dataset DIR"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(tmp_path: Path, arguments: tuple[Any, ...], said: str) -> None:
    result = run(*(str(each).replace("OUT", str(tmp_path)) for each in arguments))
    assert result.exit_code == 2
    assert said in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_job_takes_another_backends_model_where_its_own_backend_writes_files(
    dataset: multiseg.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = multiseg.Job(dataset=dataset, backend="torch", model=FCN).resolve()
    assert (settings.model, settings.exported) == (FCN.resolve(), "fcn_torch.py")
    assert settings.to_json()["exported"] == "fcn_torch.py"
    assert multiseg.Job(dataset=dataset, backend="caffe", model=FCN).resolve().exported is None
    without = replace(registry.get("torch"), exporter=None)
    monkeypatch.setattr(registry, "get", lambda name, get=registry.get: without if name == "torch" else get(name))
    with pytest.raises(multiseg.MultisegError, match="is a Caffe prototxt, which backend caffe loads") as error:
        multiseg.Job(dataset=dataset, backend="torch", model=FCN, epochs=0).resolve()
    assert "backend torch loads: PyTorch module (.py)" in str(error.value)
    assert "epochs=0" in str(error.value)  # all that is wrong is told at once


def test_the_docs_list_every_kind_of_file() -> None:
    listed = (Path(__file__).parents[3] / "docs" / "model-files.md").read_text().partition("## What is in a file")[0]
    for backend in map(registry.get, registry.names()):
        for kind in backend.kinds:
            assert all(f"`{extension}`" in listed for extension in kind.extensions), kind


def test_control_characters_in_names_are_shown_and_not_sent_to_the_terminal(tmp_path: Path) -> None:
    text = """input: "data" input_shape { dim: 1 dim: 1 dim: 4 dim: 4 }
        LAYER { name: "a\\033]0;owned\\007" type: "%s" bottom: "data" top: "out\\033[2J" }"""
    for kind in ("ReLU", "Nonsense\\033[31m"):
        (tmp_path / "net.prototxt").write_text(text.replace("LAYER", "layer") % kind)
        result = run("describe", tmp_path / "net.prototxt")
        assert "\\x1b]0;owned\\x07" in result.output.replace("\n", "") and "\x1b" not in result.output
        assert (result.exit_code == 0) == (kind == "ReLU")
