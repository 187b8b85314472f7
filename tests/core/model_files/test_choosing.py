"""Which network is meant: FILE:NAME(ARGUMENTS), package.module:NAME, the root of imports, and copies of such choices."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from multiseg import describe
from multiseg.errors import ModelError, MultisegError, MultisegWarning, SettingsError
from multiseg.model_files import choosing, copies, kinds, roots
from multiseg.worker import choice

TWO_HEADS = """
input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "side" type: "InnerProduct" bottom: "conv" top: "side" inner_product_param { } }
layer { name: "deep" type: "Convolution" bottom: "conv" top: "deep" convolution_param { num_output: 6 kernel_size: 3 } }
layer { name: "score" type: "InnerProduct" bottom: "deep" top: "score" }
layer { name: "side_loss" type: "SoftmaxWithLoss" bottom: "side" bottom: "label" loss_weight: 0.3 }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" }
"""
TORCH = "import torch\n"


def repository(folder: Path) -> Path:
    """Write a repository with a package, whose network imports from the folder above, and return the network's file."""
    for name, text in {
        "nets/__init__.py": "",
        "nets/unet/__init__.py": "",
        "nets/unet/model.py": TORCH + "from .parts import block\nfrom ..common import width\n",
        "nets/unet/parts.py": TORCH + "def block(): return open('nets/unet/table.txt').read()\n",
        "nets/unet/table.txt": "3",
        "nets/common.py": "width = 4\n",
        "unrelated.py": "",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder / "nets/unet/model.py"


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("net.py:Net(1, size=(2, 3))", ("Net", "(1, size=(2, 3))")),
        ("net.py:Net", ("Net", None)),
        ("net.py:Nets.small('a/b')", ("Nets.small", "('a/b')")),
        ("net.py", (None, None)),
    ],
)
def test_a_word_names_a_file_and_a_network_in_it(
    tmp_path: Path, word: str, parts: tuple[str | None, str | None]
) -> None:
    (tmp_path / "net.py").write_text(TORCH)
    file, root, *chosen = choosing.split(tmp_path / word)
    assert (file, root, tuple(chosen)) == (tmp_path / "net.py", None, parts)


def test_a_module_is_looked_up_in_the_folder_and_where_python_imports_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = repository(tmp_path)
    assert choosing.split(tmp_path / "nets.unet.model:create()") == (file, tmp_path, "create", "()")
    monkeypatch.syspath_prepend(tmp_path)
    assert choosing.split("nets.unet:create()")[:2] == (tmp_path / "nets/unet/__init__.py", tmp_path)
    assert choosing.split("nets.unknown:create()")[0] == Path("nets.unknown")


def test_the_root_of_imports_is_found(tmp_path: Path) -> None:
    assert roots.root_of(repository(tmp_path)) == tmp_path
    for name, text in {
        "models/net.py": "import torch, code\nfrom blocks.conv import c\n",
        "blocks/conv.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert roots.root_of(tmp_path / "models/net.py") == tmp_path  # a folder beside that of the file
    (tmp_path / "models/blocks.py").write_text("")
    assert roots.root_of(tmp_path / "models/net.py") == tmp_path / "models"  # which its own folder provides now


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("net.py:Net(x)", r"x is not a Python literal"),
        ("net.py:Net(1, *[2])", r"is not a Python literal|not of the form"),
        ("net.py:Net(1", r"is not of the form FILE:NAME"),
        ("net.py:Net(__import__('os').getcwd())", r"is not a Python literal"),
    ],
)
def test_arguments_that_are_no_literals_are_refused(tmp_path: Path, word: str, message: str) -> None:
    (tmp_path / "net.py").write_text(TORCH)
    with pytest.raises((ModelError, SettingsError), match=message):
        choosing.path_of(tmp_path / word)


def test_a_choice_is_copied_with_its_package_and_is_the_same_elsewhere(tmp_path: Path) -> None:
    file = repository(tmp_path / "repository")
    path = choosing.path_of(f"{file}:block(2)")
    assert path.suffix == ".json" and choice.read(path).title == "model.py:block(2)"
    assert kinds.kind_of(path, "network")[0].name == "torch"
    assert choosing.word_of(path) == f"{file}:block(2)"
    copies.copy(path, tmp_path, ["nets/unet/table.txt"])
    copy = tmp_path / path.name
    chosen = choice.read(copy)
    assert chosen.root == tmp_path and chosen.file == tmp_path / "nets/unet/model.py"
    assert chosen.call_arguments() == ([2], {})
    copied = {name for name in copies.hashes(tmp_path) if not name.startswith("repository")}
    modules = {
        f"nets/{name}" for name in ("__init__.py", "common.py", "unet/__init__.py", "unet/model.py", "unet/parts.py")
    }
    assert copied >= modules | {path.name, "nets/unet/table.txt"} and "unrelated.py" not in copied
    shutil.move(tmp_path / "repository", tmp_path.parent / f"{tmp_path.name}-moved")
    moved = tmp_path.parent / f"{tmp_path.name}-moved/nets/unet/model.py"
    again = choosing.path_of(f"{moved}:block(2)")
    assert copies.fingerprint(again) == copies.fingerprint(copy)
    assert copies.changed(again, copy) is None
    assert copies.changed(choosing.path_of(f"{moved}:block(3)"), copy) == path.name
    (moved.parent / "parts.py").write_text("changed")
    assert copies.changed(again, copy) == "nets/unet/parts.py"


def test_an_open_number_of_outputs_is_the_number_of_classes(tmp_path: Path) -> None:
    file = tmp_path / "net.prototxt"
    file.write_text(TWO_HEADS)
    with pytest.raises(ModelError, match=r"layers 'side' and 'score' open.* specify classes=N"):
        describe(file)
    topology = describe(file, classes=5)
    assert topology.shapes[topology.outputs[0]] == (5,)
    assert {name: shape for name, shape in topology.weights.items() if name.endswith("weight")} == {
        "conv.weight": (4, 3, 3, 3), "deep.weight": (6, 4, 3, 3), "score.weight": (5, 6 * 4 * 4),
    }  # fmt: skip


def test_a_stated_number_of_classes_is_not_changed(tmp_path: Path) -> None:
    file = tmp_path / "net.prototxt"
    file.write_text(TWO_HEADS.replace('top: "score" }', 'top: "score" inner_product_param { num_output: 7 } }'))
    with pytest.raises(ModelError, match="layer 'side' open"):
        describe(file)
    file.write_text(TWO_HEADS.replace("inner_product_param { }", "inner_product_param { num_output: 7 }")
                    .replace('top: "score" }', 'top: "score" inner_product_param { num_output: 7 } }'))  # fmt: skip
    assert choosing.path_of(file, classes=5) == file
    with pytest.raises(SettingsError, match=r"classes=5: .* states its own number of classes"):
        describe(file, classes=5)
    with pytest.raises(SettingsError, match=r"model_options.*Lua"):
        describe(file, model_options={"opt.depth": 3})


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        ("slim.conv2d(x, self.nclasses, 1)", True),
        ("nn.SpatialConvolution(8, params.nclasses, 1, 1)", True),
        ("params['nclasses']", True),
        ("slim.conv2d(x, self.nclasses or 21, 1)", False),
        ("nn.SpatialConvolution(8, params.nclasses or CLASSES, 1, 1)", False),
        ("Net(params['nclasses'] or CLASSES)", False),
        ("Net(3)", False),
    ],
)
def test_only_a_file_that_needs_the_number_of_classes_lacks_it(tmp_path, text, lacks):
    file = tmp_path / "net.py"
    file.write_text(text)
    assert ("specify classes=N" in MultisegError(choice.lacks_classes(file, None)).args[0]) == lacks
    assert choice.lacks_classes(file, 3) == ""


def test_messages_show_what_the_user_specified_instead_of_a_temporary_file(tmp_path):
    file = tmp_path / "net.py"
    file.write_text(TORCH)
    chosen = choosing.path_of(f"{file}:Net(3)")
    assert str(ModelError(f"{chosen}: is wrong")) == f"{file}:Net(3): is wrong"
    assert str(ModelError(f"{choosing.with_outputs(chosen, ['conv'])}: is wrong")) == f"{file}:Net(3): is wrong"
    unet = choosing.path_of("unet", classes=5)
    assert str(MultisegWarning(f"{unet}, line 3: is wrong")) == "unet, line 3: is wrong"
