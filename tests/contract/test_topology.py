"""The same network in every framework's format, each file described by its own backend."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import multiseg
from helpers.lending import lend
from helpers.zoo import NETS, SHAPES
from multiseg.backend import package_folder
from multiseg.topology import Topology
from multiseg.worker.client import Worker

MODELS = package_folder("multiseg_models")
# the FCN's files, and how each says the stride of its second convolution, and says another
FILES = {
    "fcn.prototxt": ("16\n    stride: 16\n    weight", "16\n    stride: 8\n    weight"),
    "fcn.lua": ("1024, 16, 16, 16, 16", "1024, 16, 16, 8, 8"),
    "fcn_torch.py": ("1024, 16, stride=16", "1024, 16, stride=8"),
    "fcn_tensorflow.py": ("1024, [16, 16], stride=16", "1024, [16, 16], stride=8"),
}
OWNERS = {".prototxt": "caffe", ".lua": "torch", "_torch.py": "torch", "_tensorflow.py": "tensorflow"}
ZOO = [(net, path.name) for net in SHAPES for path in sorted(NETS.glob(f"{net}*")) if path.name != f"{net}.prototxt"]


def owned(name: str) -> Any:
    """A file as a parameter, for the environments that have its framework."""
    return pytest.param(name, marks=pytest.mark.needs(owner(name)))


def owner(name: str) -> str:
    return next(backend for ending, backend in OWNERS.items() if name.endswith(ending))


@pytest.fixture(scope="module")
def describe() -> Iterator[Callable[[Path, Any], Topology]]:
    """multiseg.describe, in one process for each backend: starting a framework takes seconds."""
    workers: dict[str, Worker] = {}

    def described(path: Path, shape: Any) -> Topology:
        backend = owner(path.name)
        worker = workers.get(backend) or workers.setdefault(backend, lend(backend))
        return multiseg.describe(path, shape, worker)

    yield described
    for worker in workers.values():
        worker.close()


@pytest.fixture(scope="module")
def reference() -> Topology:
    """The FCN's prototxt, which is read without its framework."""
    return multiseg.describe(MODELS / "fcn.prototxt", (1, 32, 32))


@pytest.mark.parametrize("name", [owned(each) for each in FILES])
def test_the_fcn_is_the_same_in_every_format(name: str, reference: Topology, describe: Any) -> None:
    found = describe(MODELS / name, (1, 32, 32))
    assert found == reference, str(reference.diff(found))
    assert found.parameter_count == 8_652_097
    # for each output value: kernel area times input channels; for a deconvolution, for each input value
    assert found.multiply_adds == 32 * 32 * 32 * 9 + 2 * 2 * 1024 * 16 * 16 * 32 + 2 * 2 * 1024 * 16 * 16


@pytest.mark.parametrize("name", [owned(each) for each in FILES])
def test_a_changed_stride_is_named(name: str, reference: Topology, describe: Any, tmp_path: Path) -> None:
    text = (MODELS / name).read_text()
    before, after = FILES[name]
    assert text.count(before) == 1
    changed = tmp_path / f"changed_{name}"
    changed.write_text(text.replace(before, after))
    found = reference.diff(describe(changed, (1, 32, 32)))
    assert len(found) == 1
    assert found.first is not None
    assert re.fullmatch(
        rf"conv2( \(\w+ in {changed.name}\))?: stride 16 in fcn.prototxt, 8 in {changed.name}", found.first
    )


@pytest.mark.parametrize(
    ("net", "name"), [pytest.param(net, name, marks=pytest.mark.needs(owner(name))) for net, name in ZOO]
)
def test_the_zoos_networks_are_the_same_in_every_format(net: str, name: str, describe: Any) -> None:
    one = multiseg.describe(NETS / f"{net}.prototxt", SHAPES[net][0])
    other = describe(NETS / name, SHAPES[net][0])
    assert one == other, str(one.diff(other))
    assert one.parameter_count == other.parameter_count
