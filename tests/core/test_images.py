from __future__ import annotations

import io
import resource
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from multiseg.errors import ImageError, SettingsError
from multiseg.images import decode, decode_image, encode_image, load_image, open_plain_png, save_image, to_image

RNG = np.random.default_rng(1)
GREY = RNG.integers(0, 256, (7, 5), np.uint8)
RGB = RNG.integers(0, 256, (7, 5, 3), np.uint8)


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "jpg", "jpeg"])
def test_rgb_files_load_as_chw(tmp_path: Path, suffix: str) -> None:
    path = saved(Image.fromarray(RGB), tmp_path / f"a.{suffix}")
    array = load_image(path)
    assert array.dtype == np.uint8
    assert np.array_equal(array, np.asarray(Image.open(path)).transpose(2, 0, 1))


@pytest.mark.parametrize("suffix", ["png", "bmp", "pgm", "jpg"])
def test_grey_files_load_as_chw(tmp_path: Path, suffix: str) -> None:
    path = saved(Image.fromarray(GREY), tmp_path / f"a.{suffix}")
    assert np.array_equal(load_image(path), np.asarray(Image.open(path))[np.newaxis])


def test_channels_convert(tmp_path: Path) -> None:
    grey = saved(Image.fromarray(GREY), tmp_path / "grey.png")
    colour = saved(Image.fromarray(RGB), tmp_path / "rgb.png")
    assert np.array_equal(load_image(grey, "RGB"), np.stack([GREY] * 3))
    # ITU-R 601-2, as Pillow documents it
    luma = RGB @ np.array([299, 587, 114]) / 1000
    assert np.abs(load_image(colour, "L")[0] - luma).max() <= 1
    with pytest.raises(SettingsError, match="none, L, RGB"):
        load_image(grey, "BGR")


def odd_images() -> dict[str, tuple[Image.Image, str]]:
    """Kinds of images that need a conversion, with what the error calls them."""
    transparent = Image.fromarray(np.dstack([RGB, GREY]))
    return {
        "palette.png": (Image.fromarray(RGB).quantize(8), "palette"),
        "transparent.png": (transparent, "transparent"),
        "grey-alpha.png": (Image.merge("LA", [Image.fromarray(GREY)] * 2), "transparent"),
        "bit.png": (Image.fromarray(GREY).convert("1"), "1-bit"),
        "cmyk.jpg": (Image.fromarray(RGB).convert("CMYK"), "CMYK"),
    }


@pytest.mark.parametrize("name", odd_images())
def test_other_kinds_are_refused_or_converted(tmp_path: Path, name: str) -> None:
    image, kind = odd_images()[name]
    path = saved(image, tmp_path / name)
    with pytest.raises(ImageError, match=rf"{name}: is a {kind} image; choose channels (L|RGB)"):
        load_image(path)
    assert load_image(path, "L").shape == (1, 7, 5)
    assert load_image(path, "RGB").shape == (3, 7, 5)


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, :, 3] = [0, 255, 51]  # invisible, opaque, a fifth
    path = saved(Image.fromarray(pixels), tmp_path / "a.png")
    assert load_image(path, "L")[0, 0].tolist() == [255, 0, 204]


def png(
    width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: tuple[bytes, bytes], interlace: int = 0
) -> bytes:
    """A PNG file by hand, from the specification."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    others = b"".join(part(*chunk) for chunk in chunks)
    return (
        b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + others + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")
    )


def test_opaque_alpha_changes_nothing(tmp_path: Path) -> None:
    """An alpha channel, or a transparent colour, that occurs in no pixel is no reason to refuse an image."""
    opaque = np.full_like(GREY, 255)
    grey = saved(Image.fromarray(np.dstack([GREY, opaque])), tmp_path / "a.png")
    colour = saved(Image.fromarray(np.dstack([RGB, opaque])), tmp_path / "b.png")
    unused = saved(Image.fromarray(GREY // 2), tmp_path / "c.png", transparency=200)
    assert np.array_equal(load_image(grey), GREY[np.newaxis])
    assert np.array_equal(load_image(colour), RGB.transpose(2, 0, 1))
    assert np.array_equal(load_image(unused), GREY[np.newaxis] // 2)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("colour", [0, 2])
def test_a_transparent_colour_is_laid_over_white(tmp_path: Path, depth: int, colour: int) -> None:
    """The chunk tRNS of a PNG file makes one value transparent; Pillow opens such a file in mode L or RGB."""
    white = 2**depth - 1
    form = f">{1 if colour == 0 else 3}{'B' if depth == 8 else 'H'}"
    one, other = (7,) * (len(struct.pack(form, *(0,) * int(form[1]))) // (depth // 8)), (9, 9, 9)[: int(form[1])]
    rows = b"\0" + struct.pack(form, *one) + struct.pack(form, *other)
    key = struct.pack(">H" if colour == 0 else ">3H", *one)
    path = tmp_path / "a.png"
    path.write_bytes(png(2, 1, depth, colour, rows, (b"tRNS", key)))
    values = load_image(path, "L" if colour == 0 else "RGB")
    assert values[:, 0].tolist() == [[white, 9]] * len(one)
    with pytest.raises(ImageError, match=r"a\.png: is a transparent image; choose channels (L|RGB)"):
        load_image(path)


DEEP = RNG.integers(0, 65536, (7, 5, 4)).astype(np.uint16)


@pytest.mark.parametrize(
    ("suffix", "channels"),
    [("png", 1), ("png", 3), ("tif", 1), ("tif", 3), ("pgm", 1), ("ppm", 3), ("npy", 1), ("npy", 3)],
)
def test_16_bits_are_kept(tmp_path: Path, suffix: str, channels: int) -> None:
    """OpenCV writes the files; it keeps all 16 bits, and orders channels BGR."""
    values = DEEP[..., 0] if channels == 1 else np.ascontiguousarray(DEEP[..., :3])
    path = tmp_path / f"a.{suffix}"
    if suffix == "npy":
        np.save(path, values[..., ::-1] if channels == 3 else values)
    else:
        assert cv2.imwrite(str(path), values)
    expected = values[..., ::-1].transpose(2, 0, 1) if channels == 3 else values[np.newaxis]
    array = load_image(path)
    assert array.dtype == np.float32
    assert np.array_equal(array, expected.astype(np.float32))
    assert np.array_equal(load_image(path, "RGB"), np.broadcast_to(expected, (3, 7, 5)))
    if channels == 3:
        luma = np.tensordot(np.array([0.299, 0.587, 0.114]), expected.astype(np.float64), 1)
        assert np.abs(load_image(path, "L")[0] - luma).max() < 0.01
    if suffix in ("png", "tif"):  # as DIGITS and Caffe read an encoded record
        assert np.array_equal(decode_image(path.read_bytes(), "a", "any"), (expected >> 8).astype(np.uint8))


@pytest.mark.parametrize("compression", [1, 5, 8, 32773])  # none, LZW, deflate, PackBits
def test_16_bit_colour_is_kept_in_every_compression(compression: int) -> None:
    ok, data = cv2.imencode(".tif", DEEP[..., :3], [cv2.IMWRITE_TIFF_COMPRESSION, compression])
    assert ok
    assert np.array_equal(decode(data.tobytes(), "a").values, DEEP[..., 2::-1].transpose(2, 0, 1))


def test_big_endian_16_bit_colour_is_kept() -> None:
    assert np.array_equal(decode(big_endian_tiff(DEEP[..., :3]), "a").values, DEEP[..., :3].transpose(2, 0, 1))


def big_endian_tiff(values: np.ndarray) -> bytes:
    """An uncompressed TIFF file of 16-bit RGB (H, W, 3) by hand, from the specification."""
    height, width, _ = values.shape
    pixels = values.astype(">u2").tobytes()
    entries = [
        (256, 3, 1, width << 16), (257, 3, 1, height << 16), (258, 3, 3, 8 + len(pixels)), (259, 3, 1, 1 << 16),
        (262, 3, 1, 2 << 16), (273, 4, 1, 8), (277, 3, 1, 3 << 16), (278, 3, 1, height << 16), (279, 4, 1, len(pixels)),
    ]  # fmt: skip
    directory = struct.pack(">H", len(entries)) + b"".join(struct.pack(">HHII", *entry) for entry in entries)
    extra = struct.pack(">3H", 16, 16, 16)
    return b"MM\0*" + struct.pack(">I", 8 + len(pixels) + len(extra)) + pixels + extra + directory + bytes(4)


def test_interlaced_16_bit_colour_and_transparency_are_kept() -> None:
    """The seven passes of Adam7 by hand, for 8 x 8 pixels; alpha of 16 bits is laid over 65535."""
    values = RNG.integers(0, 65536, (8, 8, 4)).astype(np.uint16)
    rows = b""
    for top, left, down, right in (
        (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1),
    ):  # fmt: skip
        rows += b"".join(b"\0" + row.astype(">u2").tobytes() for row in values[top::down, left::right])
    content = png(8, 8, 16, 6, rows, interlace=1)
    opacity = values[..., 3:] / 65535
    expected = np.rint(values[..., :3] * opacity + 65535 * (1 - opacity)).transpose(2, 0, 1)
    image = decode(content, "a", "RGB")
    assert image.transparent
    assert np.array_equal(image.values, expected)
    with pytest.raises(ImageError, match="transparent"):
        decode(content, "a")


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.int32, np.int8])
def test_signs_and_fractions_are_kept(tmp_path: Path, dtype: type) -> None:
    values = (
        (RNG.normal(0, 40, (7, 5)) * (1 if dtype == np.int8 else 100))
        .clip(-120 if dtype == np.int8 else -9e9)
        .astype(dtype)
    )
    assert cv2.imwrite(str(tmp_path / "a.tif"), values)
    np.save(tmp_path / "a.npy", values)
    for name in ("a.tif", "a.npy"):
        array = load_image(tmp_path / name)
        assert array.dtype == np.float32
        assert np.array_equal(array[0], values)


def test_arrays_that_are_no_images_are_named(tmp_path: Path) -> None:
    for name, array, message in (
        ("nan", np.array([[np.nan, 1]]), "NaN or infinite"),
        ("large", np.array([[2**24 + 1, 1]]), r"beyond 2\*\*24"),
        ("vector", np.zeros(4), r"has the shape \(4,\)"),
        ("words", np.array([["a"]]), "values of the type"),
        ("objects", np.array([[{}]], object), "not an array that can be read"),
    ):
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises(ImageError, match=rf"{name}\.npy: .*{message}"):
            load_image(tmp_path / f"{name}.npy")
    np.save(tmp_path / "bytes.npy", RGB)
    assert np.array_equal(load_image(tmp_path / "bytes.npy"), RGB.transpose(2, 0, 1))
    np.save(tmp_path / "bands.npy", np.ones((6, 7, 5), np.uint8))
    assert load_image(tmp_path / "bands.npy").shape == (6, 7, 5)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_or_ignored(kind: str, orientation: int) -> None:
    """Pillow's exif_transpose is the reference; without it the pixels are those that were saved."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image = Image.fromarray(np.repeat(np.repeat(RGB, 16, 0), 16, 1))
    image.save(buffer, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    content = buffer.getvalue()
    applied, ignored = decode(content, "a"), decode(content, "a", exif="ignore")
    plain = io.BytesIO()
    image.save(plain, kind, **({"lossless": True} if kind == "WEBP" else {}))
    stored = Image.open(plain)
    assert np.array_equal(ignored.values, np.asarray(stored).transpose(2, 0, 1))
    stored.getexif()[0x0112] = orientation
    assert np.array_equal(applied.values, np.asarray(ImageOps.exif_transpose(stored)).transpose(2, 0, 1))
    assert (applied.oriented, ignored.oriented) == (orientation != 1, False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"just a text\n", "is not an image"),
        (b"\x89PNG\r\n\x1a\n", "damaged or truncated|is not an image"),
        (b"GIF89a" + bytes(50), "is not an image"),
    ],
)
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=rf"a\.png: ({message})"):
        load_image(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no\.png: cannot be read: No such file"):
        load_image(tmp_path / "no.png")
    with pytest.raises(ImageError, match=r"cannot be read: Is a directory"):
        load_image(tmp_path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "PPM"])
def test_truncated_files_raise_typed_errors(kind: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.tile(RGB, (8, 8, 1))).save(buffer, kind)
    data = buffer.getvalue()
    whole = decode_image(data, "a")
    for length in range(0, len(data) - 64, 37):
        with pytest.raises(ImageError, match=r"^a: "):
            decode_image(data[:length], "a")
    assert np.array_equal(decode_image(data, "a"), whole)


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "BMP", "PPM"]),
    flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6),
    channels=st.sampled_from(["none", "L", "RGB", "any"]),
)
def test_damaged_files_decode_or_raise_typed_errors(kind: str, flips: list[tuple[int, int]], channels: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, kind)
    data = bytearray(buffer.getvalue())
    for position, value in flips:
        data[position % len(data)] = value
    try:
        array = decode_image(bytes(data), "a", channels)
    except ImageError:
        return
    assert array.dtype == np.uint8
    assert array.shape[0] in (1, 3)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    colour=st.booleans(),
    level=st.integers(0, 9),
    seed=st.integers(0, 99),
)
def test_the_fast_png_way_gives_what_pillow_gives(height: int, width: int, colour: bool, level: int, seed: int) -> None:
    shape = (height, width, 3) if colour else (height, width)
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 5, shape, np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=level)
    plain = open_plain_png(buffer.getvalue())
    assert plain is not None
    assert plain.mode == image.mode
    assert plain.tobytes() == image.tobytes()


def test_the_fast_png_way_leaves_all_but_plain_files_to_pillow() -> None:
    image = Image.fromarray(GREY)
    for options in ({"dpi": (72, 72)}, {"transparency": 3}, {"icc_profile": b"x"}):
        buffer = io.BytesIO()
        image.save(buffer, "PNG", **options)
        assert open_plain_png(buffer.getvalue()) is None
        assert np.array_equal(decode_image(buffer.getvalue(), "a")[0], GREY)
    good = png(5, 7, 8, 0, b"".join(b"\0" + row.tobytes() for row in GREY))
    assert open_plain_png(good) is not None
    assert open_plain_png(good[:-1]) is None
    assert open_plain_png(good.replace(b"IDAT", b"IDAX")) is None


def test_encoding_and_decoding_png_loses_nothing() -> None:
    for array in (GREY[np.newaxis], np.ascontiguousarray(RGB.transpose(2, 0, 1))):
        assert np.array_equal(decode_image(encode_image(array, "png"), "a"), array)
        assert decode_image(encode_image(array, "jpg"), "a").shape == array.shape


def test_clip_cuts_off_and_normalize_stretches() -> None:
    values = np.array([[[-10.0, 0.4, 0.6, 254.5, 300.0, np.nan]]], np.float32)
    assert np.asarray(to_image(values))[0].tolist() == [0, 0, 1, 254, 255, 0]
    stretched = to_image(np.array([[[-1.0, 0.0, 1.0]]], np.float32), "normalize")
    assert np.asarray(stretched)[0].tolist() == [0, 128, 255]
    assert np.asarray(to_image(np.full((1, 2, 2), 7.0, np.float32), "normalize")).tolist() == [[0, 0], [0, 0]]
    assert np.asarray(to_image(np.array([[[np.inf, 0, 10, -np.inf]]]), "normalize"))[0].tolist() == [255, 0, 255, 0]
    colour = np.zeros((3, 2, 2), np.float32)
    colour[0] = 255
    assert to_image(colour).getpixel((0, 0)) == (255, 0, 0)
    with pytest.raises(SettingsError, match="clip or normalize"):
        to_image(values, "cut")
    with pytest.raises(ImageError, match="one or three channels"):
        to_image(np.zeros((2, 4, 4)))


def test_saving_names_the_file_that_cannot_be_written(tmp_path: Path) -> None:
    image = Image.fromarray(GREY)
    assert save_image(image, tmp_path / "a.png") == tmp_path / "a.png"
    for name in ("no/such/folder.png", "a.nonsense", "a.psd", "a.qoi"):
        with pytest.raises(ImageError, match=f"{name}: cannot be written"):
            save_image(image, tmp_path / name)


def bomb(path: Path, side: int = 13_000) -> Path:
    """A PNG of 1-bit pixels that are all 0: a few kilobytes."""
    Image.new("1", (side, side)).save(path)
    return path


def test_an_image_of_too_many_pixels_is_refused_from_its_header(tmp_path: Path) -> None:
    path = bomb(tmp_path / "a.png")
    assert path.stat().st_size < 200_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError) as error:
        load_image(path, "RGB")
    assert str(path) in str(error.value) and "13000x13000 pixels, more than max_pixels=67108864" in str(error.value)
    assert "allow it by max_pixels=169000000" in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif", "a.webp", "a.ppm"])
def test_the_limit_of_pixels_holds_for_each_format(name: str, tmp_path: Path) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / name)
    assert load_image(tmp_path / name, max_pixels=200).shape == (3, 10, 20)
    with pytest.raises(ImageError, match=r"20x10 pixels, more than max_pixels=199; shrink it, or allow"):
        load_image(tmp_path / name, max_pixels=199)


def test_a_tiff_of_very_many_tags_is_refused_at_once(tmp_path: Path) -> None:
    Image.new("L", (20, 10)).save(tmp_path / "a.tif")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    start = int.from_bytes(data[4:8], "little")
    data[start : start + 2] = b"\xff\xff"
    (tmp_path / "a.tif").write_bytes(bytes(data) + bytes(12 * 65535))
    with pytest.raises(ImageError, match=r"a\.tif: is damaged .*its directory has 65535 entries"):
        load_image(tmp_path / "a.tif")
