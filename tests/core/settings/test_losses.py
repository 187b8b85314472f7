"""The losses table: what a job may name, and what backends must declare."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers.old_runs import change_job
from multiseg import backend as registry
from multiseg.dataset import Dataset
from multiseg.errors import SettingsError
from multiseg.job.job import Job
from multiseg.network import Network, NetworkSpec, description, unequal_elements
from multiseg.reference.losses import FORMULAS, OF_CLASSES
from multiseg.settings.losses import LOSSES, LossRow, complete_options, label_kind_of, loss_text, loss_title


def test_each_loss_has_a_reference() -> None:
    assert {*FORMULAS, *OF_CLASSES} == set(LOSSES) and not set(FORMULAS) & set(OF_CLASSES)


def test_a_job_may_name_the_losses_that_its_backend_declares(fourth: str, monkeypatch: pytest.MonkeyPatch) -> None:
    declared = registry.get(fourth)
    for name in declared.losses:
        settings = Job(dataset="", backend=fourth, loss=name).resolve()
        assert (settings.loss, settings.loss_options) == (name, LOSSES[name].parameters)
    monkeypatch.setattr(registry, "get", lambda name: replace(declared, losses=("l1", "l2")))
    with pytest.raises(SettingsError, match=r"loss='smooth_l1': choose one of l1, l2$"):
        Job(dataset="", backend=fourth, loss="smooth_l1").resolve()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "l3"}, "loss='l3': choose one of l1, smooth_l1, l2"),
        ({"loss": "l1", "loss_options": {"delta": 2}}, "loss 'l1' has no parameter 'delta'; it takes: none"),
        ({"loss": "huber", "loss_options": {"delta": 0}}, "loss_options delta=0: must be a number above 0"),
        ({"loss_options": {"delta": 2}}, "loss_options={'delta': 2}: belongs to a named loss"),
        ({"loss": "l1", "loss_options": 3}, "loss_options=3: must map names"),
    ],
)
def test_losses_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as raised:
        Job(dataset="", **settings).resolve()
    assert message in str(raised.value)


def test_parameters_are_completed_and_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOSSES, "some", LossRow("some loss", {"alpha": 1.0, "beta": 2.0}, "classes"))
    options = complete_options("some", {"beta": 0.25})
    assert (loss_text("some", options), loss_title("some", options)) == (
        "some(alpha=1, beta=0.25)", "some loss(alpha=1, beta=0.25)",
    )  # fmt: skip
    assert (loss_text("l2", {}), loss_title("l2", {}), loss_title("net.py's own", {})) == (
        "l2", "mean squared difference", "net.py's own",
    )  # fmt: skip
    assert [label_kind_of(name, "images") for name in ("some", "l1", None)] == ["classes", "images", "images"]
    assert label_kind_of(None, "classes") == "classes"


class Described(Network):
    """Only describes itself, as a backend does."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def describe(self) -> dict[str, Any]:
        return self.values

    train_step = predict = get_weights = set_weights = save = restore = close = None  # type: ignore[assignment]


def test_the_core_names_the_loss_of_a_loaded_network() -> None:
    def spec(loss: str | None) -> NetworkSpec:
        return NetworkSpec("folder/net.py", (1, 8, 8), (1, 8, 8), None, loss, None, None, 1, 1, "cpu", False)

    assert description(Described(), spec("l1")) == {"loss": "l1", "own_loss": False, "ignored": []}
    assert description(Described(), spec(None)) == {"loss": "net.py's own", "own_loss": True, "ignored": []}
    assert description(Described(loss="l2"), spec(None)) == {"loss": "l2", "own_loss": True, "ignored": []}


def test_a_run_made_before_loss_options_were_kept_resumes(dataset: Dataset, fourth: str, tmp_path: Path) -> None:
    job = Job(dataset=dataset, backend=fourth, epochs=1, loss="l1", seed=1, threads=1)
    job.train(tmp_path / "run", progress=False).close()
    change_job(tmp_path / "run", lambda content: content["settings"].pop("loss_options"))
    with job.train(tmp_path / "run", resume=True, progress=False) as run:
        assert run.spec().loss_options == {}


@pytest.mark.parametrize(
    ("output", "labels", "order", "of_classes"),
    [
        ((7, 33, 20), (1, 33, 20), "C, H, W", True),
        ((33, 20, 7), (33, 20, 1), "H, W, C", True),
        ((10,), (1, 1, 1), "C, H, W", True),  # a class of the whole image
        ((7, 16, 16), (1, 33, 33), "C, H, W", False),
        ((7, 33, 33), (3, 33, 33), "C, H, W", False),
        ((33, 33, 3), (33, 33, 1), "C, H, W", False),
    ],
)
def test_an_output_of_another_size_than_the_labels_names_the_loss_of_classes_where_it_fits(
    output: tuple[int, ...], labels: tuple[int, ...], order: str, of_classes: bool
) -> None:
    message = str(unequal_elements(output, labels, order))
    assert f"the output is {output}, the labels are {labels} ({order})" in message
    assert message.endswith("if the labels are class indices, specify loss='cross_entropy'") == of_classes
