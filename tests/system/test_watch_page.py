"""`multiseg watch` in a real browser, beside real trainings that know nothing of it."""

from __future__ import annotations

import csv
import http.client
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

import multiseg
from multiseg.run import names, requests
from multiseg.watch.pages import PageFile, written
from multiseg.watch.server import WatchServer
from multiseg.watch.watcher import Watcher

LONG = 60_000  # ms


@contextmanager
def serving(watcher: Watcher, port: int = 0) -> Iterator[WatchServer]:
    with WatchServer(watcher, port) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextmanager
def opened(browser: Browser, address: str, width: int = 1280, scheme: str = "light") -> Iterator[Page]:
    """Open a page; fail if it logs an error, or requests anything beyond its own origin."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    errors: list[str] = []
    requested: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: requested.append(request.url))
    page.goto(address)
    yield page
    origin = re.match(r"https?://[^/]+/|file:", address)
    assert origin is not None
    assert [url for url in requested if not url.startswith((origin[0], "data:"))] == []
    assert [text for text in errors if "ERR_CONNECTION_REFUSED" not in text and "ERR_INCOMPLETE" not in text] == []
    page.close()


def start(dataset: multiseg.Dataset, backend: str, run: Path) -> subprocess.Popen[str]:
    """Start a training that does not end by itself."""
    options = {
        "dataset": dataset.path,
        "backend": backend,
        "run": run,
        "batch-size": 4,
        "epochs": 100_000,
        "threads": 1,
    }
    command = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    return subprocess.Popen(
        [sys.executable, "-m", "multiseg.cli", "train", *command],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def row(page: Page, name: str) -> str:
    return f"#runs-table tbody tr:has(.run:text-is('{name}'))"


def state_cell(page: Page, name: str) -> Locator:
    return page.locator(row(page, name)).locator(".state")


def test_trainings_are_watched_stopped_and_seen_to_die(
    browser: Browser, backends: list[str], dataset: multiseg.Dataset, tmp_path: Path
) -> None:
    stopped, kept, killed = "stopped", "kept", "killed"
    folders = {name: tmp_path / "runs" / name for name in (stopped, kept, killed)}
    processes: dict[str, subprocess.Popen[str]] = {}
    try:
        with serving(Watcher(list(folders.values()))) as server, opened(browser, server.address) as page:
            expect(page.locator("#headline")).to_have_text("3 runs: 3 waiting")
            for number, (name, folder) in enumerate(folders.items()):
                processes[name] = start(dataset, backends[number % len(backends)], folder)
            for name in folders:
                expect(state_cell(page, name)).to_have_text(re.compile("training|validating"), timeout=LONG)
            wait_for_more_points(page)
            page.wait_for_function(
                "[...document.querySelectorAll('#detail-list img[title=input]')].every((image) => image.naturalWidth === 32)"
            )

            # a choice of the reader stays when data arrive
            page.get_by_label("logarithmic").check()
            wait_for_more_points(page)
            assert page.get_by_label("logarithmic").is_checked()

            page.locator(row(page, kept)).get_by_role("button", name="Snapshot").click()
            expect(page.locator("#answer")).to_contain_text("kept will write a snapshot")
            page.locator(row(page, stopped)).get_by_role("button", name="Stop").click()
            expect(state_cell(page, stopped)).to_have_text("stopped", timeout=LONG)
            _, printed = processes[stopped].communicate(timeout=60)
            assert processes[stopped].returncode == 130
            assert "--resume" in printed
            assert multiseg.Run.open(folders[stopped]).snapshot is not None
            last = events(folders[stopped])[-1]
            assert last["event"] == "stopped" and "stopped after iteration" in last["error"]

            # the server ends and starts again at the same address: the open page follows
            server.shutdown()
            server.server_close()
            with serving(Watcher(list(folders.values())), server.server_port) as again:
                assert again.address == server.address
                expect(page.locator("#connection")).to_have_text("live", timeout=LONG)
                processes[killed].kill()
                processes[killed].wait(60)
                expect(state_cell(page, killed)).to_have_text("interrupted")
                expect(page.locator(row(page, killed)).locator(".problem")).to_contain_text("resume")
                expect(state_cell(page, kept)).to_have_text(re.compile("training|validating"))
    finally:
        for process in processes.values():
            process.kill()
            process.wait(60)


def wait_for_more_points(page: Page) -> None:
    points = "document.querySelector('#metric-charts .chart').plot.data[0].length"
    before = page.evaluate(points)
    page.wait_for_function(f"before => {points} > before + 1", arg=before)


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(
    lent_workers: None, backends: list[str], dataset: multiseg.Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    multiseg.Job(dataset=dataset, backend=backends[0], epochs=1, batch_size=36, seed=1).train(folder, progress=False)
    return folder


def test_a_snapshot_is_written_on_request(
    lent_workers: None, backends: list[str], dataset: multiseg.Dataset, tmp_path: Path
) -> None:
    """In the middle of an epoch; the training continues, and its result is that of a training without."""
    runs = []
    for name in ("plain", "asked"):
        folder = tmp_path / name

        def progress(event: dict[str, Any], folder: Path = folder) -> None:
            if event["event"] == "step" and event["iteration"] == 3 and folder.name == "asked":
                requests.ask(folder, "snapshot")

        job = multiseg.Job(dataset=dataset, backend=backends[0], epochs=1, batch_size=4, seed=1)
        runs.append(job.train(folder, progress=progress))
    snapshots = [event for event in events(tmp_path / "asked") if event["event"] == "snapshot"]
    assert [0 < event["epoch"] < 1 for event in snapshots] == [True, False]
    assert [row["val_loss"] for row in runs[0].history] == [row["val_loss"] for row in runs[1].history]


def copy_with_seed(run: Path, folder: Path, seed: int, values: list[float]) -> None:
    """Copy a run, with another seed and with other validation losses after each row of its history."""
    shutil.copytree(run, folder)
    job = json.loads((folder / "job.json").read_text())
    job["settings"]["seed"] = seed
    (folder / "job.json").write_text(json.dumps(job))
    with (folder / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (folder / "history.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "val_loss": value} for row, value in zip(rows, values, strict=True))


def test_seeds_are_drawn_as_their_mean_and_range(browser: Browser, trained: Path, tmp_path: Path) -> None:
    for seed, values in enumerate(([8.0, 2.0], [4.0, 1.0], [9.0, 6.0]), 1):
        copy_with_seed(trained, tmp_path / f"torch-seed{seed}", seed, values)
    with serving(Watcher([tmp_path])) as server, opened(browser, server.address) as page:
        lines = "[...document.querySelectorAll('#loss-charts .chart')][0].plot.data.slice(1).map((ys) => [...ys])"
        page.get_by_label("mean and range").check()
        assert page.evaluate(lines)[:3] == [[7.0, 3.0], [4.0, 1.0], [9.0, 6.0]]  # mean, lowest, highest
        expect(page.locator("#loss-charts .chart").first).to_contain_text("torch (mean of 3 seeds)")
        # a run with another setting is not of the group
        other = tmp_path / "z-other"
        copy_with_seed(trained, other, 4, [5.0, 5.0])
        job = json.loads((other / "job.json").read_text())
        job["settings"]["learning_rate"] = 123.0
        (other / "job.json").write_text(json.dumps(job))
        expect(page.locator("#loss-charts h4").first).to_have_text("Validation")
        assert page.evaluate(lines) == [[7.0, 3.0], [4.0, 1.0], [9.0, 6.0], [5.0, 5.0]]
        expect(page.locator("#loss-charts .chart").first.locator(".u-legend .u-series:visible")).to_have_count(
            3
        )  # with epoch


def test_rows_follow_a_folder_that_becomes_a_folder_of_runs(browser: Browser, trained: Path, tmp_path: Path) -> None:
    """The page shows the runs in it, and the other runs keep their rows."""
    first, second = tmp_path / "first", tmp_path / "second"
    with serving(Watcher([first, second])) as server, opened(browser, server.address) as page:
        expect(page.locator("#headline")).to_have_text("2 runs: 2 waiting")
        for name in ("a", "b"):
            shutil.copytree(trained, tmp_path / "new" / name)
        (tmp_path / "new").rename(first)
        expect(page.locator("#headline")).to_have_text("3 runs: 1 waiting, 2 finished")
        assert page.locator("#runs-table .run").all_text_contents() == ["second", "a", "b"]
        assert page.locator("#detail-list summary").all_text_contents() == ["second", "a", "b"]
        expect(page.locator("#detail-list img")).to_have_count(24)
        expect(page.locator("#loss-charts .chart").first.locator(".u-legend .u-series")).to_have_count(4)  # with epoch


def test_an_event_has_only_what_changed(trained: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for seed in range(1, 4):
        copy_with_seed(trained, runs / str(seed), seed, [3.0, 2.0])
    copy_with_seed(trained, tmp_path / "new", 2, [1.5, 1.25])
    with serving(Watcher([runs])) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
        connection.request("GET", f"/{server.token}/events", headers={"Host": f"127.0.0.1:{server.server_port}"})
        answer = connection.getresponse()

        def event() -> dict[str, Any]:
            line = next(line for line in iter(answer.readline, b"") if line.startswith(b"data: "))
            return dict(json.loads(line.removeprefix(b"data: ")))

        assert sorted(event()["drawn"]) == ["0", "1", "2"]
        (tmp_path / "new/history.csv").replace(runs / "2/history.csv")
        changed = event()
        assert list(changed["drawn"]) == ["1"]
        assert changed["drawn"]["1"]["values"]["val_loss"] == [1.5, 1.25]
        assert set(changed.get("runs", {})) <= {"1"}
        connection.close()


STRANGE = (
    "<script>document.title='run'</script>",
    "\"><img src=x onerror=document.title='run'>",
    "\u202e\u05d0\u05d1 right to left",
    "long" * 60,
)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_strange_names_and_messages_run_nothing_and_keep_the_layout(
    browser: Browser, trained: Path, tmp_path: Path, width: int, scheme: str
) -> None:
    for name in STRANGE:
        copy = tmp_path / name.replace("/", "\u2215")
        shutil.copytree(trained, copy)
        job = json.loads((copy / "job.json").read_text())
        job["settings"]["backend"] = name
        (copy / "job.json").write_text(json.dumps(job))
        (copy / "summary.json").write_text(json.dumps({"status": "failed", "error": name * 50}))
        (copy / "worker.log").write_text("</pre></script><script>document.title='run'</script>" + "x" * 10_000)
    with serving(Watcher([tmp_path])) as server:
        static = tmp_path.with_suffix(".html")
        PageFile(static, Watcher([tmp_path])).write()
        for address in (server.address, static.as_uri()):
            with opened(browser, address, width, scheme) as page:
                expect(page.locator("#runs-table tbody tr")).to_have_count(len(STRANGE))
                page.locator("#detail-list details:not([open]) summary").first.click()
                assert page.title().endswith("multiseg watch")
                assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_a_page_in_a_file_reloads_until_the_training_has_ended(
    browser: Browser, lent_workers: None, backends: list[str], dataset: multiseg.Dataset, tmp_path: Path
) -> None:
    path, run, texts = tmp_path / "page.html", tmp_path / "run", []
    job = multiseg.Job(dataset=dataset, backend=backends[0], epochs=2, batch_size=36, seed=1)
    with written(path, [run]):
        job.train(run, progress=lambda event: texts.append(path.read_text()))
    assert 'http-equiv="refresh"' in texts[0]
    assert 'http-equiv="refresh"' not in path.read_text()
    with opened(browser, path.as_uri()) as page:
        expect(page.locator("#headline")).to_have_text("1 run: 1 finished")
        expect(page.locator("#detail-list img")).to_have_count(12)
        assert page.evaluate(
            "[...document.querySelectorAll('#detail-list img')].every((image) => image.naturalWidth === 32)"
        )


def test_nothing_but_the_page_with_its_token_is_served(trained: Path) -> None:
    with serving(Watcher([trained])) as server:
        own = f"127.0.0.1:{server.server_port}"

        def status(method: str, path: str, body: str | None = None, **headers: str) -> int:
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
            connection.request(method, path, body, {"Host": own, **headers})
            return connection.getresponse().status

        token = server.token
        run = server.state()["runs"][0]["id"]
        stop = json.dumps({"run": run, "request": "stop"})
        assert server.server_address[0] == "127.0.0.1"
        assert status("GET", f"/{token}/") == 200
        assert status("GET", f"/{token}/pictures/{run}/0-output.png") == 200
        for path in ("/", "/wrong/", f"/{token}", f"/{token}/job.json", f"/{token}/pictures/{run}/../job.json",
                     f"/{token}/pictures/0123456789abcdef/0-output.png", f"/{token}/pictures/{run}/9-output.png"):  # fmt: skip
            assert status("GET", path) == 404, path
        assert status("GET", f"/{token}/", Host=f"example.org:{server.server_port}") == 403
        for headers in ({}, {"Origin": "http://example.org"}, {"Origin": "null"}):
            assert status("POST", f"/{token}/request", stop, **headers) == 403
        origin = {"Origin": f"http://{own}"}
        assert status("POST", "/wrong/request", stop, **origin) == 404
        for body in (
            "",
            "{",
            "[]",
            '{"run": true, "request": "stop"}',
            '{"run": 0, "request": "stop"}',
            json.dumps({"run": run, "request": "rm"}),
        ):
            assert status("POST", f"/{token}/request", body, **origin) == 400, body
        assert status("POST", f"/{token}/request", '{"run": "x", "request": "stop"}', **origin) == 404
        assert not (trained / names.REQUEST).exists()
        assert status("POST", f"/{token}/request", stop, **origin) == 200
        assert requests.take(trained) == "stop"
        with (
            pytest.raises(multiseg.errors.SettingsError, match="choose another"),
            serving(Watcher([]), server.server_port),
        ):
            pass
