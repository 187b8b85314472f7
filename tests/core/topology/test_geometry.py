"""Tiles of an image against the whole image, computed by float64 numpy from the layers' definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiseg.errors import ModelError, SettingsError
from multiseg.topology import Topology
from multiseg.topology.geometry import Geometry, NotLocal

Array = npt.NDArray[np.float64]


def conv(kernel: int, stride: int = 1, pad: int = 0, dilation: int = 1) -> tuple[str, dict[str, Any]]:
    return "Conv", {"num_output": 1, "kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4,
                    "dilations": [dilation] * 2}  # fmt: skip


def deconv(kernel: int, stride: int, pad: int = 0) -> tuple[str, dict[str, Any]]:
    return "ConvTranspose", {"num_output": 1, "kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}


def pool(kernel: int, stride: int, pad: int = 0, ceil_mode: bool = False) -> tuple[str, dict[str, Any]]:
    return "MaxPool", {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4, "ceil_mode": ceil_mode}


CROP = ("Crop", {"axis": 2, "offset": [0]})  # to the size of the image
FCN = [conv(3, 1, 1), ("Relu", {}), conv(16, 16), ("Relu", {}), deconv(16, 16)]


def topology(layers: list[tuple[str, dict[str, Any]]], size: int = 32) -> Topology:
    nodes, before = [], "data"
    for number, (kind, parameters) in enumerate(layers):
        inputs = [before, "data"] if kind == "Crop" else [before]
        nodes.append({"name": f"layer{number}", "type": kind, "inputs": inputs, "parameters": parameters})
        before = f"layer{number}"
    return Topology.of(
        "net", "test", {"input": "data", "input_shape": [1, size, size], "layers": nodes, "outputs": [before]}
    )


def run(layers: list[tuple[str, dict[str, Any]]], image: Array) -> Array:
    """What the network makes of an image (H, W), each layer with kernels drawn from a seed of its own."""
    x = image
    for number, (kind, p) in enumerate(layers):
        if kind == "Relu":
            x = np.maximum(x, 0)
            continue
        if kind == "Crop":
            x = x[: image.shape[0], : image.shape[1]]
            continue
        (k, _), (s, _), pad = p["kernel_shape"], p["strides"], p["pads"][0]
        weight = np.random.default_rng(number).standard_normal((k, k))
        if kind == "ConvTranspose":
            y = np.zeros(((x.shape[0] - 1) * s + k, (x.shape[1] - 1) * s + k))
            for i, j in np.ndindex(*x.shape):
                y[i * s : i * s + k, j * s : j * s + k] += x[i, j] * weight
            x = y[pad : y.shape[0] - pad, pad : y.shape[1] - pad]
            continue
        d = p.get("dilations", [1])[0]
        reach = (k - 1) * d + 1
        more = [(0, -(n - reach) % s if p.get("ceil_mode") else 0) for n in x.shape]  # rounds sizes up
        x = np.pad(np.pad(x, pad, constant_values=0 if kind == "Conv" else -np.inf), more, constant_values=-np.inf)
        windows = np.lib.stride_tricks.sliding_window_view(x, (reach, reach))[::s, ::s, ::d, ::d]
        x = (windows * weight).sum(axis=(2, 3)) if kind == "Conv" else windows.max(axis=(2, 3))
    return x


def tiled(layers: list[tuple[str, dict[str, Any]]], image: Array, side: int) -> Array:
    made = np.full(image.shape, np.nan)
    for rows, columns in Geometry.of(topology(layers)).tiles(*image.shape, side):
        out = run(layers, image[rows.start : rows.stop, columns.start : columns.stop])
        assert max(rows.stop - rows.start, columns.stop - columns.start) <= side
        made[rows.keep_start : rows.keep_stop, columns.keep_start : columns.keep_stop] = out[
            rows.keep_start - rows.start : rows.keep_stop - rows.start,
            columns.keep_start - columns.start : columns.keep_stop - columns.start,
        ]
    return made


NETWORKS = {
    "fcn": FCN,
    "same": [conv(5, 1, 2), ("Relu", {}), conv(3, 1, 2, 2)],
    "overlapping deconvolution": [conv(4, 2, 1), conv(3, 1, 1), deconv(4, 2, 1)],
    "pooling": [conv(3, 1, 1), pool(2, 2), conv(3, 1, 1), pool(3, 2, 1), deconv(8, 4, 2)],
    "no overlap at all": [conv(8, 8), deconv(8, 8)],
}


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 9), columns=st.integers(1, 9), side=st.integers(48, 96), seed=st.integers(0, 99))
def test_tiles_give_what_the_whole_image_gives(name: str, rows: int, columns: int, side: int, seed: int) -> None:
    layers = NETWORKS[name]
    image = np.random.default_rng(seed).standard_normal((16 * rows, 16 * columns))
    assert tiled(layers, image, side) == pytest.approx(run(layers, image), rel=1e-12, abs=1e-9)


POOL = pool(2, 2, ceil_mode=True)
ROUNDED = [conv(3, 1, 1), POOL, conv(3, 1, 1), POOL, deconv(4, 4), CROP, conv(3, 1, 1)]


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70), side=st.integers(24, 40), seed=st.integers(0, 99))
def test_tiles_of_an_image_whose_sides_are_no_multiples_of_the_stride(
    height: int, width: int, side: int, seed: int
) -> None:
    """Pooling rounds sizes up, and the crop removes what is too much, as in the U-Net."""
    image = np.random.default_rng(seed).standard_normal((height, width))
    assert tiled(ROUNDED, image, side) == pytest.approx(run(ROUNDED, image), rel=1e-12, abs=1e-9)


def test_the_last_tile_starts_at_a_multiple_of_the_stride() -> None:
    rows = [row for row, _ in Geometry.of(topology(ROUNDED)).tiles(75, 8, 32)]
    assert [(cut.start, cut.stop) for cut in rows] == [(0, 32), (20, 52), (40, 72), (44, 75)]
    # an image of at most the tile's size is one tile
    assert [row.stop for row, _ in Geometry.of(topology(ROUNDED)).tiles(75, 75, 75)] == [75]


def test_a_tile_as_large_as_the_image_is_the_image() -> None:
    (only,) = Geometry.of(topology(FCN)).tiles(64, 96, 100)
    assert [(cut.start, cut.stop, cut.keep_start, cut.keep_stop) for cut in only] == [(0, 64, 0, 64), (0, 96, 0, 96)]


def test_the_fcn_needs_16_pixels_around() -> None:
    rows = sorted({row for row, _ in Geometry.of(topology(FCN)).tiles(320, 64, 64)}, key=lambda cut: cut.start)
    # of 64 pixels, a block of 16 on each side sees the tile's border
    assert [(cut.start, cut.keep_start) for cut in rows][:3] == [(0, 0), (32, 48), (64, 80)]
    assert rows[-1].stop == rows[-1].keep_stop == 320
    with pytest.raises(SettingsError, match="tile=40: must be at least 48"):
        list(Geometry.of(topology(FCN)).tiles(320, 320, 40))
    with pytest.raises(SettingsError, match="tile=9: must be at least 16"):
        list(Geometry.of(topology(FCN)).tiles(320, 320, 9))


def test_sizes_that_are_kept() -> None:
    geometry = Geometry.of(topology(FCN))
    assert geometry.strides == (16, 16)
    assert geometry.keeps(320, 160) and not geometry.keeps(320, 150)
    assert geometry.padded(30, 150) == (32, 160) and geometry.padded(48, 48) == (48, 48)
    with pytest.raises(ModelError, match=r"10x10 pixels: layer 'layer2' has a 16x16 kernel"):
        geometry.output_size(10, 10)
    with pytest.raises(ModelError, match="preserves the size of no image"):
        Geometry.of(topology([conv(3)])).padded(64, 64)


@pytest.mark.parametrize(
    "layer",
    [
        ("GlobalAveragePool", {}),
        ("Flatten", {}),
        ("Softmax", {"axis": 2}),
        ("Resize", {"mode": "linear", "sizes": [32, 32]}),
        ("Transpose", {"perm": [0, 1, 3, 2]}),
    ],
)
def test_a_layer_that_sees_the_whole_image_is_refused(layer: tuple[str, dict[str, Any]]) -> None:
    with pytest.raises(NotLocal, match="layer1"):
        Geometry.of(topology([conv(3, 1, 1), layer]))


def test_padding_that_depends_on_the_image_is_refused() -> None:
    """TensorFlow's SAME at stride 4 with kernel 3 pads by 0 or 1, as the size is a multiple of the stride or is not."""
    layers = [("Conv", {**conv(3, 4)[1], "auto_pad": "SAME_UPPER"}), deconv(4, 4)]
    geometry = Geometry.of(topology(layers))
    assert list(geometry.tiles(64, 64, 32))
    with pytest.raises(NotLocal, match="by the image's size"):
        list(geometry.tiles(65, 65, 32))


def test_branches_of_different_reach_join() -> None:
    nodes = [
        {"name": "near", "type": "Identity", "inputs": ["data"]},
        {"name": "far", "type": conv(9, 1, 4)[0], "inputs": ["data"], "parameters": conv(9, 1, 4)[1]},
        {"name": "sum", "type": "Sum", "inputs": ["near", "far"]},
    ]
    described = {"input": "data", "input_shape": [1, 32, 32], "layers": nodes, "outputs": ["sum"]}
    rows = [row for row, _ in Geometry.of(Topology.of("net", "test", described)).tiles(40, 8, 20)]
    assert [(cut.start, cut.keep_start, cut.keep_stop) for cut in rows] == [(0, 0, 16), (12, 16, 28), (20, 28, 40)]
