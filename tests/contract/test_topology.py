"""The same network in every framework's format, each file described by its own backend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from zoo import NETS, SHAPES

import multiseg
from multiseg import backend as registry
from multiseg.backend import package_folder
from multiseg.topology import Topology
from multiseg.worker.client import Worker

MODELS = package_folder("multiseg_models")
FILES = {"fcn.prototxt": "caffe", "fcn_tensorflow.py": "tensorflow"}
STRIDE = {
    "fcn.prototxt": ("kernel_size: 16\n    stride: 16\n    weight", "kernel_size: 16\n    stride: 8\n    weight"),
    "fcn_tensorflow.py": ("1024, [16, 16], stride=16", "1024, [16, 16], stride=8"),
}


@pytest.fixture(scope="module")
def reference() -> Topology:
    """The FCN's prototxt, which is read without its framework."""
    return multiseg.describe(MODELS / "fcn.prototxt", (1, 32, 32))


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.needs(owner)) for name, owner in FILES.items()])
def test_the_fcn_is_the_same_in_every_format(name: str, reference: Topology) -> None:
    found = multiseg.describe(MODELS / name, (1, 32, 32))
    assert found == reference, str(reference.diff(found))
    assert found.parameter_count == 8_652_097
    # for each output value: kernel area times input channels; for a deconvolution, for each input value
    assert found.multiply_adds == 32 * 32 * 32 * 9 + 2 * 2 * 1024 * 16 * 16 * 32 + 2 * 2 * 1024 * 16 * 16


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.needs(owner)) for name, owner in FILES.items()])
def test_a_changed_stride_is_named(name: str, reference: Topology, tmp_path: Path) -> None:
    text = (MODELS / name).read_text()
    before, after = STRIDE[name]
    assert text.count(before) == 1
    changed = tmp_path / f"changed_{name}"
    changed.write_text(text.replace(before, after))
    found = reference.diff(multiseg.describe(changed, (1, 32, 32)))
    assert found
    assert found.first is not None
    assert found.first.endswith(f": stride 16 in fcn.prototxt, 8 in {changed.name}")
    assert "conv2" in found.first


FORMATS = {"_tensorflow.py": "tensorflow"}


@pytest.fixture(scope="module")
def workers() -> Iterator[dict[str, Worker]]:
    """One process for each backend, started when it is first asked for: starting a framework takes seconds."""
    started: dict[str, Worker] = {}
    yield started
    for worker in started.values():
        worker.close()


@pytest.mark.parametrize(
    "ending", [pytest.param(each, marks=pytest.mark.needs(owner)) for each, owner in FORMATS.items()]
)
@pytest.mark.parametrize("net", list(SHAPES))
def test_the_zoos_networks_are_the_same_in_every_format(net: str, ending: str, workers: dict[str, Worker]) -> None:
    one = multiseg.describe(NETS / f"{net}.prototxt", SHAPES[net][0])
    backend, path = registry.get(FORMATS[ending]), NETS / f"{net}{ending}"
    worker = workers.get(backend.name) or workers.setdefault(backend.name, Worker(backend))
    arguments = {"path": str(path), "input_shape": list(SHAPES[net][0])}
    description = worker.call("read", module=backend.reader, function="describe", arguments=arguments)
    other = Topology.of(path.name, "", description)
    assert one == other, str(one.diff(other))
    assert one.parameter_count == other.parameter_count
