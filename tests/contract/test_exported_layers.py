"""Every layer of the vocabulary, written as each framework's source: all that can say it compute the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from helpers.exported import Array, Frameworks, Step, network, random_weights
from helpers.exported_layers import ALL, CASES, check_alike, drawn, images, outputs, pool
from helpers.nightly import nightly
from multiseg import backend as registry
from multiseg.exporting import files

pytestmark = pytest.mark.needs("caffe", "tensorflow", "torch")


@pytest.fixture(scope="module")
def frameworks() -> Iterator[Frameworks]:
    found = Frameworks()
    yield found
    found.close()


@pytest.mark.parametrize("case", CASES)
def test_frameworks_that_can_say_a_layer_compute_the_same(case: str, frameworks: Frameworks, tmp_path: Path) -> None:
    steps, known = CASES[case]
    made = outputs(frameworks, network(*steps), tmp_path)
    assert set(made) == known
    check_alike(made)


# What a framework says in several words, which are read back as these: the layers compute the same, the descriptions differ.
TF, TORCH = {"tensorflow"}, {"torch"}
IN_SEVERAL_WORDS = {
    "pad-conv-padded": TF | TORCH, "deconv-groups": TF, "average-up": TF, "average-padded": TF, "average-padded-up": TF,
    "average-padded-counted-up": TF, "lrn-within": TF | TORCH, "lrn-within-bias": TF | TORCH,
    "dropout-channels": {"caffe"}, "dropout-channels-vector": ALL, "thresholded-value": TF | {"caffe"}, "thresholded-both": TF,
    "resize-nearest": {"caffe"}, "elu": TF, "thresholded": TF,
    "softmax-width": TF, "sum": TF | TORCH, "div": {"caffe"}, "reshape": TF,
    "sum-width": TF, "mean-height": TF, "sum-channels-without-axis": TF, "mean-one-channel-without-axis": TF,
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_layers_are_read_back_as_they_were_described(case: str, frameworks: Frameworks, tmp_path: Path) -> None:
    steps, known = CASES[case]
    topology = network(*steps)
    otherwise = set()
    for backend in known:
        path = files.export(topology, backend, tmp_path / f"net_{backend}{registry.get(backend).formats[0]}")
        if frameworks.describe(path, topology.input_shape) != topology:
            otherwise.add(backend)
    assert otherwise == IN_SEVERAL_WORDS.get(case, set())


ELEMENTWISE: dict[str, Callable[[Array], Array]] = {
    "Relu": lambda x: np.maximum(x, 0),
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Tanh": np.tanh,
    "Softplus": lambda x: np.log1p(np.exp(x)),
    "Abs": np.abs,
    "Exp": np.exp,
    "Neg": np.negative,
    "Identity": lambda x: x,
    "LeakyRelu": lambda x: np.where(x > 0, x, 0.01 * x),
    "Elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "Swish": lambda x: x / (1 + np.exp(-x)),
    "Sqrt": lambda x: np.sqrt(x),
    "Log": lambda x: np.log(x),
    "Pow": lambda x: x**1.5,
}


@pytest.mark.parametrize("kind", ELEMENTWISE)
def test_what_works_on_each_element_is_float64_numpys(kind: str, frameworks: Frameworks, tmp_path: Path) -> None:
    before: list[Step] = [("Softplus", {})] if kind in ("Sqrt", "Log", "Pow") else []
    topology = network(*before, (kind, {"exponent": 1.5} if kind == "Pow" else {}))
    x = images(topology).astype(np.float64) * random_weights(topology)["first.weight"][:, None, None]
    made = outputs(frameworks, topology, tmp_path)
    assert set(made) == ALL
    check_alike(made, ELEMENTWISE[kind](np.log1p(np.exp(x)) if before else x))


ALONE: dict[str, tuple[Step, str, Callable[[Array], Array]]] = {
    "pad-edge": (
        ("Pad", {"pads": [1, 2, 3, 4], "mode": "edge"}), "torch",
        lambda x: np.pad(x, ((0, 0), (0, 0), (1, 3), (2, 4)), "edge"),
    ),
    "max-pool-dilated": (
        pool(kernel=2, stride=1, dilations=[2, 2]), "torch",
        lambda x: np.maximum(np.maximum(x[..., :-2, :-2], x[..., 2:, :-2]), np.maximum(x[..., :-2, 2:], x[..., 2:, 2:])),
    ),
    "resize-linear-asymmetric": (
        ("Resize", {"mode": "linear", "scales": [2.0, 1.0], "coordinates": "asymmetric"}), "tensorflow",
        lambda x: np.stack([x, (x + np.concatenate([x[:, :, 1:], x[:, :, -1:]], 2)) / 2], 3).reshape(2, 4, 18, 10),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ALONE)
def test_what_one_framework_alone_can_say_is_numpys(case: str, frameworks: Frameworks, tmp_path: Path) -> None:
    step, backend, expected = ALONE[case]
    topology = network(step)
    x = images(topology).astype(np.float64) * random_weights(topology)["first.weight"][:, None, None]
    made = outputs(frameworks, topology, tmp_path)
    assert set(made) == {backend}
    check_alike(made, expected(x))


@pytest.mark.parametrize("block", nightly(range(4), [1, 2, 3]))
def test_random_windows_are_the_same_in_all_that_can_say_them(
    block: int, frameworks: Frameworks, tmp_path: Path
) -> None:
    compared = 0
    for seed in range(30 * block, 30 * block + 30):
        topology = drawn(seed)
        made = outputs(frameworks, topology, tmp_path) if topology else {}
        if len(made) > 1:
            check_alike(made)
            compared += 1
    assert compared >= 15


@pytest.mark.needs("torch")
def test_no_name_of_a_layer_hides_one_of_pytorchs_module() -> None:
    from multiseg_torch.exporting.text import RESERVED
    from torch import nn

    assert {name for name in dir(nn.Module) if not name.startswith("_")} <= set(RESERVED)
