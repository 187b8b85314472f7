"""Files of compiled programs, which PyTorch writes beside its weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from multiseg.errors import ModelError
from multiseg.model_files.kinds import kind_of

pytestmark = pytest.mark.needs("torch")


def test_programs_are_told_from_weights_and_the_way_out_is_named(tmp_path: Path) -> None:
    """Only those who have the network's Python file can go on: multiseg runs no compiled programs."""
    import torch

    net = torch.nn.Conv2d(3, 2, 3)
    image = torch.zeros(1, 3, 8, 8)
    torch.jit.save(torch.jit.trace(net, image), tmp_path / "traced.pt")
    torch.export.save(torch.export.export(net, (image,)), tmp_path / "exported.pt2")
    for name in ("traced.pt", "exported.pt2"):
        for holds in ("network", "weights"):
            with pytest.raises(ModelError, match=rf"{name}: is a TorchScript.*, which is not read; save its weights"):
                kind_of(tmp_path / name, holds)  # type: ignore[arg-type]
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    assert kind_of(tmp_path / "weights.pt", "weights")[1].name == "PyTorch weights"
    # what the message tells to do
    torch.save(torch.jit.load(tmp_path / "traced.pt").state_dict(), tmp_path / "own.pt")
    torch.save(torch.export.load(tmp_path / "exported.pt2").state_dict, tmp_path / "own.pt2")
    for name in ("own.pt", "own.pt2"):
        assert kind_of(tmp_path / name, "weights")[1].name == "PyTorch weights"
        assert set(torch.load(tmp_path / name, weights_only=True)) == {"weight", "bias"}
