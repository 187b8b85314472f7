"""The neutral core: its import, its errors, the registry of backends, schedules, metrics, messages, jobs."""

from __future__ import annotations

import inspect
import json
import math
import socket
import subprocess
import sys
import threading
from importlib.metadata import EntryPoint
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multiseg
from multiseg import backend as registry
from multiseg import errors
from multiseg.errors import BackendUnavailable, MultisegError, RunError, SettingsError
from multiseg.settings.metrics import ImageSums
from multiseg.settings.schedules import Schedule
from multiseg.worker import protocol

FRAMEWORKS = {"caffe", "torch", "tensorflow", "keras"}


def test_import_brings_in_nothing_but_the_standard_library() -> None:
    code = (
        "import sys, json; before = set(sys.modules); import multiseg\n"
        "print(json.dumps([m for m in set(sys.modules) - before if '.' not in m]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert set(json.loads(done.stdout)) <= {"multiseg", *sys.stdlib_module_names}


def test_every_public_name_is_there_without_a_framework() -> None:
    code = (
        "import multiseg, sys\n"
        "for name in multiseg.__all__: getattr(multiseg, name)\n"
        "from multiseg import backend\n"
        "for name in backend.names(): backend.get(name)\n"
        f"assert not {FRAMEWORKS!r} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Jobs'"):
        multiseg.Jobs  # noqa: B018


def test_all_errors_are_one_tree() -> None:
    classes = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, Exception)]
    assert all(issubclass(kind, MultisegError) for kind in classes)
    assert issubclass(BackendUnavailable, ImportError)


# --- backends


def test_the_three_backends_are_entry_points_with_the_tutorials_rates() -> None:
    rates = {name: registry.get(name).learning_rate for name in registry.names()}
    assert rates == {"caffe": 1e-7, "tensorflow": 1e-5, "torch": 1e-3}
    for name in registry.names():
        assert registry.get(name).default_model_path.is_file()


def test_an_unknown_backend_lists_the_known_ones() -> None:
    with pytest.raises(BackendUnavailable, match=r"'mxnet'; known are: caffe, tensorflow, torch"):
        registry.get("mxnet")


def test_a_name_claimed_twice_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("torch", "multiseg_torch:backend", registry.GROUP),
        EntryPoint("torch", "other:backend", registry.GROUP),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    with pytest.raises(
        BackendUnavailable, match=r"'torch' is provided twice, as multiseg_torch:backend and as other:backend"
    ):
        registry.get("torch")


def test_an_entry_point_that_is_no_backend_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("x", "json:dumps", registry.GROUP), EntryPoint("y", "nowhere:backend", registry.GROUP)]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    with pytest.raises(BackendUnavailable, match=r"json:dumps is a function, not a multiseg Backend"):
        registry.get("x")
    with pytest.raises(BackendUnavailable, match=r"'y'.*No module named 'nowhere'"):
        registry.get("y")


# --- schedules: values worked out by hand from Caffe's formulas, 1,000 iterations, base rate 1


@pytest.mark.parametrize(
    ("policy", "iteration", "rate"),
    [
        ("fixed", 999, 1),
        (None, 329, 1),  # DIGITS' default: step at 33 %
        (None, 330, 0.1),
        (None, 660, 0.01),
        (None, 999, 0.001),
        ({"policy": "step", "step": 25, "gamma": 0.5}, 500, 0.25),
        ("multistep", 499, 1),
        ("multistep", 500, 0.5),
        ("multistep", 850, 0.25),
        ("exp", 20, 0.9025),  # two percent on
        ("inv", 300, 0.5),
        ("poly", 500, 0.125),
        ("sigmoid", 500, 0.5),
        ("sigmoid", 0, 1 / (1 + math.exp(-5))),
        ("sigmoid", 700, 1 / (1 + math.e**2)),
        ("linear", 0, 1),
        ("linear", 750, 0.25),
    ],
)
def test_rates_follow_caffes_formulas(policy: Any, iteration: int, rate: float) -> None:
    assert Schedule.of(policy).rate(1.0, iteration, 1000) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("stepp", "unknown lr_policy 'stepp'; known are: fixed, step"),
        ({"policy": "step", "power": 2}, "has no parameter 'power'; it takes: step, gamma"),
        ({"policy": "step", "gamma": "x"}, "gamma must be a number, not 'x'"),
        ({"policy": "step", "step": [1, 2]}, "step must be a number"),
        ({"policy": "multistep", "stepvalues": 50}, "stepvalues must be a list of numbers"),
        ({"gamma": 1}, "unknown lr_policy None"),
    ],
)
def test_bad_policies_are_named(policy: Any, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Schedule.of(policy)
    assert words in str(caught.value)


# --- metrics


def test_metrics_against_a_count_by_hand() -> None:
    metrics = ImageSums()
    # target: two object pixels; output: finds one of them, and a third that is none
    metrics.add(np.array([[[[0.0, 200.0, 100.0, 255.0]]]]), np.array([[[[0, 0, 255, 255]]]]))
    result = metrics.scores()
    assert result["l1"] == pytest.approx((0 + 200 + 155 + 0) / 4)
    assert result["l2"] == pytest.approx((200**2 + 155**2) / 4)
    assert result["pixel_accuracy"] == 0.5
    assert result["iou"] == pytest.approx(1 / 3)
    assert result["dice"] == pytest.approx(2 * 1 / (2 + 2))


def test_dice_of_sets_of_pixels() -> None:
    """2 |A and B| / (|A| + |B|) over sets of positions; 1 if both are empty."""
    draw = np.random.default_rng(4)
    for most in (256, 128, 1):  # foreground in both, foreground only, and then none
        outputs, targets = draw.integers(0, most, (2, 3, 1, 5, 5)) + (200 if most == 1 else 0)
        one, other = (set(map(tuple, np.argwhere(values < 128))) for values in (outputs, targets))
        sums = ImageSums()
        sums.add(outputs.astype(np.float32), targets)
        expected = 2 * len(one & other) / (len(one) + len(other)) if one or other else 1.0
        assert sums.scores()["dice"] == pytest.approx(expected)


def test_metrics_add_up_over_batches() -> None:
    draw = np.random.default_rng(0)
    outputs, targets = draw.normal(128, 80, (9, 1, 4, 4)), draw.integers(0, 256, (9, 1, 4, 4))
    whole, parts = ImageSums(), ImageSums()
    whole.add(outputs, targets)
    parts.add(outputs[:4], targets[:4])
    parts.add(outputs[4:], targets[4:])
    assert parts.scores() == pytest.approx(whole.scores())


# --- messages


def test_messages_carry_plain_data_and_arrays() -> None:
    ours, theirs = (Connection(end.detach()) for end in socket.socketpair())
    draw = np.random.default_rng(0)
    message = {
        "call": "x",
        "n": [1, 2.5, None, True, "é"],
        "arrays": {"big": draw.standard_normal((64, 3, 50, 50)).astype("<f4"), "empty": np.zeros((0, 3), np.uint8)},
        "turned": draw.integers(0, 9, (3, 4, 5)).T,
        "scalar": np.float32(1.5),
        "point": np.array(7, np.int64),
    }
    sender = threading.Thread(target=protocol.send, args=(ours, message))
    sender.start()
    back = protocol.receive(theirs)
    sender.join()
    assert back["n"] == message["n"] and back["scalar"] == 1.5
    for one, other in ((back["arrays"]["big"], message["arrays"]["big"]), (back["turned"], message["turned"]),
                       (back["arrays"]["empty"], message["arrays"]["empty"]), (back["point"], message["point"])):  # fmt: skip
        assert one.dtype == other.dtype and np.array_equal(one, other)
    ours.close()
    with pytest.raises(EOFError):
        protocol.receive(theirs)


def test_nothing_is_unpickled() -> None:
    import pickle

    ours, theirs = (Connection(end.detach()) for end in socket.socketpair())
    ours.send_bytes(pickle.dumps({"call": "x"}))
    with pytest.raises(ValueError):
        protocol.receive(theirs)


# --- jobs and runs


def test_all_that_is_wrong_with_a_job_is_said_at_once() -> None:
    job = multiseg.Job(
        dataset="x", backend="torch", model="no.lua", epochs=0, subtract_mean="row", recipe="r", learning_rate=-1, batch_size=0,
        solver="foo", lr_policy="stepp", loss="l3", seed=-1, keep="some", threads=-1,
        device="gpu",
    )  # fmt: skip
    with pytest.raises(SettingsError) as caught:
        job.resolve()
    for words in (
        "model='no.lua': no such file", "epochs=0", "subtract_mean='row': choose one of pixel, image, none", "recipe='r'",
        "learning_rate=-1", "batch_size=0", "solver='foo': choose one of sgd", "'stepp'", "loss='l3'", "seed=-1", "keep='some'",
        "threads=-1", "device='gpu': choose one of auto, cpu, cuda",
    ):  # fmt: skip
        assert words in str(caught.value)


def test_a_solver_option_that_does_not_fit_is_named() -> None:
    with pytest.raises(SettingsError, match="solver 'sgd' of tensorflow has no option 'dampening'; it takes: momentum"):
        multiseg.Job(dataset="x", backend="tensorflow", solver_options={"dampening": 0.9}).resolve()


def test_a_momentum_that_cannot_be_is_said() -> None:
    with pytest.raises(SettingsError, match=r"momentum=1: must be from 0 to below 1"):
        multiseg.Job(dataset="x", solver_options={"momentum": 1}).resolve()
    with pytest.raises(SettingsError, match=r"momentum=0: must be above 0 and below 1"):
        multiseg.Job(dataset="x", solver="nesterov", solver_options={"momentum": 0}).resolve()


def test_solver_semantics_are_the_tutorials() -> None:
    def solver(name: str, **settings: Any) -> dict[str, Any]:
        return multiseg.Job(dataset="x", backend=name, **settings).resolve().solver

    assert solver("caffe") == {"name": "sgd", "momentum": 0.9, "weight_decay": pytest.approx(1e-9)}
    assert solver("caffe", learning_rate=0.1)["weight_decay"] == pytest.approx(1e-3)
    assert solver("torch") == {"name": "sgd", "momentum": 0.9, "dampening": 0.9, "weight_decay": 1e-4}
    assert solver("tensorflow") == {"name": "sgd", "momentum": 0.0, "weight_decay": 0.0}


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run folder"):
        multiseg.Run.open(tmp_path)


def test_training_into_a_folder_that_is_in_use_leaves_it_alone(dataset: Any, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(RunError, match="exists already"):
        multiseg.Job(dataset=dataset).train(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


# --- one list of backends everywhere


def test_backends_are_the_same_in_entry_points_extras_tox_ci_and_docs() -> None:
    root = Path(__file__).parents[2]
    names = set(registry.names())
    tox, workflow = (root / "tox.ini").read_text(), (root / ".github/workflows/tests.yml").read_text()
    readme = (root / "README.md").read_text()
    for name in names:
        assert f"[testenv:{name}]" in tox
        assert f", {name}," in workflow
        assert f"`{name}`" in readme and registry.get(name).install in readme
        assert f"MULTISEG_TEST_BACKENDS = {','.join(sorted(names))}" in tox
