"""convert: write the weights of a run or a weights file as a weights file of any framework."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from multiseg import backend as registry
from multiseg import files
from multiseg.backend import Backend
from multiseg.conversion import channels as channel_orders
from multiseg.conversion import target as targets
from multiseg.conversion.converted import Converted
from multiseg.conversion.frameworks import Frameworks, InputShape
from multiseg.conversion.matching import ALL_OF_TARGET, ParameterMatch, match_parameters
from multiseg.conversion.parameters import ParameterSet
from multiseg.conversion.source import Source, image_shape, makes_colours, of_file, of_run
from multiseg.conversion.target import Target
from multiseg.errors import ModelError, SettingsError, setting
from multiseg.exporting import source as exporter
from multiseg.files.scratch import TemporaryFolder
from multiseg.model_files import choosing, weights_file, writing
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
    classes: int | None = None, model_options: Mapping[str, Any] | None = None, outputs: Sequence[str] = (),
) -> Converted:  # fmt: skip
    """Write the weights of a run (``snapshot``: last, best or an epoch) or of a weights file in the format ``to``.

    ``to`` is safetensors, or a backend's name for its weights: caffemodel, pt, tf. ``network`` is the network file that they are
    for. Without it they are for the file that :func:`multiseg.export` writes of the source's network, which ``with_network``
    writes too; if that network is unknown as well, the parameters keep their names. ``source_network`` is the network file of a
    weights file, ``input_shape`` (C, H, W) the shape of the images that the networks are described for, as in
    :func:`multiseg.describe`, ``label_shape`` that of their labels.

    ``classes`` and ``model_options`` are as in :func:`multiseg.describe`, for both network files. ``outputs`` are the names of
    layers that the source's network is cut to: only the weights that they need are converted.

    Parameters are matched by ``map``, of layers or of parameters; else by structure if both networks are known, else by name,
    else by shape if exactly one fits. With channels="image" the new network computes the same from the same image: if it is fed
    images in another channel order, the weights that take the image's channels are reordered, and those that produce an image's.
    channels="keep" leaves the arrays as they are.

    Raises SettingsError, ModelError, RunError or BackendUnavailable naming what is wrong, also if there is nothing to convert;
    no file is written then.
    """
    network, source_network = (
        None if file is None else choosing.path_of(file, classes=classes, options=model_options, outputs=names)
        for file, names in ((network, ()), (source_network, outputs))
    )
    path, network_path = Path(out), None if with_network is None else Path(with_network)
    backend = _check(to, channels, network, network_path)
    read = [source.path if isinstance(source, Run) else source, network, source_network]
    inputs = [None if file is None else Path(file) for file in read]
    _check_outputs(path, network_path, inputs)
    with ExitStack() as stack:
        frameworks = stack.enter_context(Frameworks())
        scratch = str(stack.enter_context(TemporaryFolder()).path)
        stack.enter_context(_errors_without(scratch, (network_path or path).parent))
        if isinstance(source, Run) or is_run(Path(source)):
            run = source if isinstance(source, Run) else frameworks.opened(Run.open(source, snapshot))
            _check_run(run, source_network, input_shape)
            same_network = network is None and network_path is None and (backend is None or backend.name == run.backend)
            content = of_run(run, state=backend is None, described=not same_network, outputs=outputs)
        else:
            own = None if source_network is None else Path(source_network)
            content = of_file(Path(source), own, input_shape, label_shape, frameworks, outputs)
        if not content.weights:
            raise ModelError(f"{content.title}: holds no weights, so that there is nothing to convert")
        if network is not None:
            target = targets.of_network(content, backend, Path(network), frameworks)
        else:
            exported = Path(scratch) / (network_path or path).name
            target = targets.derived(content, backend, exported, network_path is not None, frameworks)
        matching = _match(content, target, map or {})
        if not matching.names:
            raise ModelError(
                f"{target.title}: has no parameters, so that none of the {len(content.weights)} of {content.title} can "
                "be written for it"
            )
        original = matching.take(content.weights)
        weights = _for_target_order(content, target, original) if channels == "image" else original
        order = target.order if channels == "image" else content.order
        shape = content.input_shape if target.topology is None else image_shape(target.topology)
        neutral = _with_state(content, matching, weights) if backend is None else NeutralWeights(weights)
        others = {name: content.weights[name] for name in matching.unused if name not in weights}
        written: dict[str, list[str]] = {"taken": [], "started": []}
        with _staged(path) as staged:
            if backend is None:
                weights_file.write(staged, replace(neutral, channel_order=order))
            else:
                written = frameworks.write(backend, staged, weights, target.network, shape, others)
            for file in staged.parent.iterdir():  # a checkpoint consists of several files
                writing.check_output(path.parent / file.name, inputs)
            if network_path is not None and target.text is not None:
                files.write_text(network_path, target.text)
    changed = tuple(name for name in weights if not np.array_equal(weights[name], original[name], equal_nan=True))
    left_out = [name for name in matching.unused if name not in written["taken"]]
    if content.content.solver is not None and neutral.solver is None:
        left_out.append("the solver's state")
    names = matching.names | {name: name for name in written["taken"]}
    started = tuple(written["started"])
    networks = [network for network in (content.topology, target.topology) if network is not None]
    notes = tuple(dict.fromkeys(note for network in networks for note in network.notes))
    return Converted(path, to, names, matching.how, order, changed, tuple(left_out), started, network_path, notes)


def _match(content: Source, target: Target, layer_map: Mapping[str, str]) -> ParameterMatch:
    if target.network is not None and target.network == content.network and not layer_map:
        # the network itself: every parameter keeps its name, also those that no output depends on
        shapes = {name: value.shape for name, value in content.weights.items()}
        return match_parameters(ParameterSet(content.title, shapes), None)
    return match_parameters(content.parameters, target.parameters, ALL_OF_TARGET, layer_map)


def _with_state(content: Source, matching: ParameterMatch, weights: Mapping[str, Array]) -> NeutralWeights:
    """Return the weights, with the solver's state if all of them have kept their names and values."""
    same = matching.names.items() == {name: name for name in content.weights}.items()
    if same and all(weights[name] is content.weights[name] for name in weights):
        return replace(content.content, weights=weights)
    return NeutralWeights(weights)


def formats() -> dict[str, Backend | None]:
    """Return the formats that weights can be written in, with the backend that each belongs to (None: neutral)."""
    backends = [registry.get(name) for name in registry.names()]
    return {NEUTRAL: None, **{backend.weights_format: backend for backend in backends if backend.weights_format}}


def _check(to: str, channels: str, network: object, network_path: Path | None) -> Backend | None:
    """Return the backend whose files are written, None for neutral weights. Raises SettingsError for wrong arguments."""
    known = formats()
    if to not in known:
        raise SettingsError(f"{setting('to', to)}: choose one of {', '.join(known)}")
    backend = known[to]
    if channels not in ("image", "keep"):
        raise SettingsError(
            f"{setting('channels', channels)}: choose image (the same result for the same image) or keep (the same arrays)"
        )
    if network_path is not None:
        if network is not None:
            raise SettingsError(
                f"{setting('network')} and {setting('with_network')} exclude each other: "
                f"with {setting('network', example='FILE')} the network file exists already"
            )
        if backend is None:
            raise SettingsError(
                f"{setting('with_network', str(network_path))}: {NEUTRAL} is for any framework; write the network with export"
            )
        exporter.check_name(network_path, backend.name)
    return backend


def _check_outputs(path: Path, network_path: Path | None, inputs: list[Path | None]) -> None:
    """Raise SettingsError for outputs that cannot be written, are the same file, or are input files."""
    writing.check_output(path, inputs)
    if network_path is not None:
        writing.check_output(network_path, inputs)
        if files.target(path) == files.target(network_path):
            raise SettingsError(f"{path}: cannot be both the weights and {setting('with_network')}; specify two files")


def _check_run(run: Run, network: object, input_shape: InputShape | None) -> None:
    """Raise SettingsError for arguments that a run determines itself."""
    if network is not None:
        raise SettingsError(f"{run.path}: is a run, which includes its network; leave {setting('source_network')} out")
    if input_shape is not None and tuple(input_shape) != run.input_shape:
        raise SettingsError(
            f"{run.path}: is a run with images of {run.input_shape}, not {tuple(input_shape)}; "
            f"leave {setting('input_shape')} out"
        )


def _for_target_order(content: Source, target: Target, weights: dict[str, Array]) -> dict[str, Array]:
    """Return the weights for images in the target's channel order. Raises ModelError or SettingsError if that is ambiguous."""
    if target.order is None or content.order == target.order:
        return weights
    topology = target.topology or content.topology
    if topology is None:
        reordered = channel_orders.evident(content.title, weights)
    else:
        # the loss of an exported file says no more than the source's
        described = [
            network for network in (content.topology, target.topology if target.text is None else None) if network
        ]
        colour_output = makes_colours(topology, content.label_shape, described)
        reordered = channel_orders.swapped(topology, weights, input=True, output=colour_output)
    if content.order is None and any(reordered[name] is not weights[name] for name in weights):
        raise ModelError(
            f"{content.title}: does not say whether its network is fed RGB or BGR; specify its network file "
            f"({setting('source_network', example='FILE')}), whose framework determines the order, "
            f"or leave the weights as they are with {channel_orders.KEEP}"
        )
    return reordered


@contextmanager
def _staged(path: Path) -> Iterator[Path]:
    """Yield a path in a temporary folder; on success all files there move to the folder of ``path``, on failure none."""
    try:
        staging = TemporaryFolder(f".{path.name}.", path.parent)
    except OSError as error:  # of the temporary folder
        raise OSError(error.errno, error.strerror, str(path)) from error
    with staging, _errors_without(str(staging.path), path.parent):
        yield staging.path / path.name
        files.sync_tree(staging.path)
        for file in staging.files():
            place = path.parent / file.name
            if place.is_symlink():
                files.write_bytes(place, file.read_bytes())
            else:
                os.replace(file, place)  # noqa: PTH105
        files.sync_one(path.parent)


@contextmanager
def _errors_without(folder: str, instead: Path) -> Iterator[None]:
    """Replace a temporary folder in the messages of errors."""
    real = str(Path(folder).resolve())
    try:
        yield
    except ModelError as error:
        raise ModelError(error.template.replace(real, str(instead))) from error
    except OSError as error:
        if not isinstance(error.filename, str):
            raise
        name = error.filename.replace(real, str(instead)).replace(folder, str(instead))
        raise OSError(error.errno, error.strerror, name) from error
