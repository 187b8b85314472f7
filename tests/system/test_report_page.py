"""The comparison page in a real browser: Debian's Chromium, headless, without network."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page

import multiseg
from helpers.nightly import nightly

WIDE, NARROW = 1280, 390


@pytest.fixture(scope="module")
def page_file(
    lent_workers: None, backends: list[str], dataset: multiseg.Dataset, images: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:  # fmt: skip
    """The page of real trainings: one for each backend under test, and a shorter one of the first."""
    folder = tmp_path_factory.mktemp("comparison")
    runs = [
        multiseg.Job(dataset=dataset, backend=backend, epochs=epochs, batch_size=36, seed=1).train(
            folder / name, progress=False
        )
        for name, backend, epochs in [*((name, name, 3) for name in backends), ("short", backends[0], 1)]
    ]
    return multiseg.compare(runs, images=8, grid=images / "grid.png").to_html(folder / "page.html")


VIEWS = list(itertools.product((WIDE, NARROW), ("light", "dark")))


@pytest.fixture(
    params=nightly(VIEWS, large=[(WIDE, "dark"), (NARROW, "light")]),
    ids=lambda seen: f"{seen[0]}-{seen[1]}",
)
def page(browser: Browser, page_file: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page, opened from disk; whatever it complains of or asks the network for fails the test that opened it."""
    width, scheme = request.param
    complaints: list[str] = []
    opened = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    opened.set_default_timeout(10_000)
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda request: complaints.append(request.url) if request.url[:5] != "data:" else None)
    opened.scheme = scheme  # type: ignore[attr-defined]
    opened.goto(page_file.as_uri())
    yield opened
    opened.close()
    assert complaints == [page_file.as_uri()]


def ink(chart: Locator) -> int:
    """How many pixels of a chart are drawn on."""
    return chart.locator("canvas").evaluate(
        """canvas => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data
                           .filter((_, at) => at % 4 === 3).reduce((sum, alpha) => sum + (alpha > 0), 0)"""
    )


def test_it_says_who_did_best_and_fits_the_screen(page: Page) -> None:
    assert "best" in page.locator("h1").inner_text() or "equal" in page.locator("h1").inner_text()
    for state in ("as opened", "with everything open"):
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width == page.viewport_size["width"], f"scrolls sideways, {state}"
        page.locator("details").first.evaluate("details => { details.open = true; }")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(252, 252, 250)" if page.scheme == "light" else "rgb(19, 19, 18)")


def test_curves_draw_zoom_and_show_values(page: Page) -> None:
    chart = page.locator("#metric-charts .chart").first
    assert ink(chart) > 500
    epoch = chart.locator(".u-legend .u-series:first-child .u-value")
    values = chart.locator(".u-legend .u-series:not(:first-child) .u-value")
    assert epoch.inner_text() == "3", "at rest, the last epoch"
    over = chart.locator(".u-over")
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    assert box
    page.mouse.move(box["x"] + 2, box["y"] + 20)
    assert epoch.inner_text() == "0"
    assert all(0 <= float(text) <= 1 for text in values.all_inner_texts())

    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 30, steps=4)
    page.mouse.up()
    assert chart.evaluate("chart => chart.plot.scales.x.max") == pytest.approx(1.5, abs=0.1)
    page.get_by_role("button", name="Reset zoom").click()
    assert chart.evaluate("chart => chart.plot.scales.x.max") == 3

    page.get_by_label("logarithmic").check()
    page.get_by_label("training time").check()
    loss = page.locator("#loss-charts .chart").first
    assert loss.evaluate("chart => chart.plot.scales.y.distr") == 3
    assert chart.evaluate("chart => chart.plot.scales.y.distr") == 1
    assert ink(chart) > 500 and ink(loss) > 500


def test_the_network_is_drawn_once_for_all_runs(page: Page) -> None:
    section = page.locator("#networks")
    assert "All runs trained the same network" in section.inner_text()
    assert section.locator("svg").count() == 1
    section.locator("summary").click()
    drawing = section.locator("svg")
    assert drawing.is_visible()
    assert [drawing.get_by_text(name, exact=True).count() for name in ("conv1", "conv2", "deconv")] == [1, 1, 1]


def test_the_table_sorts(page: Page) -> None:
    def shown() -> list[float]:
        return [float(text) for text in page.locator("#results-table tbody td:nth-child(2) .value").all_inner_texts()]

    head = page.locator("#results-table th", has_text="IoU")
    head.get_by_role("button").click()
    assert (head.get_attribute("aria-sort"), shown()) == ("descending", sorted(shown(), reverse=True))
    head.get_by_role("button").click()
    assert (head.get_attribute("aria-sort"), shown()) == ("ascending", sorted(shown()))


def test_the_gallery_filters_and_enlarges(page: Page) -> None:
    cases = page.locator(".case:visible")
    assert cases.count() == 8
    page.get_by_role("button", name="Typical").click()
    assert cases.count() == 1
    page.get_by_role("button", name="All (").click()

    cases.first.locator(".thumb").nth(2).click()
    viewer = page.locator("#viewer")
    assert viewer.is_visible()
    assert "output of" in viewer.locator("p").inner_text()
    assert viewer.locator("img").bounding_box()["width"] > 250
    page.keyboard.press("ArrowLeft")
    assert viewer.locator("p").inner_text().endswith(": target")
    page.keyboard.press("Escape")
    assert not viewer.is_visible()


def test_150_epochs_of_every_backend_stay_small(
    backends: list[str], page_file: Path, images: Path, tmp_path: Path
) -> None:
    """Three runs (or more: of fewer backends the same ones again) with 24 validation images and the large one."""
    folders = []
    for number in range(3):
        backend = backends[number % len(backends)]
        folders.append(shutil.copytree(page_file.parent / backend, tmp_path / f"{number}-{backend}"))
        table = folders[-1] / "history.csv"
        head, *rows = table.read_text().splitlines()
        long = [",".join([str(epoch), *rows[epoch % len(rows)].split(",")[1:]]) for epoch in range(151)]
        table.write_text("\n".join([head, *long]) + "\n")
    page = multiseg.compare(folders, images=24, grid=images / "grid.png").to_html(tmp_path / "page.html")
    assert page.stat().st_size < 8_000_000
    assert page.read_text().count("<img") > 50


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_long_names_of_runs_keep_the_layout(
    browser: Browser, backends: list[str], page_file: Path, images: Path, tmp_path: Path, width: int
) -> None:
    names = ("an-experiment-with-a-long-name-that-states-all-of-its-settings-lr0.001-bs32-seed1", "long" * 60)
    folders = [shutil.copytree(page_file.parent / backends[0], tmp_path / name) for name in names]
    file = multiseg.compare(folders, images=2, grid=images / "grid.png").to_html(tmp_path / "page.html")
    page = browser.new_page(viewport={"width": width, "height": 900}, offline=True)
    page.goto(file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == width
    name = page.locator(".results th .run").last.bounding_box()
    assert name is not None and name["width"] <= width / 2
    for cell in page.locator(".facts").first.locator("thead th").all():
        assert cell.evaluate("cell => cell.scrollWidth <= cell.clientWidth"), "it covers the next one"
    page.close()


def test_the_large_image_is_at_its_own_size(page: Page) -> None:
    sizes = page.locator("#grid img").evaluate_all("images => images.map(i => [i.naturalWidth, i.width])")
    assert len(sizes) >= 4
    assert {natural for natural, _ in sizes} == {160}
    assert all(abs(shown - natural) <= 2 for natural, shown in sizes)
