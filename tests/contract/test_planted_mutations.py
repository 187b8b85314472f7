"""Mistakes in single layers of random networks are found by numbers, and the layer is named."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.mutations import Planted, planted
from helpers.planting import check_shares
from multiseg import backend as registry
from multiseg.errors import ModelError
from multiseg.exporting import source
from multiseg.model_files.reading import describe
from multiseg.parity import case as cases
from multiseg.topology import Topology
from multiseg.topology.comparison import compare
from multiseg.worker import pool
from multiseg.worker.client import Worker

SEED = 7


@pytest.mark.nightly
def test_planted_mistakes_are_found_and_named(backend: str, tmp_path: Path) -> None:
    check(backend, 500, tmp_path)


def test_some_planted_mistakes_are_found_and_named(backend: str, tmp_path: Path) -> None:
    check(backend, 20, tmp_path)


def check(backend: str, count: int, folder: Path) -> None:
    """Plant ``count`` mistakes that move the output beyond rounding: 99 % are found, and 95 % with the layer."""
    worker = pool.start(registry.get(backend), 1)
    try:
        outcomes = [tried(each, worker, folder) for each in mistakes(backend, count)]
    finally:
        worker.close()
    check_shares(backend, outcomes)


def mistakes(backend: str, count: int) -> list[Planted]:
    """Return the first visible mistakes in networks that a backend expresses, of which no kind is more than a twentieth."""
    exporter = registry.get(backend)
    kept: list[Planted] = []
    kinds: Counter[str] = Counter()
    for number in itertools.count():
        for each in planted(SEED, number):
            try:
                for network in (each.case.topology, each.case.written or each.case.topology):
                    source.source(exporter, network, False)
            except ModelError:
                continue
            if kinds[each.kind] < count // 20 and each.visible:
                kinds[each.kind] += 1
                kept.append(each)
                if len(kept) == count:
                    return kept
    raise AssertionError


def described(network: Topology, worker: Worker, folder: Path) -> Topology:
    """Return what is read from the file that is written for a network."""
    path = folder / f"mistake{worker.backend.formats[0]}"
    path.write_text(source.source(worker.backend, network, False))
    return describe(path, network.input_shape, worker)


def names_in(file: Topology, topology: Topology, name: str) -> set[str]:
    """Return the names of what computes a layer in a file: its own, and those between the layers around it.

    Files write functions without names, and some layers as several functions.
    """
    names, others = ([layer.name for layer in each.layers] for each in (topology, file))
    at = names.index(name)
    begin = max((others.index(each) + 1 for each in names[:at] if each in others), default=0)
    end = min((others.index(each) for each in names[at + 1 :] if each in others), default=len(others))
    return {name, *others[begin:end]}


def tried(mistake: Planted, worker: Worker, folder: Path) -> tuple[str, bool, bool]:
    """Return the kind of mistake, whether the numbers differ, and whether the first difference names the layer."""
    # prediction shows it
    case = replace(mistake.case, labels=None, loss="l2", loss_options={}, class_weights=(), classes=False)
    try:
        with np.errstate(all="ignore"):
            parity = cases.check(case, worker.backend, worker, folder, stages=())
        found, first = not parity.ok, parity.first
    except ModelError:  # the parameters of networks that differ cannot be matched
        found, first = True, None
    if case.written is None:  # the file is right and its weights are wrong
        named = first is not None and first.name.partition(".")[0] == mistake.layer
    else:
        right, wrong = (described(network, worker, folder) for network in (case.topology, case.written))
        difference = compare(right, wrong).first
        inside = set.union(*(names_in(file, case.topology, mistake.layer) for file in (right, wrong)))
        named = difference is not None and any(re.search(rf"\b{re.escape(name)}\b", difference) for name in inside)
    return mistake.kind, found, named
