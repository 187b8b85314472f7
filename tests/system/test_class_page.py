"""The comparison page of runs that score classes of pixels, in Debian's Chromium, headless and without network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page

import multiseg

NET = """
layer { name: "data" type: "Data" top: "data" exclude { stage: "deploy" } }
layer { name: "label" type: "Data" top: "label" exclude { stage: "deploy" } }
layer { name: "data" type: "Input" top: "data" include { stage: "deploy" }
        input_param { shape { dim: 1 dim: 3 dim: 32 dim: 48 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 21 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "conv" bottom: "label" top: "loss" exclude { stage: "deploy" } }
"""
NAMES = ["background", *(f"class number {index}" for index in range(1, 21))]


@pytest.fixture(scope="module")
def page_file(lent_workers: None, backends: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two trainings with 21 classes."""
    folder, draw = tmp_path_factory.mktemp("classes"), np.random.default_rng(8)
    for name in ("input", "target"):
        (folder / name).mkdir()
    for number in range(12):
        mask = np.kron(draw.integers(0, 21, (4, 6)), np.ones((8, 8))).astype(np.uint8)
        image = (mask[..., None] * np.array([12, 7, 3]) + draw.integers(0, 9, (32, 48, 3))).astype(np.uint8)
        Image.fromarray(mask).save(folder / "target" / f"{number}.png")
        Image.fromarray(image).save(folder / "input" / f"{number}.png")
    dataset = multiseg.Dataset.create(
        folder / "dataset", input=folder / "input", target=folder / "target", val_percent=50, seed=1, labels="classes",
        classes=NAMES,
    )  # fmt: skip
    (folder / "net.prototxt").write_text(NET)
    runs = [
        multiseg.Job(
            dataset=dataset, backend=backends[-seed], model=folder / "net.prototxt", epochs=2, batch_size=3,
            learning_rate=1e-5, seed=seed,
        ).train(folder / f"run{seed}", progress=False)
        for seed in range(2)
    ]  # fmt: skip
    return multiseg.compare(runs, images=4).to_html(folder / "page.html")


@pytest.fixture(params=[1280, 390])
def page(browser: Browser, page_file: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page, opened from disk; whatever it complains of or asks the network for fails the test that opened it."""
    complaints: list[str] = []
    opened = browser.new_page(viewport={"width": request.param, "height": 900}, offline=True)
    opened.set_default_timeout(10_000)
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda request: complaints.append(request.url) if request.url[:5] != "data:" else None)
    opened.goto(page_file.as_uri())
    yield opened
    opened.close()
    # the hint is about the tests, which read canvases of the page
    assert [text for text in complaints if "willReadFrequently" not in text] == [page_file.as_uri()]


def pixels(canvas: Locator) -> list[int]:
    canvas.scroll_into_view_if_needed()
    painted = "canvas => canvas.getContext('2d').getImageData(0, 0, 1, 1).data[3] > 0"
    canvas.page.wait_for_function(painted, arg=canvas.element_handle())
    values: list[int] = canvas.evaluate(
        "canvas => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"
    )
    return values


def test_the_confusion_matrix_shows_percent_and_pixels(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") == page.viewport_size["width"]
    cells = page.locator("#confusion tbody tr:first-of-type td")
    assert cells.count() == 22  # and the number of labels
    shares = [int(text or 0) for text in cells.all_inner_texts()[:-1]]
    assert 90 <= sum(shares) <= 110
    page.locator("#confusion-controls").get_by_label("pixels").check()
    total = int(cells.last.inner_text().replace(",", ""))
    title = cells.first.get_attribute("title") or ""
    assert title.startswith("background predicted as background: ") and total > 0
    page.locator("#confusion-controls").get_by_role("radio").nth(1).check()
    assert page.locator("#confusion tbody tr").count() == 21


def test_the_class_table_sorts_and_keeps_its_mean(page: Page) -> None:
    page.locator("#class-table thead button").nth(1).click()
    cells = page.locator("#class-table tbody td:nth-child(2)").all_inner_texts()
    counts = [int(text.split()[0].replace(",", "")) for text in cells]
    assert counts == sorted(counts, reverse=True) and len(counts) == 21
    assert page.locator("#class-table tfoot tr").inner_text().startswith("Mean")


def test_opacity_outline_and_legend_change_the_overlays(page: Page) -> None:
    target = page.locator("canvas[data-kind=target]").first
    image = pixels(page.locator("canvas[data-kind=input]").first)
    half = pixels(target)
    assert half != image
    page.locator("#outline").fill("0")
    page.locator("#opacity").fill("0")
    page.wait_for_timeout(300)
    assert pixels(target) == image
    page.locator("#opacity").fill("1")
    page.wait_for_timeout(300)
    everything = pixels(target)
    page.locator("#legend button").first.click()
    page.wait_for_timeout(300)
    single = pixels(target)
    changed = [at for at in range(0, len(image), 4) if single[at : at + 4] != image[at : at + 4]]
    assert all(single[at : at + 4] == everything[at : at + 4] for at in changed)
    assert single != everything


def test_pictures_are_enlarged_with_their_classes(page: Page) -> None:
    canvas = page.locator("canvas[data-kind=run]").first
    assert any(pixels(canvas))
    canvas.click()
    viewer = page.locator("#viewer")
    assert viewer.is_visible() and "classes of" in viewer.locator("p").inner_text()
    assert viewer.locator("img").evaluate("image => image.naturalWidth") == 48
    page.keyboard.press("ArrowRight")
    assert "wrong pixels of" in viewer.locator("p").inner_text()


def test_curves_of_every_class_are_drawn(page: Page) -> None:
    chart = page.locator("#class-curves .chart")
    assert chart.locator(".u-legend .u-series").count() == 22  # and the epoch
    page.locator("#class-curve-runs").get_by_role("radio").nth(1).check()
    assert chart.count() == 1
