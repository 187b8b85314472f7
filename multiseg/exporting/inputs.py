"""What can be exported: a network file, a run, or a description."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from multiseg.model_files.reading import describe
from multiseg.run.run import Run
from multiseg.topology import Topology


def run_of(given: Path | Run | Topology, stack: ExitStack) -> Run | None:
    """The run that is given, or that is in the folder given, which ``stack`` closes then; None where it is something else."""
    from multiseg.run.reading import is_run
    from multiseg.run.run import Run

    if isinstance(given, Run):
        return given
    if isinstance(given, Path) and is_run(given):
        return stack.enter_context(Run.open(given))
    return None


def file_of(given: Path | Run | Topology | None) -> Path | None:
    """The file or folder that is read for it."""
    from multiseg.run.run import Run

    return given.path if isinstance(given, Run) else given if isinstance(given, Path) else None


def described(network: Path | Run | Topology, run: Run | None, input_shape: tuple[int, int, int] | None) -> Topology:
    """A network file's, run's or described network, for images of ``input_shape``; a run's by default for its dataset's."""
    if isinstance(network, Topology):
        return network
    if run is None:
        assert isinstance(network, Path)
        return describe(network, input_shape)
    return run.topology if input_shape is None else describe(run.model, input_shape)
