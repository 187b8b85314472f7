"""Network files: read, refused, and described as they are loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from multiseg import model_files
from multiseg.errors import ModelError
from multiseg.testing.bench import Bench
from multiseg.testing.comparing import refused, same_bits
from multiseg.testing.contract.subject import Subject


class Files(Subject):
    """What the reader and the loader make of files."""

    def test_the_reader_describes_the_network_that_is_loaded(self, bench: Bench) -> None:
        bench.load(predict_only=True)
        topology = model_files.describe(bench.model, bench.input_shape, bench.worker)
        loaded = {name: tuple(shape) for name, shape in bench.described["parameters"].items()}
        assert topology.weights == loaded, (
            f"{bench.backend.reader}.describe: weights are {topology.weights}, the loaded network's are {loaded}"
        )
        output, _ = bench.predict(bench.images(2))
        said = topology.shapes[topology.outputs[0]]
        assert output.shape[1:] == said, f"{bench.backend.reader}.describe: output is {said}, it is {output.shape[1:]}"

    @pytest.mark.parametrize("content", [None, b"", b"\x00\x01\x02 no network\xff"])
    def test_a_file_that_is_no_network_is_named(self, bench: Bench, tmp_path: Path, content: bytes | None) -> None:
        path = tmp_path / f"damaged{bench.model.suffix}"
        if content is not None:
            path.write_bytes(content)
        refused(
            lambda: bench.call("load", spec=replace(bench.spec(), model=str(path)).to_json()),
            ModelError, str(path), "Network(): a file that is no network must be a ModelError that names the file",
        )  # fmt: skip
        bench.load()  # the process goes on

    def test_a_snapshots_weights_are_read(self, bench: Bench, tmp_path: Path) -> None:
        bench.load()
        weights = bench.begin()
        bench.call("save", folder=str(tmp_path))
        found = []
        for path in sorted(tmp_path.iterdir()):
            try:
                owner, kind = model_files.kind_of(path, "weights")
            except ModelError:
                continue
            assert owner.name == bench.backend.name, f"{path.name}: is recognised as {owner.name}'s {kind.name}"
            arguments = {"path": str(path)}
            found.append(bench.call("read", module=owner.reader, function="read_weights", arguments=arguments))
        assert found, f"save: kinds recognises none of {sorted(path.name for path in tmp_path.iterdir())} as weights"
        for read in found:
            same_bits(
                {name: read[name] for name in weights if name in read},
                weights,
                "weights read from a snapshot",
            )
