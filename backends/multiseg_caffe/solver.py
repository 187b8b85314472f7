"""Caffe's own solvers, multipliers, and the recipe `equal`."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import caffe
import numpy as np
from google.protobuf import text_format

from multiseg.network import Array, NetworkSpec, factors, is_frozen
from multiseg_caffe import solver_state
from multiseg_caffe.blobs import array_of, blob_of
from multiseg_caffe.proto import NetParameter, ParamSpec, SolverParameter, SolverState
from multiseg_caffe.weights import part

TYPES = {
    "sgd": "SGD",
    "nesterov": "Nesterov",
    "adagrad": "AdaGrad",
    "rmsprop": "RMSProp",
    "adadelta": "AdaDelta",
    "adam": "Adam",
}
SLOTS = {  # what Caffe keeps of each parameter (docs/solvers.md), in its order
    "sgd": ("displacement",),
    "nesterov": ("displacement",),
    "adagrad": ("square_sum",),
    "rmsprop": ("square",),
    "adadelta": ("square", "delta"),
    "adam": ("mean", "square"),
}
WEIGHTS, STATE = "network.caffemodel", "network.solverstate"  # in a snapshot's folder
STATISTICS = "BatchNorm"  # the type of layer whose parameters are no solver's


def set_multipliers(file: Any, counts: Mapping[str, int], spec: NetworkSpec) -> None:
    """Write the job's multipliers and frozen layers into the file's ``param { lr_mult decay_mult }``.

    ``counts`` says how many parameters each layer has. In the recipe `equal` the file's own multipliers do not count.
    """
    places = [  # a layer may be in the file once for each state
        (f"{layer.name}.{part(layer.type, index)}", layer, index)
        for layer in file.layer
        for index in range(counts.get(layer.name, 0))
    ]
    own = {}
    for name, layer, index in places:
        said = layer.param[index] if index < len(layer.param) and spec.recipe != "equal" else ParamSpec()
        own[name] = (said.lr_mult, said.decay_mult)
    trained = factors(spec, own)
    for name, layer, index in places:
        if layer.type == STATISTICS:
            continue  # Caffe sets these itself
        while len(layer.param) <= index:
            layer.param.add()
        # at 0 Caffe computes no gradient
        layer.param[index].lr_mult, layer.param[index].decay_mult = trained.get(name, (0.0, 0.0))


class Solver:
    """Caffe's solver for a net, at a rate that is given at every step."""

    def __init__(self, spec: NetworkSpec, net: Any, folder: Path) -> None:
        """``net`` is what to train; Caffe reads the solver from ``folder`` and writes its snapshots there."""
        assert spec.solver is not None
        self._folder = folder
        name = spec.solver["name"]
        options = {key: value for key, value in spec.solver.items() if key != "name"}
        # Caffe's momentum holds the rate, the recipe's does not: Caffe gives its update at rate 1, to be multiplied here
        self._rate_outside = spec.recipe == "equal" and name in ("sgd", "nesterov")
        self.slots = ("momentum",) if self._rate_outside else SLOTS[name]
        self.steps_count = name == "adam"
        rates = _rates(net)
        if self._rate_outside:
            net = _at_rate_1(net)
        parameter = SolverParameter(
            type=TYPES[name],
            net_param=net,
            base_lr=1.0,
            lr_policy="fixed",  # the core says the rate at every step
            iter_size=spec.accumulate,
            random_seed=spec.seed,
            max_iter=2**31 - 1,
            snapshot_prefix=str(folder / "snapshot"),
            solver_mode=SolverParameter.GPU if spec.device == "cuda" else SolverParameter.CPU,
            **options,  # they have Caffe's names
        )
        path = folder / "solver.prototxt"
        path.write_text(text_format.MessageToString(parameter))
        self._solver = caffe.get_solver(str(path))
        self.net = self._solver.net
        owners = solver_state.owners(self.net.params)
        self._blobs = [self.net.params[layer][index] for layer, index in owners]
        self._rates = [rates[owner] for owner in owners]
        kinds = {layer.name: layer.type for layer in net.layer}
        self.trained = {
            f"{layer}.{part(kinds[layer], index)}": rates[layer, index]
            for layer, index in owners
            if kinds[layer] != STATISTICS and rates[layer, index]
        }
        statistics = [layer.name for layer in net.layer if layer.type == STATISTICS]
        frozen = [name for name in statistics if is_frozen(f"{name}.weight", spec.frozen)]
        self._kept = [blob for name in frozen for blob in self.net.params[name]]
        self._before = [np.empty_like(blob.data) for blob in self._blobs] if self._rate_outside else []

    @contextmanager
    def gradients(self) -> Iterator[None]:
        """Within it, gradients are gathered from none; what frozen layers note of their inputs is undone."""
        kept = [blob.data.copy() for blob in self._kept]
        self.net.clear_param_diffs()
        yield
        for blob, value in zip(self._kept, kept):  # noqa: B905 - worker code runs on Python 3.9
            blob.data[...] = value

    def scale_gradients(self, factor: float) -> None:
        """Multiply the gradients gathered so far."""
        for blob in self._blobs:
            np.multiply(blob.diff, factor, out=blob.diff)

    def add_gradients(self, net: Any, factor: float) -> None:
        """Add ``factor`` times those of another net of the same parameters, which are set to 0."""
        theirs = [net.params[layer][index] for layer, index in solver_state.owners(net.params)]
        for blob, other in zip(self._blobs, theirs):  # noqa: B905
            np.multiply(other.diff, factor, out=other.diff)
            np.add(blob.diff, other.diff, out=blob.diff)
        net.clear_param_diffs()

    def step(self, rate: float) -> None:
        """Update once at learning rate ``rate`` by the sum of ``accumulate`` gradients in the net."""
        if not self._rate_outside:
            self._solver.param.base_lr = rate
            self._solver.apply_update()
            return
        for before, blob in zip(self._before, self._blobs):  # noqa: B905 - worker code runs on Python 3.9
            np.copyto(before, blob.data)
        self._solver.apply_update()
        for before, blob, factor in zip(self._before, self._blobs, self._rates):  # noqa: B905
            np.multiply(blob.diff, rate * factor, out=blob.diff)
            np.subtract(before, blob.diff, out=blob.data)

    def save(self, folder: Path) -> None:
        """Write Caffe's own files, weights and state, into a folder, which may be moved."""
        state = self._snapshot(folder / WEIGHTS)
        state.learned_net = WEIGHTS  # relative: a snapshot's folder may be moved
        (folder / STATE).write_bytes(state.SerializeToString())

    def _snapshot(self, weights: Path) -> Any:
        """Caffe's SolverState; the weights are written to a file."""
        self._solver.snapshot()
        prefix = f"snapshot_iter_{self._solver.iter}"
        shutil.move(str(self._folder / f"{prefix}.caffemodel"), str(weights))
        written = self._folder / f"{prefix}.solverstate"
        state = SolverState()
        state.ParseFromString(written.read_bytes())
        written.unlink()
        return state

    def history(self) -> tuple[list[Array], int]:
        """What Caffe keeps of each parameter, all parameters for each slot in turn, and how many updates it has made."""
        weights = self._folder / WEIGHTS
        state = self._snapshot(weights)
        weights.unlink()
        return [array_of(blob) for blob in state.history], state.iter

    def set_history(self, arrays: list[Array], steps: int | None) -> None:
        """The inverse of :meth:`history`; without steps as many as there have been."""
        steps = self._solver.iter if steps is None else steps
        state = SolverState(iter=steps, history=map(blob_of, arrays))  # naming no weights, it leaves them
        path = self._folder / STATE
        path.write_bytes(state.SerializeToString())
        self._solver.restore(str(path))
        path.unlink()

    def restore(self, folder: Path) -> None:
        """Read what :meth:`save` wrote."""
        before = Path.cwd()
        os.chdir(folder)  # the solver state names its weights by a relative path
        try:
            self._solver.restore(STATE)
        finally:
            os.chdir(before)


def _rates(net: Any) -> dict[tuple[str, int], float]:
    """Factors of the learning rate by layer and place; a layer that says none has 1."""
    said = {(layer.name, index): param.lr_mult for layer in net.layer for index, param in enumerate(layer.param)}
    return defaultdict(lambda: 1.0, said)


def _at_rate_1(net: Any) -> Any:
    """A copy in which what is trained is trained at 1."""
    copy = NetParameter()
    copy.CopyFrom(net)
    for param in (param for layer in copy.layer for param in layer.param):
        param.lr_mult = float(param.lr_mult != 0)
    return copy
