"""Files of tensors that are damaged: one error of a bounded length."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs("torch")


def test_an_error_about_a_long_name_is_short(tmp_path: Path) -> None:
    """PyTorch searches an error's message in quadratic time: what it searches does not grow with the file."""
    from multiseg_torch import tensors_only

    path = tmp_path / "damaged.pt"
    name = "a" * 20_000
    magic, protocol = 0x1950A86A20F9469CFC6C, 1001  # of files before PyTorch 1.6
    parts = [pickle.dumps(value, 2) for value in (magic, protocol, {})]
    path.write_bytes(b"".join(parts) + f"cno_module\n{name}\n.".encode())
    with pytest.raises(pickle.UnpicklingError) as caught:
        tensors_only.load(path)
    assert "aaaa" in str(caught.value) and len(str(caught.value)) < 5000


def test_tensors_are_read_as_by_torch(tmp_path: Path) -> None:
    import torch
    from multiseg_torch import tensors_only

    state = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2])}
    for new in (True, False):
        torch.save(state, tmp_path / "state.pt", _use_new_zipfile_serialization=new)
        read = tensors_only.load(tmp_path / "state.pt")
        assert list(read) == list(state)
        assert all(torch.equal(read[key], torch.load(tmp_path / "state.pt", weights_only=True)[key]) for key in state)
    torch.save(torch.nn.Linear(2, 1), tmp_path / "module.pt")
    with pytest.raises(pickle.UnpicklingError, match="Linear"):
        tensors_only.load(tmp_path / "module.pt")
