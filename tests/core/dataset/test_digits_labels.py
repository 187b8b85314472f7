"""DIGITS' segmentation jobs open with their names and colours; their pickle is written by Python's pickle, and never executed."""

from __future__ import annotations

import json
import pickle
import sys
import types
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import multiseg
from multiseg.cli import main
from multiseg.dataset import digits
from multiseg.dataset.records import mean_blob, raw_datum
from multiseg.dataset.writing import RecordWriter
from multiseg.errors import MultisegWarning

PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
LABELS = ["road", "sky", "traffic sign", "", "These are the classes of", "a tutorial"]


class GenericDatasetJob:
    """An object with the attributes of a DIGITS job, pickled under the name of DIGITS' module."""

    __module__ = "digits.dataset.generic.job"

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__)


@pytest.fixture(autouse=True)
def module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pickle write the module names of DIGITS, none of which exists when the file is read."""
    for name in ("digits", "digits.dataset", "digits.dataset.generic", GenericDatasetJob.__module__):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules[GenericDatasetJob.__module__].GenericDatasetJob = GenericDatasetJob  # type: ignore[attr-defined]


def status(protocol: int, **changes: Any) -> bytes:
    userdata = {
        "seed": 7, "colormap_method": "label", "color_palette": PALETTE + [0] * (768 - len(PALETTE)), "class_labels": LABELS,
        "feature_folder": "/data/images", "label_folder": "/data/masks", "folder_pct_val": 10, "has_val_folder": False,
    }  # fmt: skip
    job = GenericDatasetJob(
        _id="20170101-000000-abcd", status_history=[("D", 1.5), ("R", 2.5)], backend="lmdb", feature_encoding="png",
        extension_id="image-segmentation", extension_userdata=userdata | changes.pop("userdata", {}), force_same_shape=1,
        pickver_job=2, notes=None, big=1 << 70, values=OrderedDict(a=1), numbers={3, 4}, pair=(1, 2), one=(1,), three=(1, 2, 3),
        data=b"bytes", flag=True, array=np.arange(3), tasks=[GenericDatasetJob(stage="train_db")],
    )  # fmt: skip
    job.__dict__.update(changes)
    job.tasks[0].job = job  # a cycle, as in DIGITS
    return pickle.dumps(job, protocol)


def folder(root: Path, content: bytes | None) -> Path:
    root.mkdir()
    for split in ("train_db", "val_db"):
        for kind, channels in (("features", 3), ("labels", 1)):
            with RecordWriter(root / split / kind) as writer:
                for number in range(2):
                    writer.write(raw_datum(np.full((channels, 4, 4), number, np.uint8)))
        (root / split / "mean.binaryproto").write_bytes(mean_blob(np.zeros((3, 4, 4), np.uint8)))
    if content is not None:
        (root / "status.pickle").write_bytes(content)
    return root


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_names_and_colours_are_those_of_the_job(tmp_path: Path, protocol: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        labels = multiseg.Dataset.open(folder(tmp_path / "job", status(protocol))).labels
    assert labels.kind == "classes"
    assert labels.names == ("road", "sky", "traffic sign")
    assert labels.colours == ((0, 0, 0), (128, 0, 0), (0, 128, 0))
    assert labels.ignore == 255


# A job as Python 2 writes it: text as bytes, here with an accent in UTF-8; an object by copy_reg.
PYTHON_2 = rb"""ccopy_reg
_reconstructor
p0
(cdigits.dataset.generic.job
GenericDatasetJob
p1
c__builtin__
object
p2
Ntp3
Rp4
(dp5
S'extension_id'
p6
Vimage-segmentation
p7
sS'extension_userdata'
p8
(dp9
S'class_labels'
p10
(lp11
S'route'
p12
aS'arri\xc3\xa8re'
p13
aS"feu 'rouge'"
p14
asS'color_palette'
p15
(lp16
I0
aI0
aI0
aI128
aI64
aI128
aI1
aI2
aI3
assS'username'
p17
NsS'form.flag'
I01
sb."""


def test_a_job_of_python_2(tmp_path: Path) -> None:
    labels = multiseg.Dataset.open(folder(tmp_path / "job", PYTHON_2)).labels
    assert labels.names == ("route", "arrière", "feu 'rouge'")
    assert labels.colours == ((0, 0, 0), (128, 64, 128), (1, 2, 3))


def test_nothing_is_executed(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "executed",))

    content = status(2, attack=Attack())
    pickle.loads(content)
    assert (tmp_path / "executed").exists()  # unpickling would execute it
    (tmp_path / "executed").unlink()
    labels = multiseg.Dataset.open(folder(tmp_path / "job", content)).labels
    assert labels.names == ("road", "sky", "traffic sign")
    assert not (tmp_path / "executed").exists()


def test_without_names_or_palette(tmp_path: Path) -> None:
    without = multiseg.Dataset.open(folder(tmp_path / "a", status(0, userdata={"class_labels": None}))).labels
    assert without.names == ()
    assert without.colours == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    grey = multiseg.Dataset.open(folder(tmp_path / "b", status(0, userdata={"color_palette": None}))).labels
    assert grey.names == ("road", "sky", "traffic sign")
    assert len(set(grey.colours)) == 3


def test_other_jobs_and_folders_are_as_before(tmp_path: Path) -> None:
    other = status(2, extension_id="image-processing")
    something = pickle.dumps({"extension_id": ["image-segmentation"]})
    assert multiseg.Dataset.open(folder(tmp_path / "c", something)).labels.kind == "images"
    assert multiseg.Dataset.open(folder(tmp_path / "a", other)).labels.kind == "images"
    assert multiseg.Dataset.open(folder(tmp_path / "b", None)).labels.kind == "images"


@pytest.mark.parametrize(
    "content", [b"", b"S'a\n.", b"S'a','b'\n.", b"no pickle", b"(dp0", b"cos\nsystem\n", b"I1\nR.", b"0.", b"]a."]
)
def test_a_damaged_file_is_a_warning(tmp_path: Path, content: bytes) -> None:
    dataset = multiseg.Dataset.open(folder(tmp_path / "job", content))
    with pytest.warns(MultisegWarning, match=r"status\.pickle: cannot be read"):
        assert dataset.labels.kind == "images"


def test_every_truncation_is_an_error() -> None:
    for content in (status(0), status(2), PYTHON_2):
        for end in range(0, len(content) - 1, 3):
            with pytest.raises((ValueError, KeyError, IndexError, TypeError)):
                digits.parse(content[:end])


def test_the_commands_show_them(tmp_path: Path) -> None:
    path = folder(tmp_path / "job", status(0))
    result = CliRunner().invoke(main, ["check-dataset", str(path)])
    assert result.exit_code == 0, result.output
    assert "    1 sky: train 16 (50.00%), val 16 (50.00%)" in result.stdout.splitlines()
    result = CliRunner().invoke(main, ["check-dataset", str(path), "--json"])
    assert json.loads(result.stdout)["labels"]["names"] == ["road", "sky", "traffic sign"]
    (path / "status.pickle").write_bytes(b"no pickle")
    result = CliRunner().invoke(main, ["check-dataset", str(path)])
    assert result.exit_code == 0
    assert result.stderr.startswith(f"warning: {path / 'status.pickle'}: cannot be read")
