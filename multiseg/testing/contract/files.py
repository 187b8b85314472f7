"""Tests of network files: reading, refusing invalid files, and agreement of description and loaded network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multiseg.errors import ModelError
from multiseg.exporting import source
from multiseg.model_files import kinds, reading, writing
from multiseg.testing.bench import Bench
from multiseg.testing.comparing import close, refused, same_bits
from multiseg.testing.contract.subject import Subject
from multiseg.topology.matching import match


class Files(Subject):
    """Tests of the reader and the loader of files."""

    def test_the_reader_describes_the_network_that_is_loaded(self, bench: Bench) -> None:
        bench.load(predict_only=True)
        topology = reading.describe(bench.model, bench.input_shape, bench.worker)
        loaded = {name: tuple(shape) for name, shape in bench.described["parameters"].items()}
        assert topology.weights == loaded, (
            f"{bench.backend.reader}.describe: weights are {topology.weights}, the loaded network's are {loaded}"
        )
        output, _ = bench.predict(bench.images(2))
        described = topology.shapes[topology.outputs[0]]
        assert output.shape[1:] == described, (
            f"{bench.backend.reader}.describe: output is {described}, the loaded network's is {output.shape[1:]}"
        )

    @pytest.mark.parametrize("content", [None, b"", b"\x00\x01\x02 no network\xff"])
    def test_a_file_that_is_no_network_is_named(self, bench: Bench, tmp_path: Path, content: bytes | None) -> None:
        path = tmp_path / f"damaged{bench.model.suffix}"
        if content is not None:
            path.write_bytes(content)
        refused(
            lambda: bench.call("load", spec=replace(bench.spec(), model=str(path)).to_json()),
            ModelError, str(path), "Network(): a file that is no network must be a ModelError that names the file",
        )  # fmt: skip
        bench.load()  # the process is still usable

    def test_a_snapshots_weights_are_read(self, bench: Bench, tmp_path: Path) -> None:
        bench.load()
        weights = bench.begin()
        bench.call("save", folder=str(tmp_path))
        weights_read = []
        for path in sorted(tmp_path.iterdir()):
            try:
                owner, kind = kinds.kind_of(path, "weights")
            except ModelError:
                continue
            assert owner.name == bench.backend.name, f"{path.name}: is recognised as {owner.name}'s {kind.name}"
            weights_read.append(_read(bench, path))
        assert weights_read, (
            f"save: kinds recognises none of {sorted(path.name for path in tmp_path.iterdir())} as weights"
        )
        for read in weights_read:
            same_bits(read, weights, "weights read from a snapshot")

    def test_weights_that_are_written_are_read(self, bench: Bench, tmp_path: Path) -> None:
        if bench.backend.writer is None:
            pytest.skip("the backend has no writer of weights")
        bench.load()
        weights = bench.begin()
        ending = next(kind.extensions[0] for kind in bench.backend.kinds if kind.holds == "weights" and kind.extensions)
        path = tmp_path / f"weights{ending}"
        writing.write_weights(bench.backend, path, weights, bench.model, bench.input_shape, bench.worker)
        same_bits(_read(bench, path), weights, f"weights read from what {bench.backend.writer} wrote")

    def test_an_exported_file_computes_the_same(self, bench: Bench, tmp_path: Path) -> None:
        if bench.backend.exporter is None:
            pytest.skip("the backend has no exporter")
        topology = reading.describe(bench.model, bench.input_shape, bench.worker)
        path = tmp_path / f"exported{bench.backend.formats[0]}"
        path.write_text(source.source(bench.backend, topology, classes=False))
        exported = reading.describe(path, bench.input_shape, bench.worker)
        assert exported == topology, (
            f"{bench.backend.exporter}: what it wrote is another network: {topology.diff(exported)}"
        )
        bench.load(predict_only=True)
        weights, images = bench.begin(), bench.images(3)
        output, _ = bench.predict(images)
        spec = replace(bench.spec(), model=str(path), solver=None)
        loaded = bench.call("load", spec=spec.to_json())["parameters"]
        names = match(topology, exported).parameters
        bench.weights = {name: weights[names[name]] for name in loaded}
        tolerance = 1e-5 * np.abs(output).max()
        close(
            bench.predict(images)[0],
            output,
            tolerance,
            f"the output of the network that {bench.backend.exporter} wrote",
        )


def _read(bench: Bench, path: Path) -> dict[str, Any]:
    """Return a file's neutral weights in the network's order of names."""
    weights = reading.read_neutral(path, bench.model, bench.input_shape, bench.worker).weights
    known = [name for name in bench.described["parameters"] if name in weights]
    return {name: weights[name] for name in known + [name for name in weights if name not in known]}
