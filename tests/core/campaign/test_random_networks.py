"""Random networks: they cover the vocabulary, the losses and the solvers, and follow from the seed and the number alone."""

from __future__ import annotations

import numpy as np

from multiseg import reference
from multiseg.campaign.layers import DRAWN
from multiseg.campaign.networks import IGNORE, draw_case
from multiseg.parity.case import Case
from multiseg.settings.losses import LOSSES
from multiseg.settings.solvers import NEUTRAL
from multiseg.topology.vocabulary import VOCABULARY

CASES = [draw_case(1, number) for number in range(500)]


def test_every_layer_type_loss_and_solver_occurs() -> None:
    assert set(DRAWN) == set(VOCABULARY)
    assert {layer.type for case in CASES for layer in case.topology.layers} == set(VOCABULARY)
    assert {case.loss for case in CASES} == set(LOSSES)
    assert {case.solver["name"] for case in CASES} == set(NEUTRAL)
    assert {case.loss for case in CASES if case.class_weights} == {name for name, row in LOSSES.items() if row.weighted}
    assert any(case.labels is not None and (case.labels == IGNORE).any() for case in CASES)


def readers(case: Case) -> list[int]:
    return [sum(layer.inputs.count(value) for layer in case.topology.layers) for value in case.topology.shapes]


def test_windows_groups_dilations_and_shared_inputs_occur() -> None:
    convolutions = [
        layer for case in CASES for layer in case.topology.layers if layer.type in ("Conv", "ConvTranspose")
    ]
    for key, plain in {"group": 1, "dilations": [1, 1], "strides": [1, 1], "output_padding": [0, 0]}.items():
        assert any(layer.parameters.get(key, plain) != plain for layer in convolutions), key
    pads = [layer.parameters.get("pads", [0] * 4) for layer in convolutions]
    assert any(pad[:2] != pad[2:] for pad in pads) and any("auto_pad" in layer.parameters for layer in convolutions)
    assert any(max(readers(case)) > 1 for case in CASES)
    assert any(len(case.topology.shapes[layer.inputs[0]]) == 1 for case in CASES for layer in case.topology.layers)


def test_a_network_follows_from_seed_and_number() -> None:
    one, again, other = draw_case(3, 8), draw_case(3, 8), draw_case(4, 8)
    assert one.topology == again.topology and (one.loss, one.solver) == (again.loss, again.solver)
    assert np.array_equal(one.images, again.images) and np.array_equal(one.labels, again.labels)
    assert all(np.array_equal(value, again.weights[name]) for name, value in one.weights.items())
    assert one.topology != other.topology or not np.array_equal(one.images, other.images)


def test_the_reference_computes_every_network_in_prediction() -> None:
    with np.errstate(all="ignore"):
        traces = [reference.forward(case.topology, case.weights, case.images) for case in CASES[:100]]
    assert sum(np.isfinite(trace.output.value).all() for trace in traces) > 95
