"""Tests of the backend's metadata and interface."""

from __future__ import annotations

import subprocess
import sys

from multiseg import backend as registry
from multiseg.backend import Backend
from multiseg.model_files.kinds import kind_of
from multiseg.settings.losses import LOSSES
from multiseg.testing.bench import Bench
from multiseg.testing.contract.subject import Subject

CODE = """
import sys
before = set(sys.modules)
from multiseg import backend
found = backend.get({name!r})
assert found.framework not in set(sys.modules) - before, found.framework
"""


class Interface(Subject):
    """Tests of declared values and signatures."""

    def test_metadata_needs_no_framework(self, bench: Bench) -> None:
        done = subprocess.run(
            [sys.executable, "-c", CODE.format(name=bench.backend.name)], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, (
            f"asking for the backend {bench.backend.name!r} must not import {bench.backend.framework!r}: import it in "
            f"{bench.backend.module} alone\n{done.stderr}"
        )

    def test_metadata_is_what_it_says(self, bench: Bench) -> None:
        declared: Backend = registry.get(bench.backend.name)
        assert declared.name in registry.names(), f"the entry point and Backend.name={declared.name!r} differ"
        assert declared.data_order in ("NCHW", "NHWC") and declared.channel_order in ("RGB", "BGR")
        assert declared.learning_rate > 0 and declared.batch_size >= 1 and declared.val_batch_size >= 1
        assert "sgd" in declared.solvers, "solvers: sgd is what a job trains with that names none"
        unknown = [loss for loss in declared.losses if loss not in LOSSES]
        assert not unknown, f"losses: {unknown} are not in multiseg.settings.losses"
        assert declared.install and declared.title and declared.framework
        for holds in ("network", "weights"):
            assert any(kind.holds == holds for kind in declared.kinds), f"kinds: none holds {holds}"
        assert declared.formats, "kinds: no network file has an extension"
        owner, _ = kind_of(declared.default_model_path, "network")
        assert owner.name == declared.name, f"{declared.default_model_path}: is recognised as a file of {owner.name!r}"

    def test_has_the_interfaces_signatures(self, bench: Bench) -> None:
        problems = bench.inside("signatures")
        assert not problems, "\n".join(problems)

    def test_its_file_functions_have_the_protocols_signatures(self, bench: Bench) -> None:
        declared = bench.backend
        functions = {
            role: getattr(declared, role) for role in ("exporter", "writer", "onnx", "alone") if getattr(declared, role)
        }
        problems = bench.inside("file_signatures", reader=declared.reader, functions=functions)
        assert not problems, "\n".join(problems)

    def test_tells_its_version_and_device(self, bench: Bench) -> None:
        for key in ("version", "device"):
            assert isinstance(bench.worker.probed.get(key), str), (
                f"probe() must return its {key!r}: {bench.worker.probed}"
            )

    def test_describes_itself(self, bench: Bench) -> None:
        bench.load(batch_size=3, val_batch_size=5, loss="l1")
        described = bench.described
        for key, kind in {"batch_size": int, "val_batch_size": int, "device": str, "labels": str,
                          "parameters": dict, "lowered": list, "trained": dict}.items():  # fmt: skip
            assert isinstance(described.get(key), kind), (
                f"describe()[{key!r}] must be a {kind.__name__}: {described.get(key)!r}"
            )
        specified = {"batch_size": 3, "val_batch_size": 5, "labels": "images"}
        assert {key: described[key] for key in specified} == specified, (
            "describe() must return what the specification requested"
        )
        shapes = {name: list(value.shape) for name, value in bench.weights.items()}
        assert described["parameters"] == shapes and list(described["parameters"]) == list(shapes), (
            "describe()['parameters'] must be the names and shapes of get_weights(), in its order"
        )
        layers = {name.rpartition(".")[0] for name in shapes}
        assert set(described["lowered"]) <= layers, (
            f"describe()['lowered'] must be names of layers: {described['lowered']}"
        )
        layer = next(iter(shapes)).rpartition(".")[0]
        bench.load(recipe="equal", multipliers={"*.bias": {"lr": 2}}, freeze=[layer])
        trained = bench.described["trained"]
        moved = {name for name in shapes if name.rpartition(".")[0] != layer}
        factors = {name: 2.0 if name.endswith(".bias") else 1.0 for name in trained}
        assert set(trained) <= moved and trained == factors, (
            f"describe()['trained'] must be what the solver moves, with its factor of the rate: {trained}; frozen is {layer!r}"
        )
        bench.load(batch_size=None, loss=None)
        assert bench.described["batch_size"] >= 1 and bench.described["val_batch_size"] >= 1
