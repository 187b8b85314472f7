"""Several steps in one call of a worker."""

from __future__ import annotations

import math
from typing import Any

from multiseg.worker.server import Server


class Diverging:
    """A network whose loss doubles from 2**1000 on, up to infinity, and that then refuses to train."""

    def __init__(self) -> None:
        self.loss, self.seeds = 2.0**1000, list[int]()

    def train_step(self, rate: float, seed: int) -> float:
        if math.isinf(self.loss):
            raise ValueError("weights are not finite")
        self.seeds.append(seed)
        self.loss *= 2.0
        return self.loss


def steps(*seeds: int) -> list[dict[str, Any]]:
    return [{"rate": 0.1, "seed": seed} for seed in seeds]


def test_steps_are_trained_in_order_up_to_a_loss_that_is_not_finite() -> None:
    server, network = Server(), Diverging()
    server.network = network  # type: ignore[assignment]
    assert server.train_steps(steps(7, 3, 5)) == [2.0**1001, 2.0**1002, 2.0**1003]
    assert network.seeds == [7, 3, 5]
    losses = server.train_steps(steps(*range(40)))  # 2.0**1024 is infinite
    assert losses == [2.0**exponent for exponent in range(1004, 1024)] + [math.inf]
