"""Train with Caffe's own solvers; learning rate and decay multipliers; the recipe `equal`."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
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
from multiseg_caffe.weights import is_fixed, is_statistic, part, shared

TYPES = {
    "sgd": "SGD",
    "nesterov": "Nesterov",
    "adagrad": "AdaGrad",
    "rmsprop": "RMSProp",
    "adadelta": "AdaDelta",
    "adam": "Adam",
}
SLOTS = {  # arrays that Caffe keeps for each parameter (docs/solvers.md), in Caffe's order
    "sgd": ("displacement",),
    "nesterov": ("displacement",),
    "adagrad": ("square_sum",),
    "rmsprop": ("square",),
    "adadelta": ("square", "delta"),
    "adam": ("mean", "square"),
}
WEIGHTS, STATE = "network.caffemodel", "network.solverstate"  # in a snapshot's folder


def set_multipliers(file: Any, counts: Mapping[str, int], spec: NetworkSpec) -> None:
    """Write the job's multipliers and frozen layers into the ``param { lr_mult decay_mult }`` of ``file`` (NetParameter).

    ``counts`` maps layers to their numbers of parameters. Of the file's own multipliers, the recipe `equal` only has layers that
    they fix.
    """
    parameters = [  # a layer may be in the file once for each state
        (f"{layer.name}.{part(layer.type, index)}", layer, index)
        for layer in file.layer
        for index in range(counts.get(layer.name, 0))
    ]
    stated: dict[str, Any] = {}
    for name, layer, index in parameters:
        param = layer.param[index] if index < len(layer.param) else ParamSpec()
        if spec.recipe == "equal" and not is_fixed(layer, counts[layer.name]):
            param = ParamSpec()
        stated[name] = param
    groups = [[name for name in names if name in stated] for names in shared(file.layer)]
    stated |= {name: _merged([stated[other] for other in (*names, name)]) for names in groups for name in names}
    file_multipliers = {name: (param.lr_mult, param.decay_mult) for name, param in stated.items()}
    trained = factors(spec, file_multipliers, groups)
    for name, layer, index in parameters:
        if is_statistic(layer.type, index):
            continue  # Caffe sets their multipliers itself
        while len(layer.param) <= index:
            layer.param.add()
        # with lr_mult 0 Caffe computes no gradient
        layer.param[index].lr_mult, layer.param[index].decay_mult = trained.get(name, (0.0, 0.0))


def _merged(params: Sequence[Any]) -> Any:
    """Return the last ParamSpec, completed by the others: Caffe lets one layer state the multipliers of shared weights."""
    merged = ParamSpec()
    for param in params:
        merged.MergeFrom(param)
    return merged


class Solver:
    """Caffe's solver for a net; :meth:`step` takes the learning rate."""

    def __init__(self, spec: NetworkSpec, net: Any, folder: Path) -> None:
        """Create the solver of ``net`` (NetParameter); ``folder`` is for its solver.prototxt and Caffe's snapshots."""
        assert spec.solver is not None
        self._folder = folder
        name = spec.solver["name"]
        options = {key: value for key, value in spec.solver.items() if key != "name"}
        # Caffe's momentum includes the rate, the recipe's does not: Caffe computes the update at rate 1, step() multiplies it
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
            lr_policy="fixed",  # step() sets the rate
            iter_size=spec.accumulate,
            random_seed=spec.seed,
            max_iter=2**31 - 1,
            snapshot_prefix=str(folder / "snapshot"),
            solver_mode=SolverParameter.GPU if spec.device == "cuda" else SolverParameter.CPU,
            **options,  # multiseg uses Caffe's names
        )
        path = folder / "solver.prototxt"
        path.write_text(text_format.MessageToString(parameter))
        self._solver = caffe.get_solver(str(path))
        self.net = self._solver.net
        owners = solver_state.owners(self.net.params)
        self._blobs = [self.net.params[layer][index] for layer, index in owners]
        self._rates = [rates[owner] for owner in owners]
        types = {layer.name: layer.type for layer in net.layer}
        self.trained = {
            f"{layer}.{part(types[layer], index)}": rates[layer, index]
            for layer, index in owners
            if not is_statistic(types[layer], index) and rates[layer, index]
        }
        self._frozen_statistics = [
            blob
            for layer, blobs in self.net.params.items()
            for index, blob in enumerate(blobs)
            if is_statistic(types[layer], index) and is_frozen(f"{layer}.weight", spec.frozen)
        ]
        self._before = [np.empty_like(blob.data) for blob in self._blobs] if self._rate_outside else []

    @contextmanager
    def gradients(self) -> Iterator[None]:
        """Return a context in which gradients accumulate, starting at 0; on exit it restores frozen layers' statistics."""
        statistics = [blob.data.copy() for blob in self._frozen_statistics]
        self.net.clear_param_diffs()
        yield
        for blob, value in zip(self._frozen_statistics, statistics):  # noqa: B905 - worker code runs on Python 3.9
            blob.data[...] = value

    def scale_gradients(self, factor: float) -> None:
        """Multiply the gradients accumulated so far by ``factor``."""
        for blob in self._blobs:
            np.multiply(blob.diff, factor, out=blob.diff)

    def add_gradients(self, net: Any, factor: float) -> None:
        """Add ``factor`` times the gradients of another net of the same parameters, then set these gradients to 0."""
        other_blobs = [net.params[layer][index] for layer, index in solver_state.owners(net.params)]
        for blob, other in zip(self._blobs, other_blobs):  # noqa: B905
            np.multiply(other.diff, factor, out=other.diff)
            np.add(blob.diff, other.diff, out=blob.diff)
        net.clear_param_diffs()

    def step(self, rate: float) -> None:
        """Update the parameters once, at learning rate ``rate``, by the sum of ``accumulate`` gradients in the net."""
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
        """Write Caffe's own files, weights and solver state, into a folder, which may be moved later."""
        state = self._snapshot(folder / WEIGHTS)
        state.learned_net = WEIGHTS  # a relative path, so that the folder may be moved
        (folder / STATE).write_bytes(state.SerializeToString())

    def _snapshot(self, weights: Path) -> Any:
        """Return Caffe's SolverState, and write the weights to a file."""
        self._solver.snapshot()
        prefix = f"snapshot_iter_{self._solver.iter}"
        shutil.move(str(self._folder / f"{prefix}.caffemodel"), str(weights))
        written = self._folder / f"{prefix}.solverstate"
        state = SolverState()
        state.ParseFromString(written.read_bytes())
        written.unlink()
        return state

    def history(self) -> tuple[list[Array], int]:
        """Return the arrays that Caffe keeps (for each slot, one for each parameter), and the number of updates so far."""
        weights = self._folder / WEIGHTS
        state = self._snapshot(weights)
        weights.unlink()
        return [array_of(blob) for blob in state.history], state.iter

    def set_history(self, arrays: list[Array], steps: int | None) -> None:
        """Set the arrays and the number of updates that :meth:`history` returns; None keeps the number of updates."""
        steps = self._solver.iter if steps is None else steps
        state = SolverState(
            iter=steps, history=map(blob_of, arrays)
        )  # without learned_net: restore() keeps the weights
        path = self._folder / STATE
        path.write_bytes(state.SerializeToString())
        self._solver.restore(str(path))
        path.unlink()

    def restore(self, folder: Path) -> None:
        """Read the files that :meth:`save` writes. Raises ModelError for a solver state of other parameters."""
        solver_state.check(folder / STATE, WEIGHTS, [blob.data.shape for blob in self._blobs])
        working_directory = Path.cwd()
        os.chdir(folder)  # the solver state refers to its weights by a relative path
        try:
            self._solver.restore(STATE)
        finally:
            os.chdir(working_directory)


def _rates(net: Any) -> dict[tuple[str, int], float]:
    """Return lr_mult by layer and index of the parameter; the default is 1."""
    multipliers = {(layer.name, index): param.lr_mult for layer in net.layer for index, param in enumerate(layer.param)}
    return defaultdict(lambda: 1.0, multipliers)


def _at_rate_1(net: Any) -> Any:
    """Return a copy of ``net`` with lr_mult 1 for all parameters whose lr_mult is not 0."""
    copy = NetParameter()
    copy.CopyFrom(net)
    for param in (param for layer in copy.layer for param in layer.param):
        param.lr_mult = float(param.lr_mult != 0)
    return copy
