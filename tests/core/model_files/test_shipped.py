"""Networks that are chosen by name: their files, number of classes, sizes."""

import re

import pytest

from multiseg import backend as registry
from multiseg.errors import ModelError, SettingsError
from multiseg.model_files import listing, shipped
from multiseg.model_files.reading import describe

NAMES = ("fcn", "fcn-alexnet", "unet")


def unet_counts(classes, channels, height, width):
    """Return parameters and multiply-adds of the U-Net, counted layer by layer; sizes are halved and rounded up."""
    sizes = [(height, width)]
    for _ in range(4):
        sizes.append(tuple((size + 1) // 2 for size in sizes[-1]))
    pixels = [h * w for h, w in sizes]
    parameters = adds = 0
    blocks = [(channels, 8, 0), (8, 16, 1), (16, 32, 2), (32, 64, 3), (64, 128, 4)]
    blocks += [(128, 64, 3), (64, 32, 2), (32, 16, 1), (16, 8, 0)]
    for inputs, filters, level in blocks:
        convolutions = 9 * (inputs * filters + filters * filters)
        parameters += convolutions + 2 * 2 * filters  # and scale and offset of two normalisations
        adds += convolutions * pixels[level]
    for inputs, filters, level in ((128, 64, 4), (64, 32, 3), (32, 16, 2), (16, 8, 1)):
        parameters += 4 * inputs * filters + filters
        adds += 4 * inputs * filters * pixels[level]
    return parameters + 8 * classes + classes, adds + 8 * classes * pixels[0]


@pytest.mark.parametrize(("shape", "classes"), [((3, 180, 240), 21), ((1, 30, 41), 3)])
def test_the_unet_has_the_parameters_and_multiply_adds_of_a_count_by_hand(shape, classes):
    found = listing.summary(shipped.get("unet"), shape, classes)
    assert (found["parameters"], found["multiply_adds"]) == unet_counts(classes, *shape)


def test_the_fcn_has_the_parameters_of_the_tutorial():
    assert listing.summary(shipped.get("fcn"))["parameters"] == 8652097


def test_fcn_alexnet_has_the_parameters_of_a_count_by_hand():
    convolutions = [
        (96, 3 * 121),
        (256, 48 * 25),
        (384, 256 * 9),
        (384, 192 * 9),
        (256, 192 * 9),
        (4096, 256 * 36),
        (4096, 4096),
    ]
    count = sum(filters * inputs + filters for filters, inputs in [*convolutions, (5, 4096)])
    found = listing.summary(shipped.get("fcn-alexnet"), (3, 60, 80), 5)
    assert found["parameters"] == count + 5 * 63 * 63
    assert shipped.get("fcn-alexnet").files[1].name == "fcn_alexnet_torch.py"


@pytest.mark.parametrize("name", NAMES)
def test_every_file_marks_its_number_of_classes(name):
    for file in shipped.get(name).files:
        assert file.is_file(), file
        assert shipped.MARKED.search(file.read_text()), file


def test_a_copy_differs_from_the_file_in_the_number_only():
    file = shipped.get("unet").files[0]
    copy = shipped.with_classes(file, 5)
    lines = zip(file.read_text().splitlines(), copy.read_text().splitlines(), strict=True)
    changed = [(old.strip(), new.strip()) for old, new in lines if old != new]
    assert changed == [("num_output: 21  # number of classes", "num_output: 5  # number of classes")]
    assert shipped.with_classes(file, 21) == file
    assert shipped.with_classes(file, None) == file


def test_a_number_that_is_the_count_of_channels_needs_no_copy():
    file = next(file for file in shipped.get("fcn").files if file.suffix == ".lua")
    assert shipped.with_classes(file, 3, channels=3) == file
    assert "OUTPUTS = 2 " in shipped.with_classes(file, 2, channels=3).read_text()


def test_described_by_name():
    topology = describe("unet", (3, 45, 30), classes=4)
    assert topology.shapes[topology.outputs[0]] == (4, 45, 30)


def test_a_path_is_no_name(tmp_path):
    assert shipped.find("./unet") is None
    assert shipped.find(tmp_path / "unet") is None
    assert shipped.find("unet") is shipped.MODELS["unet"]


@pytest.mark.parametrize("owner", ["caffe", "torch", "tensorflow"])
def test_the_file_of_a_backend_is_of_its_own_format(owner):
    declared = registry.get(owner)
    for name in NAMES:
        assert shipped.path_of(name, declared).suffix in declared.formats
    assert shipped.path_of("fcn", declared) == declared.default_model_path


def test_write_chooses_by_backend_or_extension(tmp_path):
    unet = shipped.get("unet")
    lua = shipped.write(unet, tmp_path / "net.lua", classes=7)
    assert "CLASSES = 7  -- number of classes" in lua.read_text()
    python = shipped.write(unet, tmp_path / "net.py", backend="tensorflow")
    assert "class UserModel" in python.read_text()
    with pytest.raises(
        SettingsError, match=re.escape("caffe (.prototxt), torch (.py), torch (.lua), tensorflow (.py)")
    ):
        shipped.write(unet, tmp_path / "other.py")
    with pytest.raises(ModelError, match="no network is called 'vnet'; known are: fcn, fcn-alexnet, unet"):
        shipped.get("vnet")
