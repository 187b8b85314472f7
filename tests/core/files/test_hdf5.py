"""HDF5 files whose content h5py itself does not accept are damaged files."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from multiseg.errors import ModelError
from multiseg.files import hdf5


def test_a_name_that_is_not_text(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_group(b"data/\xff")
    with (
        pytest.raises(ModelError, match=r"w\.h5: is not a complete HDF5 file: 'utf-8' codec"),
        hdf5.opened(tmp_path / "w.h5"),
    ):
        pass


def test_a_type_of_numbers_that_does_not_exist(tmp_path: Path) -> None:
    unknown = h5py.h5t.IEEE_F32LE.copy()
    unknown.set_ebias(1 << 20)
    with h5py.File(tmp_path / "w.h5", "w") as file:
        h5py.h5d.create(file.id, b"x", unknown, h5py.h5s.create_simple((2,)))
    with (
        pytest.raises(ModelError, match=r"w\.h5: is not a complete HDF5 file: Insufficient precision"),
        hdf5.opened(tmp_path / "w.h5"),
    ):
        pass


def test_an_error_of_the_reader_of_its_content_stays(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["x"] = np.ones(3)
    with pytest.raises(ModelError, match=r"^mine$"), hdf5.opened(tmp_path / "w.h5") as file:
        assert file["x"].shape == (3,)
        raise ModelError("mine")
