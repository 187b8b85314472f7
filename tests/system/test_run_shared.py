"""One Run used by several threads, in forked children, and after a test that was left: every answer is that of its image."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import multiseg
from multiseg.inference import Output

Outputs = dict[Path, npt.NDArray[np.float32]]


@pytest.fixture(scope="module")
def opened() -> Iterator[dict[str, tuple[multiseg.Run, Outputs]]]:
    """The runs that these tests share, one of each backend, with their outputs."""
    runs: dict[str, tuple[multiseg.Run, Outputs]] = {}
    yield runs
    for run, _ in runs.values():
        run.close()


@pytest.fixture
def shared(
    backend: str,
    dataset: multiseg.Dataset,
    images: Path,
    tmp_path: Path,
    opened: dict[str, tuple[multiseg.Run, Outputs]],
) -> tuple[multiseg.Run, Outputs]:
    """A run, and its outputs of ten images, tested one after the other; all of them differ.

    In the recipe `tutorial` Caffe's are all alike after one epoch.
    """
    if backend not in opened:
        job = multiseg.Job(dataset, backend, epochs=1, seed=2, threads=1, recipe="equal", solver="adam")
        job.train(tmp_path / "run", progress=False).close()
        run = multiseg.Run.open(tmp_path / "run")
        outputs = {path: run.test_one(path).array for path in sorted((images / "input").glob("*.png"))[:10]}
        assert len({output.tobytes() for output in outputs.values()}) == len(outputs)
        opened[backend] = run, outputs
    return opened[backend]


@pytest.fixture
def run(shared: tuple[multiseg.Run, Outputs]) -> multiseg.Run:
    return shared[0]


@pytest.fixture
def expected(shared: tuple[multiseg.Run, Outputs]) -> Outputs:
    return shared[1]


def test_threads_get_the_outputs_of_their_images(run: multiseg.Run, expected: Outputs) -> None:
    with ThreadPoolExecutor(4) as pool:
        for path, output in zip(expected, pool.map(lambda path: run.test_one(path).array, expected), strict=True):
            np.testing.assert_array_equal(output, expected[path])


def test_a_test_that_a_callback_ends_leaves_the_run_right(
    run: multiseg.Run, expected: Outputs, dataset: multiseg.Dataset
) -> None:
    def leave(index: int, output: Output) -> None:
        raise ZeroDivisionError

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            run.test_db(dataset.path / "train_db/features", batch_size=4, each=leave)
        for path in expected:
            np.testing.assert_array_equal(run.test_one(path).array, expected[path])


def test_a_callback_may_test_with_the_same_run(run: multiseg.Run, expected: Outputs, dataset: multiseg.Dataset) -> None:
    database = dataset.path / "val_db/features"
    plain = run.test_db(database, batch_size=4)
    path = next(iter(expected))

    def nested(index: int, output: Output) -> None:
        np.testing.assert_array_equal(run.test_one(path).array, expected[path])

    within = run.test_db(database, batch_size=4, each=nested)
    assert {key: within[key] for key in ("count", "val_loss", "l1", "iou")} == {
        key: plain[key] for key in ("count", "val_loss", "l1", "iou")
    }


def test_an_interrupted_call_is_not_answered_later(run: multiseg.Run, expected: Outputs, images: Path) -> None:
    """Signals at moments spread over the calls, as a notebook's stop button sends them."""
    paths = list(expected)
    interrupted = 0
    for delay in np.linspace(0.0, 0.02, 6):
        timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
        try:
            timer.start()
            while True:
                run.test_one(images / "grid.png", resize=False)
        except KeyboardInterrupt:
            interrupted += 1
        timer.join()
        for path in paths[:3]:
            np.testing.assert_array_equal(run.test_one(path).array, expected[path])
    assert interrupted == 6


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_a_worker_of_its_own(run: multiseg.Run, expected: Outputs) -> None:
    path, output = next(iter(expected.items()))
    ours = run.worker().pid
    child = os.fork()
    if child == 0:
        status = 1
        try:
            same = np.array_equal(run.test_one(path).array, output)
            status = 0 if same and run.worker().pid != ours else 2
            run.close()
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert run.worker().pid == ours
    np.testing.assert_array_equal(run.test_one(path).array, output)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_the_end_of_a_forked_child_does_not_end_the_parents_worker(run: multiseg.Run, expected: Outputs) -> None:
    path, output = next(iter(expected.items()))
    child = os.fork()
    if child == 0:
        try:
            run.close()
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    np.testing.assert_array_equal(run.test_one(path).array, output)
