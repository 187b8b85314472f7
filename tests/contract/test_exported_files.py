"""The networks of tests/nets and the FCN, from each format into each framework's source: read back, they are the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from helpers import zoo
from helpers.exported import Frameworks, random_weights
from helpers.nightly import nightly
from multiseg import backend as registry
from multiseg.backend import package_folder
from multiseg.dataset.labels import read_as_classes
from multiseg.exporting import files

pytestmark = pytest.mark.needs("caffe", "tensorflow", "torch")

MODELS = package_folder("multiseg_models")
FILES = {
    **{f"{net}{ending}": zoo.NETS for net in zoo.SHAPES for ending in (".prototxt", ".lua", "_tensorflow.py")},
    **dict.fromkeys(("fcn.prototxt", "fcn.lua", "fcn_torch.py", "fcn_tensorflow.py"), MODELS),
}


@pytest.fixture(scope="module")
def frameworks() -> Iterator[Frameworks]:
    found = Frameworks()
    yield found
    found.close()


@pytest.mark.parametrize("file", FILES)
def test_an_exported_file_holds_the_same_network(file: str, frameworks: Frameworks, tmp_path: Path) -> None:
    net = Path(file).stem.removesuffix("_tensorflow").removesuffix("_torch")
    shape, labels = zoo.SHAPES.get(net, ((1, 32, 32), (1, 32, 32)))
    original = frameworks.describe(FILES[file] / file, shape)
    for target in ("caffe", "tensorflow", "torch"):
        path = tmp_path / f"{net}_{target}{registry.get(target).formats[0]}"
        files.export(original, target, path, label_shape=labels)
        again = frameworks.describe(path, shape)
        assert again == original, f"{target}:\n{original.diff(again)}"
        assert again.parameter_count == original.parameter_count
        classes = net not in ("autoencoder", "fcn")
        if target != "tensorflow":  # whose files do not say in words what their loss is
            assert read_as_classes(again) == classes
        if ".prototxt" in file and "/" not in "".join(original.weights):
            assert again.weights == original.weights  # by the same names, too


@pytest.mark.parametrize("net", nightly(zoo.SHAPES, ["alexnet", "fcn8s"]))
def test_an_exported_file_computes_what_the_original_does(net: str, frameworks: Frameworks, tmp_path: Path) -> None:
    shape, labels = zoo.SHAPES[net]
    file = zoo.NETS / f"{net}.prototxt"
    original = frameworks.describe(file, shape)
    weights = random_weights(original)
    images = np.random.default_rng(4).standard_normal((2, *shape)).astype(np.float32)
    expected = frameworks.predict("caffe", file, original, weights, images)
    for target in ("caffe", "tensorflow", "torch"):
        path = tmp_path / f"{net}_{target}{registry.get(target).formats[0]}"
        files.export(original, target, path, label_shape=labels)
        again = frameworks.describe(path, shape)
        own = dict(zip(again.weights, weights.values(), strict=True))  # layers keep their order
        made = frameworks.predict(target, path, again, own, images)
        # some ten layers of sums of up to 2304 float32 products, near 1 and random in sign
        assert np.abs(made - expected).max() <= 1e-5 * np.abs(expected).max()
