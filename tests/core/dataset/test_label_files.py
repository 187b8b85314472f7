"""Target files become labels by their values; the expected values are written down here, or read by another library."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import multiseg
from multiseg import Dataset
from multiseg.cli import main
from multiseg.dataset.foreground import BINARY, DARK, UNKNOWN
from multiseg.dataset.label_tables import default_colours, read_map
from multiseg.errors import DatasetError, ImageError, MultisegError, MultisegWarning, SettingsError

MASK = np.array([[0, 1, 2, 0], [2, 2, 1, 0], [0, 0, 0, 1]], np.uint8)  # 4 wide, 3 high
VOC = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)]
Writer = Callable[[np.ndarray, Path], None]


def palette(mask: np.ndarray, path: Path, colours: list[tuple[int, int, int]] = VOC) -> None:
    image = Image.frombytes("P", (mask.shape[1], mask.shape[0]), mask.tobytes())
    image.putpalette([value for colour in colours for value in colour])
    image.save(f"{path}.png")


def low_bits(bits: int) -> Writer:
    """Write a grey PNG of 1, 2 or 4 bits, from the PNG specification: Pillow cannot write 2 and 4."""

    def write(mask: np.ndarray, path: Path) -> None:
        def chunk(kind: bytes, content: bytes) -> bytes:
            return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

        rows = b""
        for row in mask:
            text = "".join(f"{value:0{bits}b}" for value in row)
            text += "0" * (-len(text) % 8)
            rows += b"\0" + bytes(int(text[start : start + 8], 2) for start in range(0, len(text), 8))
        header = struct.pack(">IIBBBBB", mask.shape[1], mask.shape[0], bits, 0, 0, 0, 0)
        content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
        Path(f"{path}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)

    return write


def netpbm(most: int, plain: bool = False) -> Writer:
    def write(mask: np.ndarray, path: Path) -> None:
        head = f"P{2 if plain else 5}\n# a comment\n{mask.shape[1]} {mask.shape[0]}\n{most}\n".encode()
        numbers = " ".join(map(str, mask.ravel().tolist())).encode()
        raw = mask.astype(">u2" if most > 255 else np.uint8).tobytes()
        Path(f"{path}.pgm").write_bytes(head + (numbers if plain else raw))

    return write


def saved(suffix: str, dtype: Any = np.uint8, **options: Any) -> Writer:
    return lambda mask, path: Image.fromarray(mask.astype(dtype)).save(f"{path}{suffix}", **options)


def coloured(mask: np.ndarray, path: Path) -> None:
    Image.fromarray(np.array(VOC, np.uint8)[mask]).save(f"{path}.png")


def folders(root: Path, write: Writer, masks: list[np.ndarray] | None = None) -> dict[str, Any]:
    masks = [MASK, MASK[::-1].copy(), MASK.copy()] if masks is None else masks
    draw = np.random.default_rng(0)
    for name in ("input", "target"):
        (root / name).mkdir(parents=True)
    for number, mask in enumerate(masks):
        picture = draw.integers(0, 256, (*mask.shape, 3), np.uint8)
        Image.fromarray(picture).save(root / "input" / f"{number}.png")
        write(mask, root / "target" / str(number))
    return {"input": root / "input", "target": root / "target", "val_input": None, "val_percent": 0, "seed": 1}


def stored(dataset: Dataset) -> list[list[int]]:
    """Return the labels of a dataset, sorted, to compare them with masks in any order."""
    return sorted(dataset.train[index][1].ravel().tolist() for index in range(len(dataset.train)))  # type: ignore[union-attr]


EXPECTED = sorted(mask.ravel().tolist() for mask in (MASK, MASK[::-1], MASK))
FILES: dict[str, Writer] = {
    "palette": palette,
    "grey": saved(".png"),
    "16 bits": saved(".png", np.uint16),
    "2 bits": low_bits(2),
    "4 bits": low_bits(4),
    "pgm of 2": netpbm(2),
    "pgm of 100": netpbm(100),
    "pgm of 1000": netpbm(1000),
    "pgm of 65535": netpbm(65535),
    "plain pgm of 2": netpbm(2, plain=True),
    "plain pgm of 255": netpbm(255, plain=True),
    "bmp": saved(".bmp"),
    "tiff": saved(".tif"),
    "16-bit tiff": saved(".tif", np.uint16),
    "float tiff": saved(".tif", np.float32),
    "compressed tiff": saved(".tif", compression="tiff_lzw"),
}


@pytest.mark.filterwarnings("ignore::multiseg.errors.MultisegWarning")
@pytest.mark.parametrize("kind", ["images", "classes"])
@pytest.mark.parametrize("name", FILES)
def test_values_of_masks_are_kept(tmp_path: Path, name: str, kind: str) -> None:
    options = folders(tmp_path, FILES[name])
    for encoding in ("none", "png"):
        dataset = Dataset.create(tmp_path / encoding, labels=kind, label_encoding=encoding, **options)
        assert stored(dataset) == EXPECTED
        assert dataset.train.shape == (3, 3, 4) and dataset.train.label_shape == (1, 3, 4)


def test_options_of_inputs_do_not_change_class_masks(tmp_path: Path) -> None:
    options = folders(tmp_path, palette)
    dataset = Dataset.create(
        tmp_path / "out", labels="classes", channels="L", feature_encoding="jpg", label_encoding="png", **options
    )
    assert dataset.train.shape == (1, 3, 4) and stored(dataset) == EXPECTED


def test_one_bit_is_a_class_or_black_and_white(tmp_path: Path) -> None:
    mask = (MASK > 0).astype(np.uint8)
    options = folders(tmp_path, low_bits(1), [mask, 1 - mask])
    classes = Dataset.create(tmp_path / "classes", labels="classes", **options)
    assert stored(classes) == sorted([mask.ravel().tolist(), (1 - mask).ravel().tolist()])
    images = Dataset.create(tmp_path / "images", **options)
    assert {value for label in stored(images) for value in label} == {0, 255}


@pytest.mark.parametrize("write", [coloured, palette])
def test_colours_are_looked_up(tmp_path: Path, write: Writer) -> None:
    """In a palette image too: its indices may have any order."""
    (tmp_path / "colours.txt").write_text("128, 0, 0\n0 128 0\n\n0 0 1\n")
    options = folders(tmp_path, write)
    dataset = Dataset.create(
        tmp_path / "out", labels="classes", classes=["red", "green"], colours=tmp_path / "colours.txt",
        label_map={(0, 0, 0): 255}, **options,
    )  # fmt: skip
    expected = np.array([255, 0, 1], np.uint8)
    assert stored(dataset) == sorted(expected[mask].ravel().tolist() for mask in (MASK, MASK[::-1], MASK))
    assert dataset.labels.names == ("red", "green")
    assert dataset.labels.colours == ((128, 0, 0), (0, 128, 0)) and dataset.labels.ignore == 255


def test_what_the_labels_are_is_kept_with_the_dataset(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("road\nsky\ncar\n\nnot a class\n")
    options = folders(tmp_path, palette)
    created = Dataset.create(
        tmp_path / "out", labels="classes", classes=tmp_path / "names.txt", colours="palette", ignore=11, **options
    )
    for dataset in (created, Dataset.open(tmp_path / "out")):
        assert dataset.labels.kind == "classes"
        assert dataset.labels.names == ("road", "sky", "car")
        assert dataset.labels.colours == tuple(VOC[:3]) and dataset.labels.ignore == 11
    content = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert content["labels"]["names"] == ["road", "sky", "car"]
    assert content["label_values"]["train"] == {str(value): int((value == MASK).sum()) * 3 for value in range(3)}


def test_without_names_classes_are_counted(tmp_path: Path) -> None:
    labels = Dataset.create(tmp_path / "out", labels="classes", **folders(tmp_path, saved(".png"))).labels
    assert labels.names == ("0", "1", "2") and labels.ignore == 255
    assert len(set(default_colours(256))) == 256 and labels.colours == default_colours(3)


def test_a_map_of_values(tmp_path: Path) -> None:
    (tmp_path / "map.txt").write_text("7 0\n8: 1\n33, 2\n0 255\n")
    ids = np.array([7, 8, 33], np.uint8)
    options = folders(tmp_path, lambda mask, path: saved(".png")(ids[mask], path))
    for number, source in enumerate((tmp_path / "map.txt", {7: 0, "8": 1, 33: 2, 0: 255}, "7:0,8:1,33:2,0:255")):
        dataset = Dataset.create(tmp_path / str(number), labels="classes", label_map=source, **options)
        assert stored(dataset) == EXPECTED
    assert read_map({"128 64 128": 3, (0, 0, 1): "4"}) == {(128, 64, 128): 3, (0, 0, 1): 4}
    assert read_map(",".join(f"{value}:{value // 2}" for value in range(256))) == {
        value: value // 2 for value in range(256)
    }


def fails(root: Path, error: type[MultisegError], message: str, options: dict[str, Any]) -> None:
    before = sorted(root.rglob("*"))
    with pytest.raises(error, match=message) as caught:
        Dataset.create(root / "out", **options)
    assert "\n" not in str(caught.value) and sorted(root.rglob("*")) == before


def other_palette(mask: np.ndarray, path: Path) -> None:
    palette(mask, path, VOC if path.name != "1" else [VOC[0], VOC[2], VOC[1]])


def big_values(mask: np.ndarray, path: Path) -> None:
    saved(".png", np.uint16)(mask.astype(np.uint16) + 300 * (mask == 1), path)


def transparent(mask: np.ndarray, path: Path) -> None:
    pixels = np.full((*mask.shape, 4), 255, np.uint8)
    pixels[..., 3] = (mask > 0) * 255
    Image.fromarray(pixels).save(f"{path}.png")


def larger(mask: np.ndarray, path: Path) -> None:
    saved(".png")(np.pad(mask, 1), path)


def short_palette(mask: np.ndarray, path: Path) -> None:
    image = Image.frombytes("P", (mask.shape[1], mask.shape[0]), mask.tobytes())
    image.putpalette([value for colour in VOC[:2] for value in colour])
    image.save(f"{path}.bmp")


@pytest.mark.parametrize(
    ("write", "options", "error", "message"),
    [
        (coloured, {}, ImageError, r"target/\d.png: has three channels, .* colours=FILE"),
        (coloured, {"colours": VOC[:2]}, ImageError,
         r"target/\d.png: its pixel at x=\d, y=\d has the colour 0 128 0, .*add the colour to colours"),
        (short_palette, {"colours": VOC}, ImageError,
         r"target/\d.bmp: its pixel at x=\d, y=\d has the index 2, but its palette has 2 colours; leave out colours"),
        (saved(".jpg"), {}, ImageError, r"target/\d.jpg: is a JPEG file, whose compression .*save class masks as PNG"),
        (lambda m, p: Path(f"{p}.png").write_bytes(_jpeg(m)), {}, ImageError, r"target/\d.png: is a JPEG file"),
        (saved(".webp"), {}, ImageError, r"target/\d.webp: is a lossy WebP file"),
        (other_palette, {}, DatasetError, r"target/\d.png: index \d of its palette is .* palettes differ; .*colours=FILE"),
        (big_values, {}, ImageError, r"target/\d.png: its pixel at x=\d, y=\d has the value 301; .*label_map"),
        (big_values, {"labels": "images"}, ImageError, r"target/\d.png: its pixel at x=\d, y=\d has the value 301; "),
        (saved(".png"), {"classes": ["a", "b"]}, ImageError,
         r"target/\d.png: its pixel at x=\d, y=\d has the value 2; there are 2 classes, 0 to 1: add it to classes, "),
        (saved(".png"), {"classes": ["a", "b", "c"], "ignore": 2}, SettingsError, r"ignore=2 is one of the 3 classes \(c\)"),
        (saved(".png"), {"classes": ["a", "b"], "colours": VOC[:3]}, SettingsError, "2 classes and colours 3 colours"),
        (saved(".png"), {"colours": "palette"}, DatasetError, "target: has no palette image"),
        (saved(".png"), {"classes": "nowhere.txt"}, DatasetError, "classes='nowhere.txt': cannot be read: No such file"),
        (saved(".png"), {"classes": []}, SettingsError, "classes: has no class names"),
        (saved(".png"), {"classes": ["a", "a"]}, SettingsError, "names 'a' twice"),
        (saved(".png"), {"colours": [(0, 0, 300)]}, SettingsError, "item 0: 0 0 300 is not a colour"),
        (saved(".png"), {"colours": [(0, 0, 0), (0, 0, 0)]}, SettingsError, "0 0 0 is class 0 already"),
        (saved(".png"), {"ignore": 256}, SettingsError, "ignore=256: must be a whole number of 0 to 255"),
        (saved(".png"), {"label_map": {0: 1}}, ImageError, r"has the value 1, which is the label of another value; add .* 1:1"),
        (saved(".png"), {"label_map": {0: 9}, "classes": ["a", "b", "c"]}, SettingsError, "maps 0 to 9, but the classes "),
        (saved(".png"), {"label_map": {"x": 1}}, SettingsError, "'x' -> 1 is not an entry of a map"),
        (saved(".png"), {"labels": "boxes"}, SettingsError, "labels='boxes': choose one of images, classes"),
        (saved(".png"), {"label_channels": "RGB"}, SettingsError, "label_channels converts targets that are pictures"),
        (saved(".png"), {"labels": "images", "classes": ["a"]}, SettingsError, "belongs to class masks; add labels='classes'"),
        (saved(".png"), {"foreground": 1}, SettingsError, "foreground=1: there are 3 classes"),
        (saved(".png"), {"foreground": "left"}, SettingsError, "foreground='left': choose dark, light, or the value"),
        (saved(".png"), {"labels": "images", "foreground": 1}, DatasetError, "values from 0 to 2, and foreground=1 is neither"),
        (saved(".tif", np.float32), {"label_map": {1: 300}}, SettingsError, "is not an entry of a map"),
        (lambda m, p: saved(".tif", np.float32)(m / 4, p), {}, ImageError, "has the value 0.(5|25); labels are whole numbers"),
        (transparent, {}, ImageError, "is a transparent image, which is not a class mask"),
        (transparent, {"labels": "images"}, ImageError, "is one colour on a transparent background"),
        (lambda m, p: saved(".png")((m > 0) * 255, p), {}, DatasetError, "only the values 0 and 255, .*label_map='255:1'"),
        (lambda m, p: saved(".png")((m > 0) * 100, p), {"labels": "images"}, DatasetError,
         "have the values 0 and 100; state which one is the object with foreground=100 or foreground=0"),
        (larger, {}, DatasetError, r"input/\d.png is 4x3 and its target .*target/\d.png 6x5; make them the same size"),
    ],
)  # fmt: skip
def test_bad_masks_are_named_and_nothing_is_left(
    tmp_path: Path, write: Writer, options: dict[str, Any], error: type[MultisegError], message: str
) -> None:
    fails(tmp_path, error, message, {"labels": "classes", **folders(tmp_path, write), **options})


def _jpeg(mask: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (saved(".jpg"), r"target/\d.jpg: is a JPEG file, .* as are 3 of the targets"),
        (palette, r"target/\d.png: is a palette image, of which the numbers 0 to 2 are kept; .*labels='classes'"),
        (saved(".png"), r"all labels are from 0 to 2, on one side of 128; .*labels='classes'"),
        (lambda mask, path: saved(".png")(mask * 0 + 255, path), "every label is 255 everywhere"),
    ],
)
def test_suspicious_labels_are_named(tmp_path: Path, write: Writer, message: str) -> None:
    options = folders(tmp_path, write)
    with pytest.warns(MultisegWarning, match=message):
        dataset = Dataset.create(tmp_path / "out", **options)
    assert len(dataset.info["warnings"]) == 1


def test_label_channels_convert_pictures(tmp_path: Path) -> None:
    options = folders(tmp_path, palette)
    dataset = Dataset.create(tmp_path / "out", label_channels="RGB", **options)
    assert dataset.train.label_shape == (3, 3, 4)
    assert sorted(map(tuple, dataset.train[0][1].reshape(3, -1).T.tolist()))[0] == VOC[0]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("values", "requested", "objects"),
    [((0, 1, 2), 2, [2]), ((0, 1, 2), 0, [0]), ((0, 150, 200), 200, [200]), ((0, 127, 255), 0, [0])],
)
def test_the_stated_value_alone_is_the_foreground_of_masks_of_few_values(
    tmp_path: Path, values: tuple[int, ...], requested: int, objects: list[int]
) -> None:
    options = folders(
        tmp_path, lambda mask, path: saved(".png")(np.resize(np.array(values, np.uint8), mask.shape), path)
    )
    Dataset.create(tmp_path / "out", foreground=requested, **options)
    foreground = Dataset.open(tmp_path / "out").labels.foreground
    assert np.array(values)[foreground.in_labels(np.array(values))].tolist() == objects


def test_masks_with_smooth_edges_are_divided_at_128(tmp_path: Path) -> None:
    options = folders(
        tmp_path, lambda mask, path: saved(".png")(np.linspace(0, 255, 40, dtype=np.uint8).reshape(4, 10), path)
    )
    options["input"] = options["target"]
    Dataset.create(tmp_path / "out", foreground=255, **options)
    assert Dataset.open(tmp_path / "out").labels.foreground.threshold == 128


@pytest.mark.parametrize(
    ("values", "requested", "side", "threshold"),
    [
        ((0, 255), None, "dark", 128),
        ((0, 255), "light", "light", 128),
        ((0, 255), 255, "light", 128),
        ((0, 255), 0, "dark", 128),
        ((0, 1), None, "light", 0.5),
        ((0, 1), "dark", "dark", 0.5),
        ((0, 100), 100, "light", 50),
        ((200, 255), 200, "dark", 227.5),
    ],
)
def test_the_foreground_is_kept_with_the_dataset(
    tmp_path: Path, values: tuple[int, int], requested: Any, side: str, threshold: float
) -> None:
    options = folders(tmp_path, lambda mask, path: saved(".png")(np.array(values)[(mask > 0) * 1], path))
    Dataset.create(tmp_path / "out", foreground=requested, **options)
    found = Dataset.open(tmp_path / "out").labels.foreground
    assert (found.side, found.threshold) == (side, threshold)
    light = np.array(values) >= threshold
    np.testing.assert_array_equal(found.in_labels(np.array(values)), light if side == "light" else ~light)


def test_the_command_line_has_the_same_options(tmp_path: Path) -> None:
    folders(tmp_path, coloured)
    (tmp_path / "names.txt").write_text("a\nb\n")
    (tmp_path / "colours.txt").write_text("0 0 0\n128 0 0\n")
    arguments = ["create-dataset", tmp_path / "out", "--input", tmp_path / "input", "--target", tmp_path / "target"]
    arguments += ["--labels", "classes", "--classes", tmp_path / "names.txt", "--colours", tmp_path / "colours.txt"]
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert (
        result.exit_code == 2 and "add the colour to --colours, or map it to a label with --label-map" in result.stderr
    )
    (tmp_path / "map.txt").write_text("0 128 0 200\n")
    arguments += ["--label-map", tmp_path / "map.txt", "--ignore", 200]
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.stderr
    assert multiseg.Dataset.open(tmp_path / "out").labels.ignore == 200
    arguments = ["create-dataset", tmp_path / "two", "--input", tmp_path / "input", "--target", tmp_path / "target"]
    arguments += ["--labels", "classes", "--ignore", "none", "--label-map", "255:1"]
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 2 and "--colours FILE" in result.stderr


def binary_of_two_scales(mask: np.ndarray, path: Path) -> None:
    """File 1 has 1 bit, the others 0 and 1 in 8 bits."""
    (low_bits(1) if path.name == "1" else saved(".png"))((mask > 0).astype(np.uint8), path)


@pytest.mark.parametrize("foreground", [None, "light", 255])
def test_binary_masks_of_two_scales_are_refused_and_the_advice_works(tmp_path: Path, foreground: Any) -> None:
    options = folders(tmp_path, binary_of_two_scales)
    message = (
        r"target/[02].png: has the largest value 1, and .*target/1.png has 255.*label_map='255:1,1:1'.*labels='classes'"
    )
    fails(tmp_path, DatasetError, message, {"foreground": foreground, **options})
    expected = sorted((np.array(values) > 0).astype(int).tolist() for values in EXPECTED)
    mapped = Dataset.create(tmp_path / "mapped", label_map="255:1,1:1", **options)
    assert stored(mapped) == expected and mapped.labels.foreground == BINARY
    assert stored(Dataset.create(tmp_path / "classes", labels="classes", **options)) == expected


def test_binary_masks_of_two_scales_in_eight_bits(tmp_path: Path) -> None:
    options = folders(tmp_path, lambda mask, path: saved(".png")((mask > 0) * (255 if path.name == "1" else 1), path))
    fails(tmp_path, DatasetError, r"target/[02].png: has the largest value 1, and .*target/1.png has 255", options)
    mapped = Dataset.create(tmp_path / "mapped", label_map="255:1,1:1", **options)
    assert {value for label in stored(mapped) for value in label} == {0, 1}


def test_masks_with_a_void_border_have_no_foreground_and_the_advice_works(tmp_path: Path) -> None:
    options = folders(tmp_path, lambda mask, path: saved(".png")(np.array([0, 1, 255])[mask], path))
    with pytest.warns(
        MultisegWarning, match=r"png: has class numbers; .* 0, 1 and 255, .*'classes' and ignore=255, .*'255:0,0:0'"
    ):
        Dataset.create(tmp_path / "out", **options)
    assert Dataset.open(tmp_path / "out").labels.foreground == UNKNOWN
    classes = Dataset.create(tmp_path / "classes", labels="classes", ignore=255, **options)
    assert classes.labels.names == ("0", "1") and classes.labels.foreground == BINARY
    mapped = Dataset.create(tmp_path / "mapped", label_map="255:0,0:0", **options)
    assert mapped.labels.foreground == BINARY
    white = Dataset.create(tmp_path / "white", foreground=255, **options)
    assert str(white.labels.foreground) == "from 128"


@pytest.mark.parametrize(
    ("values", "known"),
    [
        ((0, 128, 255), True),
        ((0, 1, 2), False),
        ((0, 20, 255), False),
        ((0, 21, 255), True),
        ((1, 255, 1), True),
        ((200, 220, 255), False),
    ],
)
def test_the_foreground_is_known_if_the_threshold_separates_grey(
    tmp_path: Path, values: tuple[int, ...], known: bool, recwarn: pytest.WarningsRecorder
) -> None:
    created = Dataset.create(
        tmp_path / "out", **folders(tmp_path, lambda mask, path: saved(".png")(np.array(values)[mask], path))
    )
    assert created.labels.foreground == (DARK if known else UNKNOWN) == Dataset.open(tmp_path / "out").labels.foreground
    warned = [each for each in recwarn if each.category is MultisegWarning]  # not those of what earlier tests left open
    assert ("foreground" in created.info["labels"]) is not known and len(warned) == (0 if known else 1)
