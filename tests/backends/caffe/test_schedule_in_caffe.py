"""Rates against Caffe's own solver: a parameter whose gradient is 1 moves by the rate at each step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from multiseg.settings.schedules import POLICIES, Schedule

pytestmark = pytest.mark.needs("caffe")

# parameters as Caffe's solver takes them for 1,000 iterations (a percent is 10), from DIGITS' defaults
SOLVERS = {
    "fixed": "",
    "step": "stepsize: 330 gamma: 0.1",
    "multistep": "stepvalue: 500 stepvalue: 850 gamma: 0.5",
    "exp": f"gamma: {0.95**0.1!r}",
    "inv": "gamma: 0.01 power: 0.5",
    "poly": "power: 3",
    "sigmoid": "gamma: 0.01 stepsize: 500",  # this Caffe takes no negative gamma, as DIGITS gives it: see the mirror below
    "linear": "power: 1",
}
PROGRAM = """
import json, sys
import caffe
folder, solvers = sys.argv[1], json.loads(sys.argv[2])
# the loss is the parameter itself: its gradient is 1
net = '''
layer { name: "one" type: "DummyData" top: "one" dummy_data_param { shape { dim: 1 dim: 1 } data_filler { value: 1 } } }
layer { name: "moved" type: "InnerProduct" bottom: "one" top: "moved" loss_weight: 1
        inner_product_param { num_output: 1 bias_term: false weight_filler { type: "constant" value: 0 } } }
'''
rates = {}
for policy, parameters in solvers.items():
    path = f"{folder}/{policy}.prototxt"
    with open(path, "w") as file:
        file.write(f'type: "SGD" base_lr: 1 momentum: 0 max_iter: 1000 display: 0 snapshot_after_train: false '
                   f'lr_policy: "{"poly" if policy == "linear" else policy}" {parameters} net_param {{ {net} }}')
    solver = caffe.get_solver(path)
    weight, seen = solver.net.params["moved"][0].data, []
    for _ in range(1000):
        weight[...] = 0
        solver.step(1)
        seen.append(-float(weight[0, 0]))
    rates[policy] = seen
print(json.dumps(rates))
"""


def test_every_policy_gives_the_rates_of_caffes_own_solver_at_1000_steps(tmp_path: Path) -> None:
    assert list(SOLVERS) == list(POLICIES)
    python = os.environ.get("MULTISEG_CAFFE_PYTHON", sys.executable)
    done = subprocess.run(
        [python, "-c", PROGRAM, str(tmp_path), json.dumps(SOLVERS)], capture_output=True, text=True, timeout=240,
        env=os.environ | {"GLOG_minloglevel": "2"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for policy, rates in json.loads(done.stdout).items():
        schedule = Schedule.of(policy)
        if policy == "sigmoid":  # with the other sign it falls as it rises with this one
            rates = [1 - rate for rate in rates]
        # Caffe computes in float32
        assert [schedule.rate(1.0, i, 1000) for i in range(1000)] == pytest.approx(rates, rel=2e-4, abs=1e-7), policy
