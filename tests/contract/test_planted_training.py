"""Mistakes in solvers, losses and labels of random networks are found by numbers, and the cause is named."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from helpers.planting import check_shares
from helpers.training_mistakes import Mistaken, TrainingMistake, training_mistakes
from multiseg import backend as registry
from multiseg.errors import ModelError
from multiseg.exporting import source
from multiseg.parity import case as cases
from multiseg.parity.twin import without_dropout
from multiseg.worker import pool
from multiseg.worker.client import Worker

SEED = 9


@pytest.mark.nightly
def test_planted_mistakes_in_training_are_found_and_named(backend: str, tmp_path: Path) -> None:
    check(backend, 500, tmp_path)


def test_some_planted_mistakes_in_training_are_found_and_named(backend: str, tmp_path: Path) -> None:
    check(backend, 20, tmp_path)


def check(backend: str, count: int, folder: Path) -> None:
    """Plant ``count`` mistakes that move a number beyond rounding: 99 % are found, and 95 % with the cause."""
    worker = pool.start(registry.get(backend), 1)
    try:
        outcomes = [(each.kind, *tried(each, worker, folder)) for each in mistakes(backend, count)]
    finally:
        worker.close()
    check_shares(backend, outcomes)


def mistakes(backend: str, count: int) -> list[TrainingMistake]:
    """Return the first visible mistakes in networks that a backend expresses, of which no kind is more than a twentieth."""
    exporter = registry.get(backend)
    kept: list[TrainingMistake] = []
    kinds: Counter[str] = Counter()
    for number in itertools.count():
        for each in training_mistakes(SEED, number):
            try:
                for network in (each.case.topology, without_dropout(each.case.topology)[0]):
                    source.source(exporter, network, each.case.classes)
            except ModelError:
                break
            losses = {each.case.loss, each.wrong.loss}
            if losses <= set(exporter.losses) and kinds[each.kind] < count // 20 and each.visible:
                kinds[each.kind] += 1
                kept.append(each)
                if len(kept) == count:
                    return kept
    raise AssertionError


def tried(mistake: TrainingMistake, worker: Worker, folder: Path) -> tuple[bool, bool]:
    """Return whether the numbers differ, and whether the first difference names the cause."""
    wrong = cast(Worker, Mistaken(worker, mistake))
    with np.errstate(all="ignore"):
        parity = cases.check(mistake.case, worker.backend, wrong, folder)
    words = str(parity.first_divergence)
    return not parity.ok, any(each in words for each in mistake.words)
