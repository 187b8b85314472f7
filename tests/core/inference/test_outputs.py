"""Options, writing of outputs and statistics, without any framework."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import multiseg
from multiseg.cli import main
from multiseg.dataset.check import check_dataset
from multiseg.errors import DatasetError, ImageError, SettingsError
from multiseg.inference.layers import Layers
from multiseg.inference.options import Options
from multiseg.inference.output import Output
from multiseg.inference.outputs import save, save_as, writing
from multiseg.inference.statistics import Statistics
from multiseg.layout import Layout


def output(height: int = 4, width: int = 6, channels: int = 1, seed: int = 0) -> Output:
    draw = np.random.default_rng(seed)
    array = draw.normal(128, 200, (channels, height, width)).astype(np.float32)
    return Output(array, draw.integers(0, 256, (channels, height, width), dtype=np.uint8))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tile": 0}, "tile=0"),
        ({"tile": 1.5}, "tile=1.5"),
        ({"tile": 64}, "resize=False"),
        ({"pad": True}, "resize=False"),
        ({"pixel_conversion": "stretch"}, "clip, normalize"),
        ({"channel_order": "GBR"}, "RGB, BGR"),
        ({"data_order": "NCHW"}, "CHW, HWC"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Options(**options)


def test_chosen_orders_are_of_the_output_alone() -> None:
    layout = Layout("NCHW", "BGR", np.ones(3, np.float32))
    chosen = Options(channel_order="RGB", data_order="HWC").of_output(layout)
    assert (chosen.data_order, chosen.channel_order) == ("NHWC", "RGB")
    kept = Options().of_output(layout)
    assert (kept.data_order, kept.channel_order) == ("NCHW", "BGR")


def test_a_tile_has_the_mean_of_the_whole_image_subtracted() -> None:
    mean = np.arange(64, dtype=np.float32).reshape(1, 8, 8)
    image = np.full((1, 1, 8, 8), 100, np.uint8)
    rows, columns = slice(2, 6), slice(4, 8)
    layout = Layout(mean=mean)
    whole = layout.features(image)
    part = layout.for_size(8, 8).for_part(rows, columns).features(image[:, :, rows, columns])
    assert np.array_equal(part, whole[:, :, rows, columns])
    # a larger image has the mean's average subtracted, and so has a tile of it that happens to be of the mean's size
    tile = layout.for_size(32, 32).for_part(slice(8, 16), slice(0, 8)).features(image)
    assert np.array_equal(tile, np.full((1, 1, 8, 8), 100 - 31.5, np.float32))


@pytest.mark.parametrize("channels", [1, 3])
def test_files_hold_the_output(tmp_path: Path, channels: int) -> None:
    made = output(channels=channels)
    assert np.array_equal(np.load(save(made, tmp_path / "new" / "a.npy")), made.array)
    assert np.array_equal(np.load(save_as(made, tmp_path / "b.NPY", None)), made.array)
    picture = np.atleast_3d(np.asarray(Image.open(save(made, tmp_path / "a.png"))))
    assert np.array_equal(np.moveaxis(picture, -1, 0), np.rint(np.clip(made.array, 0, 255)))
    beside = np.atleast_3d(np.asarray(Image.open(save(made, tmp_path / "b.png", show_input=True))))
    assert np.array_equal(beside[:, 7:], picture)
    assert np.array_equal(np.moveaxis(beside[:, :6], -1, 0), made.input)


@pytest.mark.parametrize("format", ["npy", "lmdb"])
def test_the_input_is_shown_beside_pictures_only(tmp_path: Path, format: Any) -> None:
    words = f"format='{format}': .* and show_input=True is for pictures"
    with pytest.raises(SettingsError, match=words), writing(tmp_path / "out", format, show_input=True):
        pass
    for path, kind in ((tmp_path / "out.npy", None), (tmp_path / "out.lmdb", format)):
        with pytest.raises(
            SettingsError, match="show_input=True is for pictures" if kind != "npy" else "does not agree"
        ):
            save_as(output(), path, kind, show_input=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("inside", "words"), [("job.json", "is a run"), ("val_db/features/data.mdb", "is a dataset")])
@pytest.mark.parametrize("command", ["test-db", "test-list"])
def test_outputs_are_not_written_among_other_files(tmp_path: Path, command: str, inside: str, words: str) -> None:
    (tmp_path / inside).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / inside).touch()
    before = sorted(tmp_path.rglob("*"))
    done = CliRunner().invoke(main, [command, "run", "x", "-o", str(tmp_path)])
    assert done.exit_code == 2 and words in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"a\.mp5: cannot be written: '\.mp5' is no kind of picture; name it \.png"):
        save(output(), tmp_path / "a.mp5")
    for name in ("a.psd", "a.fits", "a.cur", "a.mpg", "a.xpm", "a.h5", "a.qoi", "a.XBM"):  # which Pillow reads
        with pytest.raises(ImageError, match=rf"{name}: cannot be written: .*; name it \.png"):
            save(output(), tmp_path / name)
    with pytest.raises(ImageError, match="one or three channels"):
        save(output(channels=2), tmp_path / "a.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(ImageError, match="cannot be written"):
        save(output(), tmp_path / "file" / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with pytest.raises(SettingsError, match="png, npy, lmdb"), writing(tmp_path / "x", "tiff"):  # type: ignore[arg-type]
        pass


def test_a_folder_of_outputs_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file/inner"):
        for kind, error in (("png", ImageError), ("npy", ImageError), ("lmdb", DatasetError)):
            with pytest.raises(error, match=rf"{tmp_path / 'file'}.*: (cannot be|already)"), writing(folder, kind):  # type: ignore[arg-type]
                pytest.fail("it is no folder")
    (tmp_path / "out/0.png").mkdir(parents=True)
    (tmp_path / "out/predictions.csv").mkdir()
    with (
        pytest.raises(ImageError, match=r"0\.png: cannot be written: is a folder"),
        writing(tmp_path / "out", "png") as write,
    ):
        write("0", output())
    scores = Output(np.ones((3, 1, 1), np.float32), np.zeros((1, 4, 4), np.uint8), classifies=True)
    listed = pytest.raises(ImageError, match=r"predictions\.csv: cannot be written: is a folder")
    with listed, writing(tmp_path / "out", "png") as write:
        write("0", scores)
    with pytest.raises(ImageError, match=rf"{tmp_path / 'gone'}: cannot be written"), writing(tmp_path / "gone", "png"):
        (tmp_path / "gone").rmdir()  # by another program


@pytest.mark.parametrize("sizes", [[(4, 6), (4, 6)], [(4, 6), (5, 5)]])
def test_a_dataset_of_outputs(tmp_path: Path, sizes: list[tuple[int, int]]) -> None:
    made = [output(*size, seed=seed) for seed, size in enumerate(sizes)]
    with writing(tmp_path / "out", "lmdb") as write:
        for number, each in enumerate(made):
            write(str(number), each)
        assert not (tmp_path / "out").exists()
    assert check_dataset(tmp_path / "out").problems == []
    dataset = multiseg.Dataset.open(tmp_path / "out")
    assert len(dataset.train) == len(made) and len(dataset.val) == 0
    for number, each in enumerate(made):
        feature, label = dataset.train[number]
        assert np.array_equal(feature, each.input)
        assert np.array_equal(label, np.rint(np.clip(each.array, 0, 255)))
    if len(set(sizes)) == 1:
        assert np.array_equal(dataset.mean_image, np.around(np.mean([each.input for each in made], axis=0)))
    with pytest.raises(DatasetError, match="already exists"), writing(tmp_path / "out", "lmdb"):
        pass


def test_a_dataset_of_outputs_is_whole_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no output came"), writing(tmp_path / "out", "lmdb"):
        pass
    with pytest.raises(KeyboardInterrupt), writing(tmp_path / "out", "lmdb") as write:
        write("0", output())
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_statistics_are_those_of_the_finite_values() -> None:
    values = np.array([[1, 2, np.nan], [4, np.inf, 9]], np.float32)
    found = Statistics.of(values)
    assert (found.shape, found.mean, found.minimum, found.maximum, found.not_finite) == ((2, 3), 4, 1, 9, 2)
    assert found.std == pytest.approx(np.std([1, 2, 4, 9]))
    assert [found.histogram[index] for index in (0, 2, 7, 19)] == [1, 1, 1, 1] and sum(found.histogram) == 4
    constant = Statistics.of(np.full(5, 3, np.float32))
    assert constant.std == 0 and sum(constant.histogram) == 5
    assert Statistics.of(np.full(2, np.nan, np.float32)).not_finite == 2


def test_layers_of_every_shape_are_drawn(tmp_path: Path) -> None:
    arrays = {
        "maps": np.zeros((3, 300, 200), np.float32), "many": np.ones((1000, 2, 2), np.float32), "vector": np.arange(7.0),
        "<b>": np.array([np.nan, 1, 2], np.float32),
    }  # fmt: skip
    weights = {"dense.weight": np.ones((5, 7), np.float32), "scalar": np.float32(3).reshape(())}
    page = Layers("a net", Path("x.png"), np.zeros((1, 4, 4), np.uint8), arrays, weights).to_html(
        tmp_path / "page.html"
    )
    text = page.read_text()
    assert text.count("<img") == 7 and "64 of 1,000 maps" in text and "&lt;b&gt;" in text and "<b>" not in text
    assert list(json.loads(page.with_suffix(".json").read_text())["weights"]) == ["dense.weight", "scalar"]
    with pytest.raises(SettingsError, match="cannot be written"):
        Layers("a net", Path("x.png"), np.zeros((1, 4, 4), np.uint8), {}, {}).to_html(page / "page.html")


def test_commands_test_the_snapshot_of_a_fraction_of_an_epoch(fourth: str, dataset: Any, tmp_path: Path) -> None:
    job = multiseg.Job(
        dataset=dataset, backend=fourth, epochs=2, seed=1, val_interval=0.5, snapshot_interval=0.5, keep="all"
    )
    run = job.train(tmp_path / "run", progress=False)
    values = []
    for snapshot in (1.5, 2):
        arguments = [run.path, dataset.path / "val_db/features", "-o", tmp_path / "out", "--snapshot", snapshot]
        done = CliRunner().invoke(main, ["test-db", *map(str, arguments), "--images", "0", "--json"])
        assert done.exit_code == 0, done.output
        values.append(json.loads(done.stdout)["l1"])
    assert values == [row["l1"] for row in run.history if row["epoch"] in (1.5, 2)] and values[0] != values[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["test-db", "run", "db", "-o", "out", "--images", "some"], "neither a whole number from 0 nor 'all'"),
        (["test-db", "run", "db", "-o", "out", "--images", "²"], "neither a whole number from 0 nor 'all'"),
        (["test-db", "run", "db", "-o", "out", "--images", "9" * 5000], "neither a whole number from 0 nor 'all'"),
        (["test-one", "run", "x.png", "-o", "y.png", "--snapshot", "²"], "--snapshot '²': choose last, best"),
        (["test-one", "run", "x.png", "-o", "y.png", "--show-layers", "--tile", "64"], "leave out --tile"),
        (["test-one", "run", "x.png", "-o", "y.png", "--tile", "0"], "x>=1"),
        (["test-list", "run", "x.png", "-o", "y", "--format", "gif"], "'gif' is not one of"),
        (["test-list", "run", "x.png", "-o", "y", "--overlay", "--format", "lmdb"], "leave out one of them"),
        (["test-one", "run", "x.png", "-o", "y.png", "--overlay", "--opacity", "2"], "0<=x<=1"),
        (["test-db", "run", "db", "-o", "out", "--opacity", "0.3"], "add --overlay"),
    ],
)
def test_bad_usage(arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2 and words in done.stderr
