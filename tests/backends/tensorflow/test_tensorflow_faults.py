"""The death of a process by a fault of the ledger is told from one that nothing explains."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from multiseg_tensorflow.faults import ONE_CHANNEL, known

from helpers.tensorflow_files import model, network
from multiseg import backend as registry
from multiseg.campaign.campaign import _Checks
from multiseg.campaign.networks import draw_case
from multiseg.campaign.outcome import Outcome

pytestmark = pytest.mark.needs("tensorflow")

NEW_PROCESSES = True  # they are killed
SEED, WITHOUT, WITH = 1, 5, 6  # networks without and with a convolution of one pixel that has a stride

# name -> kernel, stride, groups
CONVOLUTIONS = {"all": (1, 1, 1), "strided": (1, 2, 1), "wide": (3, 2, 1), "grouped": (1, 2, 2)}


def test_the_layers_of_the_fault_are_those_that_are_lowered_for_it(tmp_path: Path) -> None:
    text = model("\n".join([
        "net = tf.concat([self.x, self.x], 3)",
        "parts = []",
        *(f"weights = tf.get_variable('{name}/weights', [{kernel}, {kernel}, {2 // groups}, 2])\n"
          f"parts.append(tf.reduce_mean(tf.nn.conv2d(net, weights, {stride}, 'SAME'), [1, 2, 3]))"
          for name, (kernel, stride, groups) in CONVOLUTIONS.items()),
        "return self.x * tf.reshape(tf.add_n(parts), [-1, 1, 1, 1])",
    ]))  # fmt: skip
    parameters = {
        name: {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "group": groups}
        for name, (kernel, stride, groups) in CONVOLUTIONS.items()
    }
    at_risk = {name for name, values in parameters.items() if known("Conv", values, (2, 8, 8))}
    # a convolution whose stride is its kernel is lowered, too, for its speed
    assert at_risk | {"all"} == set(network(tmp_path, text).describe()["lowered"])
    assert known("ConvTranspose", {**parameters["strided"], "num_output": 1}, (2, 8, 8)) is None
    into_one = {"kernel_shape": [3, 3], "strides": [1, 2], "num_output": 1}
    assert known("ConvTranspose", into_one, (2, 8, 8)) == ONE_CHANNEL


def test_numbers_that_a_fault_makes_wrong_are_explained(tmp_path: Path) -> None:
    """A convolution of one channel, which reads beyond its image: other memory at each try, so that it may also agree."""
    backend = registry.get("tensorflow")
    assert known("Conv", {"kernel_shape": [3, 3], "strides": [1, 2]}, (1, 8, 8)) == ONE_CHANNEL
    with _Checks(32, tmp_path, False) as checks:
        rows = [checks.outcome(2291, draw_case(32, 2291), backend) for _ in range(4)]
    assert {row.verdict for row in rows} <= {"agrees", "known fault"} and not any(row.alarm for row in rows)


def outcome_of_a_death(before: list[int], number: int, folder: Path) -> Outcome:
    """The outcome of a network whose process has checked others before, and is killed."""
    backend = registry.get("tensorflow")
    with _Checks(SEED, folder, False) as checks:
        for other in before:  # its fault may end the process, of which a new one knows nothing
            rows = (checks.outcome(other, draw_case(SEED, other), backend) for _ in range(10))
            assert any(row.verdict == "agrees" for row in rows)
        os.kill(checks._worker(backend).pid, signal.SIGKILL)
        return checks.outcome(number, draw_case(SEED, number), backend)


@pytest.mark.parametrize(
    ("before", "number", "verdict"),
    [([], WITHOUT, "crash"), ([], WITH, "known fault"), ([WITH], WITHOUT, "known fault")],
)
def test_a_death_is_explained_by_what_the_process_trained(
    before: list[int], number: int, verdict: str, tmp_path: Path
) -> None:
    outcome = outcome_of_a_death(before, number, tmp_path)
    assert (outcome.verdict, outcome.alarm) == (verdict, verdict == "crash")
    assert "SIGKILL" in outcome.words
    assert ("docs/upstream-faults.md#training-a-1x1-convolution" in outcome.words) == (verdict == "known fault")
