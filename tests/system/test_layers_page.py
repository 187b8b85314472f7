"""The page of a network's layers in a real browser, without network."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

import multiseg


@pytest.fixture(scope="module")
def page_file(
    lent_workers: None, backends: list[str], dataset: multiseg.Dataset, images: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:  # fmt: skip
    folder = tmp_path_factory.mktemp("layers")
    with multiseg.Job(dataset=dataset, backend=backends[0], epochs=1).train(folder / "run", progress=False) as run:
        return run.layers(images / "grid.png", resize=False).to_html(folder / "layers.html")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_layer_and_parameter_is_seen(browser: Browser, page_file: Path, width: int, scheme: str) -> None:
    complaints: list[str] = []
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url) if request.url[:5] != "data:" else None)
    page.goto(page_file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == width, "scrolls sideways"
    layers = page.locator("#activations .layer")
    assert layers.count() == 5 and page.locator("#parameters .layer").count() == 6
    sizes = page.locator("img").evaluate_all("all => all.map(image => [image.naturalWidth, image.width, image.height])")
    assert all(natural > 0 and shown > 0 and height > 0 for natural, shown, height in sizes)
    first = layers.first
    assert "32 × 160 × 160" in first.inner_text()
    bars = first.locator("svg rect").evaluate_all("all => all.map(bar => bar.getBoundingClientRect().height)")
    assert len(bars) == 20 and max(bars) > 30
    page.close()
    assert complaints == [page_file.as_uri()]
