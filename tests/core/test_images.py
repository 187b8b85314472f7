from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from multiseg.errors import ImageError, SettingsError
from multiseg.images import decode_image, encode_image, load_image, open_plain_png, save_image, to_image

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
        "grey-alpha.png": (Image.fromarray(GREY).convert("LA"), "transparent"),
        "bit.png": (Image.fromarray(GREY).convert("1"), "1-bit"),
        "cmyk.jpg": (Image.fromarray(RGB).convert("CMYK"), "CMYK"),
        "deep.png": (Image.fromarray(GREY.astype(np.uint16) * 257), "16-bit"),
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


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG file by hand, from the specification."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")


def test_16_bits_keep_their_high_byte(tmp_path: Path) -> None:
    values = np.array([[0, 255, 256, 65535]], np.uint16)
    grey = saved(Image.fromarray(values), tmp_path / "a.png")
    assert load_image(grey, "L")[0, 0].tolist() == [0, 0, 1, 255]
    colour = tmp_path / "b.png"
    colour.write_bytes(png(1, 1, 16, 2, b"\0" + struct.pack(">3H", 0x1234, 0xFFFF, 0x00FF)))
    with pytest.raises(ImageError, match="16-bit"):
        load_image(colour)
    assert load_image(colour, "RGB").ravel().tolist() == [0x12, 0xFF, 0x00]
    deep = tmp_path / "c.ppm"
    deep.write_bytes(b"P6 1 1 65535\n" + struct.pack(">3H", 0, 65535, 32768))
    with pytest.raises(ImageError, match="16-bit"):
        load_image(deep)
    assert load_image(deep, "RGB").shape == (3, 1, 1)


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
    for name in ("no/such/folder.png", "a.nonsense"):
        with pytest.raises(ImageError, match=f"{name}: cannot be written"):
            save_image(image, tmp_path / name)
