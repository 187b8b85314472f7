"""From a run or a weights file to a weights file of any framework."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from multiseg import backend as registry
from multiseg import files
from multiseg.backend import Backend
from multiseg.conversion import channels as colours
from multiseg.conversion import target as targets
from multiseg.conversion.converted import Converted
from multiseg.conversion.frameworks import Frameworks, InputShape
from multiseg.conversion.mapping import Mapped, Side, mapped
from multiseg.conversion.source import Source, image_shape, makes_colours, of_file, of_run
from multiseg.conversion.target import Target
from multiseg.errors import ModelError, SettingsError
from multiseg.exporting import source
from multiseg.model_files import weights_file, writing
from multiseg.model_files.weights_file import Array, NeutralWeights
from multiseg.run.reading import is_run
from multiseg.run.run import Run

NEUTRAL = "safetensors"
Channels = Literal["image", "keep"]


def convert(
    source: Run | str | Path, to: str, out: str | Path, network: str | Path | None = None,
    source_network: str | Path | None = None, map: Mapping[str, str] | None = None, channels: Channels = "image",
    input_shape: tuple[int, int, int] | None = None, label_shape: tuple[int, int, int] | None = None,
    snapshot: str | float = "last", with_network: str | Path | None = None,
) -> Converted:  # fmt: skip
    """Write the weights of a run (``snapshot``: last, best or an epoch) or of a weights file as ``to`` has them.

    ``to`` is safetensors, or what a backend calls its weights: caffemodel, pt, tf. ``network`` is the network file that they are
    for. Without it they are for the file that :func:`multiseg.export` writes of the source's network, which ``with_network``
    has written too; where that network is not known either, they keep their names. ``source_network`` is the network file of a
    weights file, ``input_shape`` (C, H, W) the size of the images that the networks are described for, as in
    :func:`multiseg.describe`, ``label_shape`` that of their labels.

    Parameters are matched as ``map`` says, of layers or of parameters; else by structure where both networks are known, else by
    name, else by shape where only one fits. With channels="image" the new network computes the same of the same image: where
    it is fed the colours in another order, what reads them is reordered, and what makes images of colours. channels="keep"
    leaves the arrays as they are.

    Raises SettingsError, ModelError, RunError or BackendUnavailable naming what is wrong; nothing is written then.
    """
    path, beside = Path(out), None if with_network is None else Path(with_network)
    backend = _check(to, path, channels, network, beside)
    read = [source.path if isinstance(source, Run) else source, network, source_network]
    inputs = [None if each is None else Path(each) for each in read]
    _check_outputs(path, beside, inputs)
    with ExitStack() as stack:
        frameworks = stack.enter_context(Frameworks())
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="multiseg-"))
        stack.enter_context(_told_without(scratch, (beside or path).parent))
        if isinstance(source, Run) or is_run(Path(source)):
            run = source if isinstance(source, Run) else frameworks.opened(Run.open(source, snapshot))
            _check_run(run, source_network, input_shape)
            at_home = network is None and beside is None and (backend is None or backend.name == run.backend)
            found = of_run(run, state=backend is None, described=not at_home)
        else:
            own = None if source_network is None else Path(source_network)
            found = of_file(Path(source), own, input_shape, label_shape, frameworks)
        if network is not None:
            target = targets.given(found, backend, Path(network), frameworks)
        else:
            target = targets.derived(
                found, backend, Path(scratch) / (beside or path).name, beside is not None, frameworks
            )
        matching = _matched(found, target, map or {})
        weights = {name: found.weights[own] for name, own in matching.names.items()}
        made = _of_the_same_image(found, target, weights) if channels == "image" else weights
        order = target.order if channels == "image" else found.order
        shape = found.input_shape if target.topology is None else image_shape(target.topology)
        kept = _kept_state(found, matching, made) if backend is None else NeutralWeights(made)
        spare = [name for name in found.weights if name not in matching.names.values()]
        others = {name: found.weights[name] for name in spare if name not in made}
        more: dict[str, list[str]] = {"taken": [], "started": []}
        with _staged(path) as staged:
            if backend is None:
                weights_file.write(staged, replace(kept, channel_order=order))
            else:
                more = frameworks.write(backend, staged, made, target.network, shape, others)
            for file in staged.parent.iterdir():  # a checkpoint is several
                writing.check_output(path.parent / file.name, inputs)
            if beside is not None and target.text is not None:
                files.write_text(beside, target.text)
    changed = tuple(name for name in made if not np.array_equal(made[name], weights[name], equal_nan=True))
    left = [name for name in spare if name not in more["taken"]]
    if found.content.solver is not None and kept.solver is None:
        left.append("the solver's state")
    names = matching.names | {name: name for name in more["taken"]}
    return Converted(path, to, names, matching.how, order, changed, tuple(left), tuple(more["started"]), beside)


def _matched(found: Source, target: Target, given: Mapping[str, str]) -> Mapped:
    if target.network is not None and target.network == found.network and not given:  # also what leads to no output
        return mapped(Side(found.title, {name: value.shape for name, value in found.weights.items()}), None, {})
    return mapped(found.side, target.side, given)


def _kept_state(found: Source, matching: Mapped, made: Mapping[str, Array]) -> NeutralWeights:
    """The weights, with what the solver kept where all of them are what and where they were."""
    same = matching.names.items() == {name: name for name in found.weights}.items()
    if same and all(made[name] is found.weights[name] for name in made):
        return replace(found.content, weights=made)
    return NeutralWeights(made)


def formats() -> dict[str, Backend | None]:
    """What weights can be written as, with the backend whose own files those are."""
    backends = [registry.get(name) for name in registry.names()]
    return {NEUTRAL: None, **{backend.weights_format: backend for backend in backends if backend.weights_format}}


def _check(to: str, out: Path, channels: str, network: object, beside: Path | None) -> Backend | None:
    """The backend whose files are to be written, None for neutral weights. Raises SettingsError for what cannot be."""
    known = formats()
    if to not in known:
        raise SettingsError(f"to={to!r}: choose one of {', '.join(known)}")
    backend = known[to]
    if channels not in ("image", "keep"):
        raise SettingsError(
            f"channels={channels!r}: choose image (the same of the same image) or keep (the same arrays)"
        )
    if beside is not None:
        if network is not None:
            raise SettingsError(
                "network and with_network exclude each other: a network file that is given is there already"
            )
        if backend is None:
            raise SettingsError(
                f"with_network={str(beside)!r}: {NEUTRAL} is for any framework; write the network with export"
            )
        source.check_name(beside, backend.name)
    return backend


def _check_outputs(path: Path, beside: Path | None, inputs: list[Path | None]) -> None:
    """Raise SettingsError for outputs that cannot be written, are one file, or are what is read."""
    writing.check_output(path, inputs)
    if beside is not None:
        writing.check_output(beside, inputs)
        if files.target(path) == files.target(beside):
            raise SettingsError(f"{path}: cannot be both the weights and with_network; name two files")


def _check_run(run: Run, network: object, input_shape: InputShape | None) -> None:
    """Raise SettingsError for what a run says itself."""
    if network is not None:
        raise SettingsError(f"{run.path}: is a run, which has its network; leave source_network out")
    if input_shape is not None and tuple(input_shape) != run.input_shape:
        raise SettingsError(
            f"{run.path}: is a run with images of {run.input_shape}, not {tuple(input_shape)}; leave input_shape out"
        )


def _of_the_same_image(found: Source, target: Target, weights: dict[str, Array]) -> dict[str, Array]:
    """The weights for colours in the target's order. Raises ModelError or SettingsError where that cannot be told."""
    if target.order is None or found.order == target.order:
        return weights
    topology = target.topology or found.topology
    if topology is None:
        made = colours.evident(found.title, weights)
    else:
        # the loss of a file that is exported follows from what is known already
        described = [each for each in (found.topology, target.topology if target.text is None else None) if each]
        makes = makes_colours(topology, found.label_shape, [each.loss for each in described])
        made = colours.swapped(topology, weights, input=True, output=makes)
    if found.order is None and any(made[name] is not weights[name] for name in weights):
        raise ModelError(
            f"{found.title}: does not say whether its network is fed RGB or BGR; name its network file (source_network=FILE), "
            'whose framework tells, or leave the weights as they are with channels="keep"'
        )
    return made


@contextmanager
def _staged(path: Path) -> Iterator[Path]:
    """A path to write to, in a folder of its own; all that is there then moves beside ``path``, or nothing does."""
    try:
        staging = tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:  # which names that folder
        raise OSError(error.errno, error.strerror, str(path)) from error
    with staging as folder:
        with _told_without(folder, path.parent):
            yield Path(folder) / path.name
        for file in sorted(Path(folder).iterdir()):
            place = path.parent / file.name
            if place.is_symlink():
                files.write_bytes(place, file.read_bytes())
            else:
                os.replace(file, place)  # noqa: PTH105


@contextmanager
def _told_without(folder: str, instead: Path) -> Iterator[None]:
    """A temporary folder is not what a message is about."""
    real = str(Path(folder).resolve())
    try:
        yield
    except ModelError as error:
        raise ModelError(str(error).replace(real, str(instead))) from error
    except OSError as error:
        if not isinstance(error.filename, str):
            raise
        name = error.filename.replace(real, str(instead)).replace(folder, str(instead))
        raise OSError(error.errno, error.strerror, name) from error
