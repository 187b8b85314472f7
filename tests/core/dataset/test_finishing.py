"""The sums of a new dataset's files are computed while it is encoded, and not longer than it takes."""

from __future__ import annotations

import hashlib
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from multiseg.dataset.finishing import Finishing


@pytest.mark.parametrize("concurrent", [True, False])
def test_sums_by_name(concurrent: bool, tmp_path: Path) -> None:
    contents = {
        "train_db/features/data.mdb": b"features", "train_db/labels/data.mdb": bytes(3 << 20), "train_db/mean.binaryproto": b"",
        "val_db/features/data.mdb": b"others", "val_db/labels/data.mdb": b"labels",
    }  # fmt: skip
    with Finishing(concurrent) as finishing:
        for split in ("train_db", "val_db"):
            for name, content in contents.items():
                if name.startswith(split):
                    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                    (tmp_path / name).write_bytes(content)
            finishing.add(tmp_path / split)
        sums = finishing.sums(tmp_path)
    assert sums == {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    assert list(sums) == list(contents)


def test_an_interrupt_does_not_wait_for_the_sums(tmp_path: Path) -> None:
    labels = tmp_path / "train_db" / "labels" / "data.mdb"
    labels.parent.mkdir(parents=True)
    with labels.open("wb") as file:
        file.truncate(64 << 30)  # without content: nothing is stored, but it would be read for a minute
    finishing = Finishing(concurrent=True)
    with pytest.raises(KeyboardInterrupt), finishing:
        finishing.add(tmp_path / "train_db")
        raise KeyboardInterrupt
    with pytest.raises((InterruptedError, CancelledError)):
        finishing.sums(tmp_path)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "train_db" / "labels" / "data.mdb").mkdir(parents=True)
    with Finishing(concurrent=True) as finishing:
        finishing.add(tmp_path / "train_db")
        with pytest.raises(OSError, match=r"labels/data\.mdb"):
            finishing.sums(tmp_path)
