"""The page of a parity check: the drawing, and the details of each layer."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.parities import SIDES, deep, result
from multiseg.parity.graph import LEVELS, NOT_FINITE, graph
from multiseg.topology import drawing


def test_layers_have_the_colour_of_their_largest_share_and_their_rows() -> None:
    shown = graph(result(deep(2), {"conv0": 3.0, "tanh1": float("nan")}))
    assert shown is not None
    conv0, tanh0, conv1, tanh1 = shown.layers
    assert [each.ok for each in shown.layers] == [False, True, True, False]
    fills = {
        each.layer.name: re.findall(r'fill="(#\w+)"', part)[0]
        for each in shown.layers
        for part in shown.svg.split("<a ")
        if part.startswith(f'href="#{each.anchor}"')
    }
    assert fills == {"conv0": LEVELS[4][1], "tanh0": LEVELS[2][1], "conv1": LEVELS[2][1], "tanh1": NOT_FINITE[0]}
    assert "3 times its bound" in shown.svg and "30 % of its bound" in shown.svg
    assert [each.row.side for each in conv0.details] == list(SIDES)
    assert {(row.stage, row.name) for row in conv0.others} == {
        (stage, f"conv0.{part}") for stage in ("gradient", "step") for part in ("weight", "bias")
    }
    assert not tanh0.others and not tanh1.details[0].row.ok and conv1.details[0].row.ok


def test_pictures_show_the_channel_of_the_worst_element() -> None:
    parity = result(deep(1), {"conv0": 3.0})
    shown = graph(parity)
    assert shown is not None
    detail = shown.layers[0].details[0]
    one, other, difference = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(each.uri.partition(",")[2])))) for each in detail.pictures
    )
    planes = detail.row.planes
    assert planes is not None and one.shape == (24, 24)
    low, high = planes.expected.min(), planes.expected.max()
    assert one == pytest.approx((planes.expected - low) / (high - low) * 255, abs=1.01)
    assert np.abs(one.astype(int) - other).max() <= 1
    assert np.unravel_index(difference.argmax(), difference.shape) == (11, 7) and difference.max() == 255
    assert (detail.pictures[0].left, detail.pictures[0].top) == (100 * 7.5 / 24, 100 * 11.5 / 24)


def test_the_page_of_30_layers_is_small_and_closed(tmp_path: Path) -> None:
    parity = result(deep(15, '<script>"&'))
    page = parity.to_html(tmp_path / "parity.html")
    text = page.read_text()
    assert page.stat().st_size < 1_000_000
    assert text.count("<img ") == 30 * len(SIDES) * 3
    assert text.count("<script") == 1 and "Content-Security-Policy" in text and "https:" not in text


def test_a_result_without_the_description_has_a_page_without_drawing(tmp_path: Path) -> None:
    parity = result(deep(1))
    parity.network = None
    assert (
        "graph-drawing"
        not in parity.to_html(tmp_path / "page.html").read_text().partition("</head>")[2].partition("<script")[0]
    )


def test_texts_on_the_colours_can_be_read() -> None:
    def luminance(colour: str) -> float:
        """Relative luminance as WCAG 2 defines it."""
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    for fill in [fill for _, fill, _ in LEVELS] + [NOT_FINITE[0]]:
        assert (luminance(fill) + 0.05) / (luminance(drawing.INK) + 0.05) > 7  # WCAG 2, 1.4.6
