"""Tests of reproducibility to the bit: by seed, and after resuming from a snapshot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from multiseg.settings.solvers import NEUTRAL
from multiseg.testing.bench import PLAIN, Bench, Weights
from multiseg.testing.comparing import same_bits
from multiseg.testing.contract.subject import Subject

RATE = 2.0**-6


class Repeating(Subject):
    """Tests that results depend only on the seed and on the saved state."""

    @pytest.mark.parametrize("threads", [1, 2])
    def test_a_seed_repeats_a_training_to_the_bit(self, bench: Bench, threads: int) -> None:
        """Repeat within a process, and in another one, where addresses differ."""
        other = self.start(threads)
        try:
            once, again = _trained(other), _trained(other)
        finally:
            other.close()
        same_bits(again, once, f"weights trained again from one seed, {threads} threads")
        if threads == bench.threads:
            same_bits(_trained(bench), once, "weights trained from one seed in another process")

    def test_what_is_random_in_a_step_depends_on_its_seed_alone(self, bench: Bench) -> None:
        bench.load(**PLAIN)
        own, batch = bench.begin(), bench.batch()
        losses = []
        for seed in (5, 6, 5):
            bench.weights = own
            losses.append(bench.step(batch, 0.0, seed=seed))
        assert losses[0] == losses[2], "train_step: draws must depend on `seed` alone, not on the steps before"
        bench.weights = own
        once, again = (bench.predict(bench.images(), bench.labels()) for _ in range(2))
        assert once[0].tobytes() == again[0].tobytes() and once[1] == again[1], "predict: must draw nothing"

    @pytest.mark.parametrize("recipe", ["tutorial", "equal"])
    def test_a_solver_goes_on_to_the_bit(self, bench: Bench, solver: str, recipe: str, tmp_path: Path) -> None:
        if recipe == "equal" and solver not in NEUTRAL:
            pytest.skip(f"the recipe has no {solver}")
        settings: dict[str, Any] = {"recipe": recipe, "solver": solver, "loss": "l2"}
        bench.load(**settings)
        start = bench.begin()
        _steps(bench, range(2))
        bench.call("save", folder=str(tmp_path))
        saved, state = bench.weights, bench.state
        _steps(bench, range(2, 4))
        whole = bench.weights
        assert any(whole[name].tobytes() != start[name].tobytes() for name in start), "train_step: moves no weight"
        bench.load(**settings, seed=9)
        bench.call("set_weights", weights=saved, state=state)
        same_bits(bench.state, state, f"get_weights(state=True) of {solver} ({recipe}) after set_weights with it")
        _steps(bench, range(2, 4))
        # running averages may have a count beside them, as in Caffe
        moved, names = bench.weights, bench.described["trained"]
        same_bits(
            {name: moved[name] for name in names}, {name: whole[name] for name in names},
            f"weights of {solver} ({recipe}) trained on from set_weights with the solver's state",
        )  # fmt: skip
        bench.call("restore", folder=str(tmp_path))
        same_bits(bench.weights, saved, "weights restored from a snapshot")
        _steps(bench, range(2, 4))
        what = (
            f"weights of {solver} ({recipe}) trained on from a snapshot: save must keep all that the solver does; they"
        )
        same_bits(bench.weights, whole, what)

    def test_a_network_that_only_predicts_restores_a_snapshot(self, bench: Bench, tmp_path: Path) -> None:
        bench.load()
        bench.begin()
        _steps(bench, range(2))
        bench.call("save", folder=str(tmp_path))
        saved, images = bench.weights, bench.images()
        output, _ = bench.predict(images)
        bench.load(predict_only=True, seed=9)
        bench.call("restore", folder=str(tmp_path))
        same_bits(bench.weights, saved, "weights restored for prediction only")
        assert bench.predict(images)[0].tobytes() == output.tobytes(), "predict: differs after restore"


def _steps(bench: Bench, steps: range) -> None:
    for step in steps:
        bench.step(bench.batch(seed=step), RATE * (1 + step), seed=step)


def _trained(bench: Bench) -> Weights:
    """Train from the network's initial weights, with a solver that has much state."""
    solver = next(name for name in ("adam", "sgd") if name in bench.backend.solvers)
    bench.load(solver=solver, seed=5, loss="l2")
    _steps(bench, range(3))
    return bench.weights
