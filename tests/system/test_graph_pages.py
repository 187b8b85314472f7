"""The pages with the drawing of a network in a real browser, without network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from helpers.networks import fcn, topology
from helpers.parities import deep, result

VIEWS = pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])


def opened(browser: Browser, path: Path, width: int, scheme: Any) -> tuple[Page, list[str]]:
    """A page, opened from disk, and the list of whatever it complains of."""
    complaints: list[str] = []
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    page.set_default_timeout(20_000)
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.goto(path.as_uri())
    return page, complaints


@VIEWS
def test_the_differences_of_two_networks(browser: Browser, tmp_path: Path, width: int, scheme: str) -> None:
    """Choosing boxes by click, key and button shows their parameters, at both widths."""
    names = [f'<img src="x" onerror="alert({number})">' for number in range(2)]
    nodes = [topology(fcn(stride), name, (1, 32, 32)) for stride, name in zip((16, 8), names, strict=True)]
    path = nodes[0].diff(nodes[1]).to_html(tmp_path / "diff.html")
    page, complaints = opened(browser, path, width, scheme)
    assert page.evaluate("scrollY") == 0
    assert page.evaluate("document.documentElement.scrollWidth") == width
    detail = page.locator(".graph-detail:visible")
    assert detail.count() == 1
    assert detail.locator("h3").inner_text() == "conv2: changed"  # the first difference
    assert detail.locator(".differs td").all_inner_texts() == ["16", "8"]
    page.locator(".graph-drawing a", has_text="deconv").click()
    assert detail.locator("h3").inner_text() == "deconv: same"
    page.locator(".graph-drawing a").first.focus()
    page.keyboard.press("Enter")
    assert detail.locator("h3").all_inner_texts() == ["conv1: same", "relu1: same"]
    page.get_by_role("button", name="Next difference").click()
    assert detail.locator("h3").inner_text() == "conv2: changed"
    assert page.url.endswith("#layer-2")
    page.close()
    assert complaints == []


@VIEWS
def test_the_rows_of_a_parity_check(browser: Browser, tmp_path: Path, width: int, scheme: str) -> None:
    """The first layer beyond its bound is chosen; others show their rows with histogram and pictures."""
    path = result(deep(3, "<i>"), {"<i>conv1": 3.0, "<i>tanh2": float("nan")}).to_html(tmp_path / "parity.html")
    page, complaints = opened(browser, path, width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    detail = page.locator(".graph-detail:visible")
    assert detail.locator("h3").inner_text() == "<i>conv1: Conv"
    assert detail.locator("h4").first.inner_text().endswith("3 times")
    assert "Worst element [1, 2, 11, 7]" in detail.inner_text()
    sizes = detail.locator("img").evaluate_all("images => images.map(each => [each.naturalWidth, each.width > 40])")
    assert sizes == [[24, True]] * 9
    page.get_by_role("button", name="Next difference").click()
    assert detail.locator("h3").inner_text() == "<i>tanh2: Tanh"
    assert "is not finite: NaN in 1 of" in detail.inner_text()
    page.close()
    assert complaints == []
