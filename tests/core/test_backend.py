"""The registry of backends, from entry points."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

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


def install(folder: Path, distribution: str, **points: str) -> None:
    """Write the metadata of a distribution with these backends."""
    metadata = folder / f"{distribution}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in points.items()]
    (metadata / "entry_points.txt").write_text("\n".join([f"[{registry.GROUP}]", *lines, ""]))


def test_a_name_claimed_twice_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "other", torch="other:backend")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        BackendUnavailable, match=r"'torch' is provided twice, as other:backend and as multiseg_torch:backend"
    ):
        registry.get("torch")


def test_an_entry_point_that_is_no_backend_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "others", x="json:dumps", y="nowhere:backend")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendUnavailable, match=r"json:dumps is a function, not a multiseg Backend"):
        registry.get("x")
    with pytest.raises(BackendUnavailable, match=r"'y'.*No module named 'nowhere'"):
        registry.get("y")


def test_a_backend_that_is_installed_or_removed_meanwhile_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in a folder that Python imports from already; the metadata are read again only then."""
    monkeypatch.syspath_prepend(tmp_path)
    before = registry.names()
    assert before == registry.names()
    for number, name in enumerate(("first", "second"), 1):
        install(tmp_path, name, **{name: "json:dumps"})
        os.utime(tmp_path, (number, number))  # changes within one tick of the clock would have one time
        assert name in registry.names()
    shutil.rmtree(tmp_path / "first-1.0.dist-info")
    os.utime(tmp_path, (3, 3))
    assert registry.names() == sorted([*before, "second"])
    monkeypatch.undo()
    assert registry.names() == before
