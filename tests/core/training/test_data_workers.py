"""How many processes read images, and how much memory decoded images take, unless a job says so."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from multiseg.dataset.decoded import Limit
from multiseg.training.ranks import Ranks
from multiseg.training.steps import readers_for


@pytest.mark.parametrize(
    ("requested", "device", "cores", "expected"),
    [
        (None, "cpu", 16, 0),  # its cores train
        (None, "cuda", 16, 4),
        (None, "cuda", 3, 2),
        (None, "cuda", 1, 0),
        (0, "cuda", 16, 0),
        (3, "cpu", 2, 3),
    ],
)
def test_a_number_for_the_device_and_the_cores(
    monkeypatch: pytest.MonkeyPatch, requested: int | None, device: str, cores: int, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    settings: Any = SimpleNamespace(data_workers=requested, device=device, image_cache=0)
    assert readers_for(settings, Ranks())._workers == expected


def test_the_processes_of_a_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    settings: Any = SimpleNamespace(data_workers=None, device="cuda", image_cache=0)
    assert readers_for(settings, Ranks(1, 4, local_size=4))._workers == 1


@pytest.mark.parametrize(
    ("requested", "epochs", "processes", "expected"),
    [
        (None, 2, 1, Limit(4_000_000_000, 1 / 4)),
        (None, 2, 4, Limit(1_000_000_000, 1 / 16)),
        (None, 1, 1, Limit(0)),
        (7, 1, 4, Limit(7_000_000)),
        (0, 9, 1, Limit(0)),
    ],
)
def test_memory_for_decoded_images(requested: int | None, epochs: int, processes: int, expected: Limit) -> None:
    settings: Any = SimpleNamespace(data_workers=0, device="cpu", image_cache=requested, epochs=epochs)
    assert readers_for(settings, Ranks(0, processes, local_size=processes))._limit == expected
