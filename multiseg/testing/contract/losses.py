"""Tests of losses and their gradients."""

from __future__ import annotations

import numpy as np
import pytest

from multiseg.errors import SettingsError
from multiseg.reference.losses import FORMULAS
from multiseg.settings.losses import LOSSES
from multiseg.testing.bench import PLAIN, Bench
from multiseg.testing.contract.subject import Subject

MOST = 12  # parameters whose gradients are checked
STEP = 2.0**-8  # relative to the parameter's size: far above rounding, small enough for a difference quotient
DIRECTIONS = 3


def _declared(bench: Bench, loss: str) -> bool:
    """Return whether the backend declares the loss. One that it does not declare must be refused with a list of the others."""
    if loss in bench.backend.losses:
        return True
    with pytest.raises(SettingsError, match=", ".join(name for name in LOSSES if name in bench.backend.losses)):
        bench.spec(loss=loss)
    return False


class Losses(Subject):
    """Tests of the named losses."""

    @pytest.mark.parametrize("loss", FORMULAS)
    def test_a_named_loss_is_the_mean_over_elements(self, bench: Bench, loss: str) -> None:
        if not _declared(bench, loss):
            return
        bench.load(predict_only=True, loss=loss)
        bench.begin()
        images, labels = bench.images(5), bench.labels(5)
        output, measured = bench.predict(images, labels)
        difference = output.astype(np.float64) - labels
        expected = FORMULAS[loss](difference, **LOSSES[loss].parameters).value.mean()
        assert measured == pytest.approx(expected, rel=1e-5), f"predict: the loss {loss!r} is a mean over all elements"

    def test_the_loss_of_a_step_is_that_before_its_update(self, bench: Bench) -> None:
        bench.load(**PLAIN)
        own = bench.begin()
        batch = bench.batch()
        before = bench.step(batch, 0.0, seed=5)
        bench.weights = own
        assert bench.step(batch, 1.0, seed=5) == before, (
            "train_step: the loss must not depend on the rate of its update"
        )

    @pytest.mark.parametrize("loss", FORMULAS)
    def test_gradients_are_difference_quotients_of_the_loss(self, bench: Bench, loss: str) -> None:
        """Check random directions for each parameter; the loss is that of steps at rate 0, with the same random numbers."""
        if not _declared(bench, loss):
            return
        bench.load(**{**PLAIN, "loss": loss})
        own, batch = bench.begin(), bench.batch()
        averages = bench.averages()
        found = bench.gradient(batch, seed=7)
        draw = np.random.default_rng(2)
        names = [name for name in own if name not in averages]
        chosen = names if len(names) <= MOST else [names[at] for at in draw.choice(len(names), MOST, replace=False)]
        for name in chosen:
            size = STEP * max(float(np.sqrt(np.mean(np.square(own[name])))), 2.0**-10)
            measured, expected, noise = [], [], 0.0
            for _ in range(DIRECTIONS):
                # half along the gradient's signs, or the terms would nearly cancel; half random, to detect omitted terms
                uphill = np.sign(found[name]) * draw.choice([0, 1], own[name].shape)
                direction = size * np.where(uphill, uphill, draw.choice([-1, 1], own[name].shape))
                ends = []
                for sign in (1, -1):
                    bench.weights = {**own, name: (own[name] + sign * direction).astype(np.float32)}
                    ends.append(bench.step(batch, 0.0, seed=7))
                measured.append(ends[0] - ends[1])
                expected.append(2 * float((found[name] * direction).sum()))
                noise = max(noise, 2.0**-20 * abs(ends[0]))
            apart = float(np.abs(np.subtract(measured, expected)).max())
            allowed = 0.05 * float(np.abs(expected).max()) + noise
            assert apart <= allowed, (
                f"train_step: the gradient of {loss!r} by {name!r}, as a step of plain SGD tells it, is not that of the loss: "
                f"along some directions the loss changes by {measured}, the gradient says {expected}"
            )
