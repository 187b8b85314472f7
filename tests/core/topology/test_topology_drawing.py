"""The topology drawn: what is in the picture, and that it can be read."""

from __future__ import annotations

import io
from itertools import combinations, pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from PIL import Image

from helpers.networks import Node, fcn, layer, random_network, seeds, topology
from multiseg.errors import SettingsError
from multiseg.topology import words
from multiseg.topology.blocks import blocks
from multiseg.topology.drawing import picture, to_html
from multiseg.topology.picture import Arrow, Box, Text
from multiseg.topology.placement import place


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_the_tutorials_network_is_drawn_with_all_that_is_in_it() -> None:
    found = texts(picture(topology(fcn(), shape=(1, 32, 32))).to_svg())
    assert found == [
        *("data", "input", "1x32x32"),
        *("conv1", "Conv 32 filters 3x3, pad 1", "relu1: Relu", "32x32x32"),
        *("conv2", "Conv 1024 filters 16x16, stride 16", "relu2: Relu", "1024x2x2"),
        *("deconv", "ConvTranspose 1 filter 16x16, stride 16", "1x32x32"),
    ]


def test_an_activation_that_others_read_past_has_a_box_of_its_own() -> None:
    layers = [
        layer("conv", "Conv", "data", num_output=3, kernel_shape=[1, 1]),
        layer("relu", "Relu", "conv"),
        layer("tanh", "Tanh", "conv"),
        layer("sum", "Sum", "relu", "tanh"),
        layer("prob", "Softmax", "sum", axis=1),
    ]
    boxes = [[each.name for each in block.layers] for block in blocks(topology(layers))]
    assert boxes == [[], ["conv"], ["relu"], ["tanh"], ["sum", "prob"]]


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_no_box_lies_on_another_and_lines_go_down_around_them(seed: int) -> None:
    net = topology(random_network(seed, most=25))
    boxes = blocks(net)
    sizes = {block: (80.0 + 10 * (len(block.layers[0].name) if block.layers else 0), 50.0) for block in boxes}
    placed = place(boxes, {block: block.reads for block in boxes}, sizes)
    frames = {}
    for block, (x, y) in placed.places.items():
        width, height = sizes[block]
        frames[block] = (x - width / 2, y, x + width / 2, y + height)
        assert frames[block][0] >= -1e-6 and frames[block][2] <= placed.width + 1e-6
        assert y >= 0 and y + height <= placed.height + 1e-6
    for one, other in combinations(frames.values(), 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    assert len(placed.lines) == sum(len(block.reads) for block in boxes)
    for (source, target), points in placed.lines.items():
        assert points[0][1] == pytest.approx(frames[source][3])
        assert points[-1][1] == pytest.approx(frames[target][1])
        for start, end in pairwise(points):
            assert start[1] < end[1]
            if start[0] == end[0]:  # a straight piece beside a row of boxes
                inside = [f for f in frames.values() if f[0] < start[0] < f[2] and start[1] < f[3] and f[1] < end[1]]
                assert not inside


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_texts_lie_within_the_picture_and_every_layer_is_named(seed: int) -> None:
    net = topology(random_network(seed))
    drawn = picture(net)
    shapes = [shape for group in drawn.groups for shape in group.shapes]
    said = " ".join(shape.text for shape in shapes if isinstance(shape, Text))
    assert all(each.name in said for each in net.layers)
    for shape in shapes:
        if isinstance(shape, Box):
            assert shape.x >= 0 and shape.x + shape.width <= drawn.width
            assert shape.y >= 0 and shape.y + shape.height <= drawn.height
        elif isinstance(shape, Arrow):
            assert all(0 <= x <= drawn.width and 0 <= y <= drawn.height for x, y in shape.points)


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_everything_shows_on_white_and_on_black() -> None:
    from multiseg.topology import drawing

    def contrast(one: float, other: float) -> float:
        return (max(one, other) + 0.05) / (min(one, other) + 0.05)

    for background in (0.0, 1.0):
        assert contrast(luminance(drawing.GREY), background) > 3  # WCAG 2, 1.4.11: graphics
    for fill in {*drawing.FILLS.values(), drawing.OTHER_FILL, drawing.PAPER}:
        assert contrast(luminance(drawing.INK), luminance(fill)) > 7  # 1.4.6: texts


def test_names_are_text_whatever_is_in_them() -> None:
    layers = [layer('</svg><script>alert("x")</script>&', "Relu", "data")]
    net = topology(layers, "<b>.prototxt")
    assert layers[0]["name"] in texts(picture(net).to_svg())
    assert "<script" not in to_html(net)
    assert "<b>" not in to_html(net)


def test_the_page_needs_nothing_else_and_has_a_row_for_each_layer() -> None:
    net = topology(fcn(), shape=(1, 32, 32), loss="L1")
    page = to_html(net)
    assert "src=" not in page and "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert page.count('<th scope="row">') == len(net.layers)
    assert "8,652,097" in page and "33,554,432" in page


def test_a_png_is_twice_as_large_and_transparent() -> None:
    drawn = picture(topology(fcn(), shape=(1, 32, 32)))
    image = Image.open(io.BytesIO(drawn.to_png()))
    assert image.mode == "RGBA"
    assert abs(image.width - 2 * drawn.width) <= 1 and abs(image.height - 2 * drawn.height) <= 1
    assert image.getpixel((1, 1))[3] == 0
    box = next(
        shape for group in drawn.groups for shape in group.shapes if isinstance(shape, Box) and shape.fill == "#b9d5f6"
    )
    assert image.getpixel((round(2 * box.x) + 12, round(2 * box.y) + 8)) == (0xB9, 0xD5, 0xF6, 255)


@pytest.mark.parametrize("name", ["net.svg", "net.png", "net.HTML"])
def test_a_drawing_replaces_a_file_whole(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("old")
    topology(fcn(), shape=(1, 32, 32)).to_svg(tmp_path / name)
    assert (tmp_path / name).stat().st_size > 1000
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"net\.pdf: a topology is drawn as \.svg, \.png or \.html"):
        topology(fcn(), shape=(1, 32, 32)).to_svg(tmp_path / "net.pdf")
    assert not list(tmp_path.iterdir())


def test_parameters_in_words() -> None:
    def said(type: str, **parameters: object) -> str:
        net = topology([layer("x", type, "data", **parameters)], shape=(4, 8, 8))
        return words.parameters(net.layers[0])

    conv = {"num_output": 8, "kernel_shape": [3, 3]}
    assert said("Conv", **conv) == "8 filters 3x3"
    assert said("Conv", **conv, strides=[2, 2], pads=[1] * 4, group=2, bias_term=False) == (
        "8 filters 3x3, stride 2, pad 1, groups 2, no bias"
    )
    assert said("Conv", **conv, strides=[2, 1], auto_pad="SAME_UPPER") == "8 filters 3x3, stride 2x1, pad SAME"
    assert said("MaxPool", kernel_shape=[3, 2], pads=[0, 0, 1, 1], ceil_mode=True) == (
        "3x2, pad (top 0, left 0, bottom 1, right 1), rounding up"
    )
    assert said("Dropout", ratio=0.5) == "ratio 0.5"
    assert said("Relu") == ""


def test_a_thousand_layers_are_drawn() -> None:
    layers: list[Node] = [layer("r0", "MaxPool", "data", kernel_shape=[1, 1])]
    layers += [layer(f"r{i}", "MaxPool", f"r{i - 1}", kernel_shape=[1, 1]) for i in range(1, 1000)]
    assert len(texts(picture(topology(layers)).to_svg())) == 3 * 1001


def test_a_png_is_drawn_in_strips_and_has_a_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    from multiseg.topology import picture

    box, text = picture.Box(5, 5, 60, 90, "#ddeeff", "#333333"), picture.Text(35, 50, "conv1", 12, "#000000")
    drawn = picture.Picture(70, 120, [picture.Group("a", (box, text, picture.Arrow(((35, 2), (35, 110)), "#884444")))])
    whole = Image.open(io.BytesIO(drawn.to_png()))
    monkeypatch.setattr(picture, "ROWS", 16)
    strips = Image.open(io.BytesIO(drawn.to_png()))
    assert whole.size == strips.size == (140, 240) and whole.tobytes() == strips.tobytes()
    assert Image.open(io.BytesIO(drawn.to_png(0.5))).size == (35, 60)
    monkeypatch.setattr(picture, "PIXELS", 70 * 120)
    assert Image.open(io.BytesIO(drawn.to_png())).size == (70, 120)
