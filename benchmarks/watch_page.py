"""Measure how large the page of many runs is, and how long Chromium takes to open, sort and filter it.

python benchmarks/watch_page.py [--runs 30] [--epochs 150] [--photographs] [--classes N] [--repeats 5]

The runs are copies of one short training with made-up histories, in groups of five seeds; one in 17 failed. Needs
the package playwright and Chromium.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import random
import shutil
import statistics
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

import multiseg
from multiseg.watch.pages import PageFile
from multiseg.watch.watcher import Watcher

# what is measured in the page, in milliseconds; reading a height makes the browser lay out the page
OPENED = "performance.getEntriesByType('navigation')[0].loadEventEnd"
SORTED = "document.querySelector('#runs-table th[data-key=loss] button').click()"
FILTERED = (
    "const filter = document.getElementById('filter'); filter.value = 'run-1'; filter.dispatchEvent(new Event('input'))"
)


def main() -> None:
    """Print the size of the page, and the median and range of each duration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument(
        "--photographs", action="store_true", help="pictures of 256x256 pixels, other outputs in each run"
    )
    parser.add_argument("--classes", type=int, default=0, help="number of classes whose IoU is recorded")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        base = train(folder)
        for number in range(options.runs):
            copy(base, folder / "runs" / f"run-{number // 5}-seed{number % 5}", number, options)
        page = folder / "page.html"
        PageFile(page, Watcher([folder / "runs"])).write()
        print(f"{options.runs} runs x {options.epochs} epochs: {page.stat().st_size / 1e6:.1f} MB")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        rows = [measure(browser, page) for _ in range(options.repeats)]
        for title, values in zip(
            ("opened after", "sorted in", "filtered and drawn in"), zip(*rows, strict=True), strict=True
        ):
            print(f"{title} {statistics.median(values):.0f} ms ({min(values):.0f} to {max(values):.0f})")
        browser.close()


def train(folder: Path) -> Path:
    """Train for two epochs over 40 triangles."""
    images = multiseg.create_images(folder / "images", count=40, seed=1)
    multiseg.Dataset.create(folder / "dataset", input=images / "input", target=images / "target", seed=1)
    job = multiseg.Job(dataset=folder / "dataset", backend="torch", epochs=2, seed=1)
    with job.train(folder / "run", progress=False) as run:
        return run.path


def copy(base: Path, run: Path, number: int, options: argparse.Namespace) -> None:
    """Copy a run with other settings, a history of random values, and pictures if asked for."""
    shutil.copytree(base, run, ignore=shutil.ignore_patterns("snapshots"))
    job = json.loads((run / "job.json").read_text())
    job["settings"] |= {"seed": number % 5, "learning_rate": 0.01 * (1 + number // 5), "epochs": options.epochs}
    (run / "job.json").write_text(json.dumps(job))
    with (base / "history.csv").open(newline="") as file:
        known = list(csv.DictReader(file))[-1]
    with (run / "history.csv").open("w", newline="") as file, (run / "events.jsonl").open("w") as events:
        writer = csv.DictWriter(file, list(known))
        writer.writeheader()
        for epoch in range(options.epochs + 1):
            factor = math.exp(-epoch / 60) * random.uniform(0.9, 1.1)
            values = {key: float(value) * factor if value else "" for key, value in known.items()}
            writer.writerow(values | {"epoch": epoch, "iteration": epoch * 9})
            iou = {f"class {index}": random.random() for index in range(options.classes)}
            events.write(
                json.dumps({"event": "epoch", "iteration": epoch * 9, **({"class_iou": iou} if iou else {})}) + "\n"
            )
    if number % 17 == 3:
        (run / "summary.json").write_text(json.dumps({"status": "failed", "error": "out of memory"}))
    (run / "worker.log").write_text(
        "a line that a framework prints, such as a warning about a function that will be removed\n" * 20
    )
    if options.photographs:
        for path in (run / "pictures").iterdir():
            own = number if path.stem.endswith("output") else 0
            path.write_bytes(photograph(own * 100 + ord(path.stem[0]) + len(path.stem)))


def photograph(seed: int) -> bytes:
    """Return a PNG that is smooth with a little noise, of about 110 kB as of a photograph."""
    generator = np.random.default_rng(seed)
    smooth = generator.normal(size=(256, 256, 3)).cumsum(0).cumsum(1)
    values = 255 * (smooth - smooth.min()) / np.ptp(smooth) + 3 * generator.normal(size=smooth.shape)
    buffer = io.BytesIO()
    Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def measure(browser: Browser, path: Path) -> tuple[float, float, float]:
    """Open the page; return the milliseconds until its scripts have run, and those of sorting and of filtering."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(path.as_uri())
    times = [page.evaluate(OPENED)]
    for action in (SORTED, FILTERED):
        begun = "const begun = performance.now()"
        times.append(
            page.evaluate(
                f"() => {{ {begun}; {action}; document.body.offsetHeight; return performance.now() - begun }}"
            )
        )
    page.close()
    return times[0], times[1], times[2]


if __name__ == "__main__":
    main()
