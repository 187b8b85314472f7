"""The registry of backends, from entry points."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from multiseg import backend as registry
from multiseg.errors import BackendUnavailable


def test_the_three_backends_are_entry_points_with_the_tutorials_rates() -> None:
    rates = {name: registry.get(name).learning_rate for name in registry.names()}
    assert rates == {"caffe": 1e-7, "tensorflow": 1e-5, "torch": 1e-3}
    for name in registry.names():
        assert registry.get(name).default_model_path.is_file()


def test_an_unknown_backend_lists_the_known_ones() -> None:
    with pytest.raises(BackendUnavailable, match=r"'mxnet'; known are: caffe, tensorflow, torch"):
        registry.get("mxnet")


def test_a_name_claimed_twice_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("torch", "multiseg_torch:backend", registry.GROUP),
        EntryPoint("torch", "other:backend", registry.GROUP),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    with pytest.raises(
        BackendUnavailable, match=r"'torch' is provided twice, as multiseg_torch:backend and as other:backend"
    ):
        registry.get("torch")


def test_an_entry_point_that_is_no_backend_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("x", "json:dumps", registry.GROUP), EntryPoint("y", "nowhere:backend", registry.GROUP)]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    with pytest.raises(BackendUnavailable, match=r"json:dumps is a function, not a multiseg Backend"):
        registry.get("x")
    with pytest.raises(BackendUnavailable, match=r"'y'.*No module named 'nowhere'"):
        registry.get("y")
