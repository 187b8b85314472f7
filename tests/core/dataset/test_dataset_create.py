"""Creating datasets: options, determinism, and what bad input gets."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lmdb
import numpy as np
import pytest
from PIL import Image

import multiseg
from multiseg import Dataset
from multiseg.dataset import creation, encoders, encoding, pairs, writing
from multiseg.errors import DatasetError, ImageError, MultisegError, MultisegWarning, SettingsError


def write_images(folder: Path, names: list[str], size: tuple[int, int] = (6, 4), mode: str = "L") -> Path:
    """Images that differ from one another, by name."""
    for name in names:
        numbers = np.random.default_rng(sum(name.encode()) + 1000 * size[0])
        shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(numbers.integers(0, 256, shape, np.uint8)).save(folder / name)
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    names = [f"{index:02d}.png" for index in range(20)]
    write_images(tmp_path / "source" / "input", names)
    write_images(tmp_path / "source" / "target", names)
    return tmp_path / "source"


def create(source: Path, out: Path, **options: Any) -> Dataset:
    return Dataset.create(out, **{"input": source / "input", "target": source / "target", "seed": 1, **options})


def fails(source: Path, out: Path, error: type[MultisegError], message: str, **options: Any) -> None:
    """Creation fails with one line, and leaves nothing behind, not even folders on the way."""
    folder = next(folder for folder in out.parents if folder.is_dir())
    before = sorted(folder.rglob("*"))
    with pytest.raises(error, match=message) as caught:
        create(source, out, **options)
    assert "\n" not in str(caught.value)
    assert sorted(folder.rglob("*")) == before


def databases(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.name in ("data.mdb", "mean.binaryproto")
    }


def test_the_defaults_are_the_tutorials_form(source: Path, tmp_path: Path) -> None:
    dataset = create(source, tmp_path / "out")
    assert (len(dataset.train), len(dataset.val)) == (18, 2)
    assert dataset.train.shape == dataset.val.shape == dataset.train.label_shape == (1, 4, 6)
    info = dataset.info
    assert info["feature_encoding"] == "png"
    assert info["label_encoding"] == "none"
    assert (info["val_percent"], info["channels"], info["seed"]) == (10, "none", 1)
    assert info["input"] == str(source / "input")
    assert info["train"] == {"count": 18, "shape": [1, 4, 6], "label_shape": [1, 4, 6]}
    assert dataset.content_hash == info["content_hash"]


@pytest.mark.parametrize(("percent", "expected"), [(0, 0), (10, 2), (14.9, 2), (15, 3), (99, 19)])
def test_the_percentage_is_rounded_down(source: Path, tmp_path: Path, percent: float, expected: int) -> None:
    dataset = create(source, tmp_path / "out", val_percent=percent)
    assert (len(dataset.train), len(dataset.val)) == (20 - expected, expected)
    assert (tmp_path / "out" / "val_db").exists() == (expected > 0)


def test_separate_validation_folders_are_not_shuffled(source: Path, tmp_path: Path) -> None:
    names = ["b/2.png", "a.png", "b/1.png"]
    write_images(tmp_path / "val" / "input", names)
    write_images(tmp_path / "val" / "target", names)
    dataset = create(source, tmp_path / "out", val_input=tmp_path / "val/input", val_target=tmp_path / "val/target")
    assert len(dataset.train) == 20
    for split, folder in ((dataset.train, source), (dataset.val, tmp_path / "val")):
        for index, path in enumerate(sorted((folder / "input").rglob("*.png"))):
            assert np.array_equal(split[index][0][0], np.asarray(Image.open(path)))
            assert np.array_equal(
                split[index][1][0], np.asarray(Image.open(folder / "target" / path.relative_to(folder / "input")))
            )


@pytest.mark.parametrize(("channels", "count"), [("none", 3), ("L", 1), ("RGB", 3)])
def test_channels_convert_inputs_and_targets(tmp_path: Path, channels: str, count: int) -> None:
    names = ["1.png", "2.png", "3.jpg"]
    write_images(tmp_path / "input", names, mode="RGB")
    write_images(tmp_path / "target", ["1.png", "2.bmp", "3.png"])
    dataset = create(tmp_path, tmp_path / "out", channels=channels, val_percent=0)
    assert dataset.train.shape == (count, 4, 6)
    assert dataset.train.label_shape == (3 if channels == "RGB" else 1, 4, 6)


def test_nested_folders_and_other_suffixes_pair_by_path(tmp_path: Path) -> None:
    write_images(tmp_path / "input", ["a/1.png", "a/2.PNG", "b/c/1.ppm"], mode="RGB")
    write_images(tmp_path / "target", ["a/1.bmp", "a/2.png", "b/c/1.pgm"])
    (tmp_path / "input" / "notes.txt").write_text("not an image")
    dataset = create(tmp_path, tmp_path / "out", val_percent=0)
    assert len(dataset.train) == 3


def test_folders_that_state_a_split_are_not_put_together_without_a_warning(tmp_path: Path) -> None:
    names = ["train/a.png", "train/b.png", "Val/c.png", "Val/d.png"]
    folders = {kind: write_images(tmp_path / kind, names) for kind in ("input", "target")}
    words = r"input: images of its folders train and Val are put together .* input='.*/input/train' and val_input='.*/input/Val'"
    with pytest.warns(MultisegWarning, match=words):
        Dataset.create(tmp_path / "pooled", **folders, val_percent=50, seed=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*put together")
        Dataset.create(
            tmp_path / "kept", input=folders["input"] / "train", target=folders["target"] / "train",
            val_input=folders["input"] / "Val", val_target=folders["target"] / "Val",
        )  # fmt: skip
        Dataset.create(tmp_path / "all", **folders, val_percent=0)


def test_folders_of_other_shape_pair_by_base_name(tmp_path: Path) -> None:
    write_images(tmp_path / "input", ["a/1.png", "b/2.png"])
    write_images(tmp_path / "target", ["x/2.png", "y/z/1.png"])
    found = pairs.find_pairs(str(tmp_path / "input"), str(tmp_path / "target"))
    assert (found.inputs, found.targets) == (["a/1.png", "b/2.png"], ["y/z/1.png", "x/2.png"])


def test_names_of_partners_may_have_other_endings(tmp_path: Path) -> None:
    """Cityscapes' names; the other files beside its masks are left out."""
    write_images(tmp_path / "input", [f"aachen/{name}_leftImg8bit.png" for name in "ab"])
    endings = ("labelIds", "instanceIds", "color")
    write_images(tmp_path / "target", [f"aachen/{name}_gtFine_{ending}.png" for name in "ab" for ending in endings])
    chosen = {"input_ending": "_leftImg8bit", "target_ending": "_gtFine_labelIds"}
    found = pairs.find_pairs(str(tmp_path / "input"), str(tmp_path / "target"), *chosen.values())
    assert found.targets == ["aachen/a_gtFine_labelIds.png", "aachen/b_gtFine_labelIds.png"]
    dataset = create(tmp_path, tmp_path / "out", val_percent=50, **chosen)
    assert len(dataset.train) == len(dataset.val) == 1
    assert dataset.info["left_out"] == {"target": {".png": 4}} and dataset.info["target_ending"] == "_gtFine_labelIds"
    write_images(tmp_path / "flat", ["b.png", "a.png"])  # by base name
    assert (
        pairs.find_pairs(str(tmp_path / "flat"), found.target_folder, "", "_gtFine_color")
        .targets[0]
        .endswith("a_gtFine_color.png")
    )
    fails(
        tmp_path,
        tmp_path / "none",
        DatasetError,
        "no image whose name ends in '_mask' .* aachen/a_gtFine",
        target_ending="_mask",
    )
    advice = r"if names end otherwise, as in a_mask.png, specify target_ending=_mask$"
    fails(tmp_path, tmp_path / "none", DatasetError, advice)
    fails(tmp_path, tmp_path / "none", SettingsError, "target_ending=3: must be text", target_ending=3)


def test_same_names_with_different_suffixes_pair_where_both_folders_have_them(tmp_path: Path) -> None:
    for kind in ("input", "target"):
        write_images(tmp_path / kind, ["a.bmp", "a.png"])
    found = pairs.find_pairs(str(tmp_path / "input"), str(tmp_path / "target"))
    assert found.inputs == found.targets == ["a.bmp", "a.png"]


def test_mixed_sizes_are_taken_when_allowed_and_have_no_mean(tmp_path: Path) -> None:
    for kind in ("input", "target"):
        write_images(tmp_path / kind, ["1.png"], (6, 4))
        write_images(tmp_path / kind, ["2.png"], (3, 9))
    dataset = create(tmp_path, tmp_path / "out", mixed_sizes=True, val_percent=0)
    assert dataset.train.shape is None
    assert dataset.train.label_shape is None
    assert dataset.mean_image is None
    assert dataset.mean_pixel is None
    assert sorted(feature.shape for feature, _ in (dataset.train[0], dataset.train[1])) == [(1, 4, 6), (1, 9, 3)]
    with pytest.raises(DatasetError, match="read them one by one"):
        dataset.train.read([0, 1])
    fails(tmp_path, tmp_path / "no", ImageError, r"2.png is 3x9 and .*1.png 6x4; make all images one size, or allow")


def test_a_seed_is_chosen_and_kept(source: Path, tmp_path: Path) -> None:
    chosen = create(source, tmp_path / "a", seed=None)
    assert 0 <= chosen.info["seed"] <= 1000
    again = create(source, tmp_path / "b", seed=chosen.info["seed"])
    assert databases(tmp_path / "a") == databases(tmp_path / "b")
    assert chosen.content_hash == again.content_hash


@pytest.mark.parametrize("options", [{}, {"feature_encoding": "none"}, {"feature_encoding": "jpg", "channels": "RGB"}])
def test_any_number_of_workers_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
) -> None:
    images = multiseg.create_images(tmp_path / "images", count=300, size=16, seed=4)
    monkeypatch.setattr(creation, "MOST_PAIRS", 7)  # many chunks, so that the helpers take part
    results = [
        databases(create(images, tmp_path / str(workers), workers=workers, **options).path) for workers in (1, 2, 4)
    ]
    assert results[0] == results[1] == results[2]
    assert len(results[0]) == 6


def test_the_order_in_which_encoders_finish_does_not_matter(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = encoders._attempt
    mine: list[encoding.Chunk] = []

    def slow(
        task: encoding.EncodingTask, chunk: encoding.Chunk, total: encoding.Sum | None
    ) -> encoding.Encoded | Exception:
        mine.append(chunk)
        time.sleep(0.05)
        return attempt(task, chunk, total)

    monkeypatch.setattr(encoders, "_attempt", slow)  # in this process only, so that the helpers finish first
    found = pairs.find_pairs(str(source / "input"), str(source / "target"))
    task = encoding.EncodingTask("none", "png", "none", False, found.part(0, 1)[0], (1, 4, 6), (1, 4, 6))
    chunks = [found.part(index % 20, index % 20 + 1) for index in range(200)]
    with encoders.Encoders(task, 3) as pool:
        while pool._starting:
            pool._collect({}, block=True)
        results = list(pool.map(iter(chunks)))
    assert [one.features for one in results] == [encoding.encode(task, chunk, None).features for chunk in chunks]
    assert 0 < len(mine) < 150


def test_creation_works_from_a_script_without_a_main_guard(source: Path, tmp_path: Path) -> None:
    """Helper processes that run the user's script again would start helpers without end."""
    script = tmp_path / "script.py"
    script.write_text(
        "import multiseg, multiseg.dataset.creation as creation\n"
        "creation._MIN_CHUNKS_PER_WORKER = 1\ncreation.MOST_PAIRS = 2\n"
        f"ds = multiseg.Dataset.create({str(tmp_path / 'out')!r}, input={str(source / 'input')!r},\n"
        f"    target={str(source / 'target')!r}, workers=3)\n"
        "print('ran', len(ds.train))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, env=environment)
    assert (done.stdout, done.stderr) == ("ran 18\n", "")


def test_progress_reaches_the_end(source: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    create(source, tmp_path / "out", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (20, 20)


def test_the_map_grows_when_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_INITIAL_MAP_SIZE", 1 << 16)
    images = multiseg.create_images(tmp_path / "images", count=200, seed=4)
    dataset = create(images, tmp_path / "out", feature_encoding="none")
    assert (tmp_path / "out/train_db/features/data.mdb").stat().st_size > 1 << 17
    with lmdb.open(str(tmp_path / "out/train_db/features"), readonly=True, lock=False) as environment:
        assert environment.stat()["entries"] == len(dataset.train) == 180


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_percent": -1}, "val_percent=-1: must be from 0 to below 100"),
        ({"val_percent": 100}, "from 0 to below 100"),
        ({"val_percent": float("nan")}, "from 0 to below 100"),
        ({"input": ""}, "input='': must be a folder of images"),
        ({"val_input": "", "val_target": "x"}, "val_input='': must be a folder of images"),
        ({"seed": [1]}, r"seed=\[1\]: must be a whole number from 0"),
        ({"workers": 0}, "workers=0: must be a whole number from 1"),
        ({"val_percent": None}, "from 0 to below 100"),
        ({"channels": "BGR"}, "channels='BGR': choose one of none, L, RGB"),
        ({"feature_encoding": "gif"}, "feature_encoding='gif': choose one of none, png, jpg"),
        ({"label_encoding": "jpg"}, "label_encoding='jpg': choose one of none, png"),
        ({"seed": -1}, "seed=-1: must be"),
        ({"seed": 1.5}, "seed=1.5: must be"),
        ({"val_input": "somewhere"}, "belong together"),
    ],
)
def test_settings_that_cannot_be(source: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    fails(source, tmp_path / "new" / "out", SettingsError, message, **options)


@pytest.mark.parametrize("val", ["input", "input/..", "input/sub", "."])
def test_validation_folders_may_not_overlap_the_training_folders(source: Path, tmp_path: Path, val: str) -> None:
    write_images(tmp_path / "elsewhere", ["1.png"])
    (source / "input" / "sub").mkdir()
    options = {"val_input": source / val, "val_target": tmp_path / "elsewhere"}
    fails(source, tmp_path / "out", SettingsError, "overlaps the training folder", **options)
    (tmp_path / "link").symlink_to(source / "target")
    options = {"val_input": tmp_path / "elsewhere", "val_target": tmp_path / "link"}
    fails(source, tmp_path / "out", SettingsError, "overlaps the training folder", **options)


def test_missing_and_empty_folders(source: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.txt").write_text("nothing here")
    fails(source, tmp_path / "out", DatasetError, "nowhere: no such folder", input=tmp_path / "nowhere")
    fails(
        source,
        tmp_path / "out",
        DatasetError,
        "empty: contains no images; supported are png jpg",
        target=tmp_path / "empty",
    )
    fails(source, tmp_path / "out", DatasetError, "00.png: is not a folder", input=source / "input" / "00.png")


def test_names_without_a_partner_are_listed(source: Path, tmp_path: Path) -> None:
    write_images(source / "target", ["zz.png"])
    fails(source, tmp_path / "out", DatasetError, r"input contains 20 images and .*target 21.*partner: target zz.png$")
    for index in range(15):
        (source / "target" / f"{index:02d}.png").unlink()
    fails(source, tmp_path / "out", DatasetError, r"input 00.png, .*, input 09.png and 6 more$")


def test_two_files_of_one_name_are_ambiguous(source: Path, tmp_path: Path) -> None:
    write_images(source / "target", ["00.bmp"])
    fails(source, tmp_path / "out", DatasetError, "two targets have the same name: 00.bmp, 00.png")


def test_a_link_to_a_folder_above_is_no_endless_loop(source: Path, tmp_path: Path) -> None:
    (source / "input" / "loop").symlink_to(source / "input")
    fails(source, tmp_path / "out", DatasetError, "is a link to one of its parent folders")


def png_bytes(mode: str) -> bytes:
    import io

    buffer = io.BytesIO()
    Image.new(mode, (6, 4)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"this is text", "is not an image"),
        (png_bytes("L")[:-20], "is damaged or truncated"),
        (png_bytes("P"), "is a palette image; choose channels RGB"),
        (png_bytes("RGBA"), "is a transparent image; choose channels RGB"),
        (png_bytes("1"), "is a 1-bit image; choose channels L"),
        (png_bytes("I;16"), "is of more than 8 bits and .* 8-bit, so their values have different scales"),
        (png_bytes("RGB"), "is RGB and .* grey; choose channels L or RGB"),
    ],
)
def test_bad_images_are_named(source: Path, tmp_path: Path, content: bytes, message: str) -> None:
    (source / "input" / "07.png").write_bytes(content)
    fails(source, tmp_path / "out", ImageError, rf"input/07\.png:? {message}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"this is text", "is not an image"),
        (png_bytes("L")[:-20], "is damaged or truncated"),
        (png_bytes("RGBA"), "is RGB and .* grey; choose label_channels L or RGB"),
        (png_bytes("RGB"), "is RGB and .* grey; choose label_channels L or RGB"),
    ],
)
def test_bad_targets_are_named(source: Path, tmp_path: Path, content: bytes, message: str) -> None:
    (source / "target" / "07.png").write_bytes(content)
    fails(source, tmp_path / "out", ImageError, rf"target/07\.png:? {message}")


def test_the_first_bad_image_is_the_one_named_whatever_the_workers(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creation, "MOST_PAIRS", 1)
    monkeypatch.setattr(creation, "_MIN_CHUNKS_PER_WORKER", 1)
    for name in ("03.png", "12.png", "17.png"):
        (source / "input" / name).write_bytes(b"")
    messages = set()
    for workers in (1, 2, 3):
        with pytest.raises(ImageError) as caught:
            create(source, tmp_path / "out", workers=workers)
        messages.add(str(caught.value))
    assert len(messages) == 1


def test_an_image_that_may_not_be_read(source: Path, tmp_path: Path) -> None:
    (source / "input" / "07.png").unlink()
    (source / "input" / "07.png").symlink_to(tmp_path / "gone")
    fails(source, tmp_path / "out", ImageError, "07.png: cannot be read: No such file")


def test_input_and_target_of_different_size(source: Path, tmp_path: Path) -> None:
    write_images(source / "target", ["05.png"], (6, 5))
    for mixed in (False, True):
        fails(source, tmp_path / "out", DatasetError, "05.png is 6x4 and its target .*05.png 6x5", mixed_sizes=mixed)


def test_an_existing_folder_or_file_is_left_alone(source: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    for name in ("folder", "file"):
        fails(source, tmp_path / name, DatasetError, f"{name}: already exists; remove it or choose another")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_may_not_be_written(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", denied)  # root, as tests often run, may write anywhere
    fails(source, tmp_path / "out", DatasetError, "cannot be created: Permission denied")


def test_a_folder_below_a_file(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DatasetError, match=r"file.*: (cannot be created|Not a directory)"):
        create(source, tmp_path / "file" / "out")


@pytest.mark.parametrize("where", ["lmdb", "lmdb, in the middle of a write", "mean", "sync"])
def test_a_full_disk(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Full(writing.RecordWriter):
        def _commit(self) -> None:
            number = errno.ENOSPC if where == "lmdb" else errno.EIO
            raise self._as_os_error(lmdb.DiskError(f"mdb_txn_commit: {os.strerror(number)}"))

    if "lmdb" in where:
        monkeypatch.setattr(creation, "RecordWriter", Full)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5000))
    elif where == "mean":
        monkeypatch.setattr(Path, "write_bytes", full)
    else:
        monkeypatch.setattr(os, "fsync", full)
    fails(source, tmp_path / "new" / "out", DatasetError, "the disk is full; free some space")


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_helper_that_dies_is_an_error_not_a_hang(source: Path, when: str) -> None:
    found = pairs.find_pairs(str(source / "input"), str(source / "target"))
    task = encoding.EncodingTask("none", "png", "none", False, found.part(0, 1)[0], (1, 4, 6), (1, 4, 6))
    with encoders.Encoders(task, 2) as pool:
        while pool._starting:
            pool._collect({}, block=True)
        results = pool.map(found.part(index % 20, index % 20 + 1) for index in range(1000))
        if when == "during":
            next(results)
        pool._helpers[0]._process.kill()
        with pytest.raises(DatasetError, match="an encoding process ended unexpectedly"):
            list(results)


def test_a_helper_that_cannot_start_leaves_the_work_to_the_others(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    monkeypatch.setattr(creation, "MOST_PAIRS", 1)
    monkeypatch.setattr(creation, "_MIN_CHUNKS_PER_WORKER", 1)
    assert len(create(source, tmp_path / "out", workers=3).train) == 18


@pytest.mark.parametrize("kind", ["input", "target"])
@pytest.mark.parametrize("name", ["00.png", "07.png"])  # the first file, and one that an encoder reads
def test_images_of_too_many_pixels_are_refused_or_allowed(kind: str, name: str, source: Path, tmp_path: Path) -> None:
    for folder in ("input", "target"):
        write_images(source / folder, [name], (10, 5))
    fails(source, tmp_path / "x" / "out", ImageError, rf"{name}: has 10x5 pixels, more than max_pixels=40; shrink it, or allow "
          "it by max_pixels=50", max_pixels=40, mixed_sizes=True)  # fmt: skip
    dataset = create(source, tmp_path / "out", max_pixels=50, mixed_sizes=True)
    assert dataset.info["max_pixels"] == 50 and len(dataset.train) == 18
    write_images(source / kind, [name], (50, 50))
    fails(
        source, tmp_path / "x" / "out", ImageError, f"{kind}/{name}: has 50x50 pixels", max_pixels=60, mixed_sizes=True
    )


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "x", 2**63])
def test_the_limit_of_pixels_is_a_number(value: Any, source: Path, tmp_path: Path) -> None:
    fails(
        source,
        tmp_path / "x" / "out",
        SettingsError,
        rf"max_pixels={value!r}: must be a whole number",
        max_pixels=value,
    )


@pytest.mark.parametrize("option", [{"seed": 2**70}, {"val_percent": "20"}])
def test_a_dataset_of_unusual_values_of_its_options_opens(option: dict[str, Any], source: Path, tmp_path: Path) -> None:
    dataset = Dataset.create(tmp_path / "x", input=source / "input", target=source / "target", **option)
    assert Dataset.open(dataset.path).info.items() >= option.items()
