"""From a run or a weights file to a weights file of any framework."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from multiseg import backend as registry
from multiseg import exporting, model_files, weights_file
from multiseg.backend import Backend, ChannelOrder
from multiseg.conversion import channels as colours
from multiseg.conversion.frameworks import Frameworks, InputShape
from multiseg.conversion.mapping import Mapped, Side, mapped
from multiseg.conversion.source import Source, image_shape, makes_colours, of_file, of_run
from multiseg.errors import ModelError, SettingsError
from multiseg.files import write_text
from multiseg.run import Run
from multiseg.topology import Topology
from multiseg.weights_file import Array, NeutralWeights

NEUTRAL = "safetensors"
Channels = Literal["image", "keep"]


@dataclass(frozen=True)
class Converted:
    """What became of the weights.

    ``path`` is the file, of a TensorFlow checkpoint the prefix of its files; ``network`` the network file written beside it.
    ``matched`` has the source's parameters by those in the file, found by ``how`` (name, structure, shape, map). ``reversed`` are
    those whose colours changed their order, from that of the source to ``channel_order``. ``left_out`` is what the source has and
    the file has not.
    """

    path: Path
    to: str
    matched: Mapping[str, str]
    how: str
    channel_order: ChannelOrder | None
    reversed: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    network: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain dict."""
        network = None if self.network is None else str(self.network)
        lists = {"reversed": list(self.reversed), "left_out": list(self.left_out)}
        return {**vars(self), **lists, "path": str(self.path), "matched": dict(self.matched), "network": network}

    def __str__(self) -> str:
        lines = [f"{self.path}: {len(self.matched)} arrays, matched by {self.how}"]
        lines += [f"  {old} -> {new}" for new, old in self.matched.items() if old != new]
        if self.reversed:
            lines.append(f"  colours reversed, for images in {self.channel_order}: {', '.join(self.reversed)}")
        if self.left_out:
            lines.append(f"  left out: {', '.join(self.left_out)}")
        return "\n".join([*lines, *([f"{self.network}: the network"] if self.network else [])])


@dataclass(frozen=True)
class _Target:
    """What the weights become: of a network that is fed colours in this order, in a file and described where they are known.

    ``text`` is the content of that file where it is written for this.
    """

    order: ChannelOrder | None
    network: Path | None = None
    topology: Topology | None = None
    text: str | None = None

    @property
    def side(self) -> Side | None:
        """As it is mapped."""
        if self.topology is None:
            return None
        return Side(self.topology.source, self.topology.weights, self.topology, exported=self.text is not None)


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
    with Frameworks() as frameworks, tempfile.TemporaryDirectory(prefix="multiseg-") as scratch:
        if isinstance(source, Run) or (Path(source) / "job.json").is_file():
            run = source if isinstance(source, Run) else frameworks.opened(Run.open(source, snapshot))
            _check_run(run, source_network, input_shape)
            at_home = network is None and beside is None and (backend is None or backend.name == run.backend)
            found = of_run(run, state=backend is None, described=not at_home)
        else:
            own = None if source_network is None else Path(source_network)
            found = of_file(Path(source), own, input_shape, label_shape, frameworks)
        if network is not None:
            target = _given(found, backend, Path(network), frameworks)
        else:
            target = _derived(found, backend, Path(scratch) / (beside or path).name, beside is not None, frameworks)
        matching = _match(found, target, map or {})
        weights = {name: found.weights[own] for name, own in matching.names.items()}
        made = _of_the_same_image(found, target, weights) if channels == "image" else weights
        order = target.order if channels == "image" else found.order
        shape = found.input_shape if target.topology is None else image_shape(target.topology)
        kept = _kept_state(found, matching, made) if backend is None else NeutralWeights(made)
        with _staged(path) as staged:
            if backend is None:
                weights_file.write(staged, replace(kept, channel_order=order))
            else:
                frameworks.write(backend, staged, made, target.network, shape)
            if beside is not None and target.text is not None:
                write_text(beside, target.text)
    changed = tuple(name for name in made if not np.array_equal(made[name], weights[name], equal_nan=True))
    left = [name for name in found.weights if name not in matching.names.values()]
    if found.content.solver is not None and kept.solver is None:
        left.append("the solver's state")
    return Converted(path, to, matching.names, matching.how, order, changed, tuple(left), beside)


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
    for path in (out, beside):
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            what = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
            raise SettingsError(f"{path}: cannot be written: {what}")
    if beside is not None:
        if network is not None:
            raise SettingsError(
                "network and with_network exclude each other: a network file that is given is there already"
            )
        if backend is None:
            raise SettingsError(
                f"with_network={str(beside)!r}: {NEUTRAL} is for any framework; write the network with export"
            )
        exporting.check_name(beside, backend.name)
    return backend


def _check_run(run: Run, network: object, input_shape: InputShape | None) -> None:
    """Raise SettingsError for what a run says itself."""
    if network is not None:
        raise SettingsError(f"{run.path}: is a run, which has its network; leave source_network out")
    if input_shape is not None and tuple(input_shape) != run.input_shape:
        raise SettingsError(
            f"{run.path}: is a run with images of {run.input_shape}, not {tuple(input_shape)}; leave input_shape out"
        )


def _given(found: Source, backend: Backend | None, network: Path, frameworks: Frameworks) -> _Target:
    """The target of a network file."""
    owner, kind = model_files.kind_of(network, "network")
    if backend is not None and owner != backend:
        raise SettingsError(
            f"network={str(network)!r}: is a {kind.name}; to={backend.weights_format!r} is for {backend.title}'s"
        )
    return _Target(owner.channel_order, network, frameworks.describe(network, found.input_shape))


def _derived(found: Source, backend: Backend | None, name: Path, wanted: bool, frameworks: Frameworks) -> _Target:
    """The target where no network file is given: the source's own, or what it is exported to; ``wanted``: as a file."""
    if backend is None:
        return _Target(found.order)
    if wanted and found.topology is None:
        raise SettingsError(
            f"{found.title}: with_network needs to know the network; name its file, source_network=FILE"
        )
    if found.backend == backend and not wanted:
        return _Target(backend.channel_order, found.network, found.topology)
    if found.topology is None or backend.exporter is None:
        return _Target(backend.channel_order)
    text = exporting.source(backend, found.topology, exporting.of_classes(found.topology, found.label_shape))
    file = name.with_suffix(backend.formats[0])
    write_text(file, text)
    return _Target(backend.channel_order, file, frameworks.describe(file, found.input_shape), text)


def _match(found: Source, target: _Target, given: Mapping[str, str]) -> Mapped:
    if target.network is not None and target.network == found.network and not given:
        shapes = {name: value.shape for name, value in found.weights.items()}
        return mapped(Side(found.title, shapes), None, {})
    return mapped(found.side, target.side, given)


def _of_the_same_image(found: Source, target: _Target, weights: dict[str, Array]) -> dict[str, Array]:
    """The weights for colours in the target's order. Raises ModelError or SettingsError where that cannot be told."""
    if target.order is None or found.order == target.order:
        return weights
    topology = target.topology or found.topology
    if topology is None:
        return colours.evident(found.title, weights)
    # the loss of a file that is exported follows from what is known already
    files = [each for each in (found.topology, target.topology if target.text is None else None) if each]
    reads, makes = (
        topology.input_shape[0] == 3,
        makes_colours(topology, found.label_shape, [each.loss for each in files]),
    )
    if not reads and not makes:
        return weights
    if found.order is None:
        raise ModelError(
            f"{found.title}: does not say whether its network is fed RGB or BGR; name its network file (source_network=FILE), "
            'whose framework tells, or leave the weights as they are with channels="keep"'
        )
    return colours.swapped(topology, weights, reads, makes)


@contextmanager
def _staged(path: Path) -> Iterator[Path]:
    """A path to write to, in a folder of its own; all that is there then moves beside ``path``, or nothing does."""
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        staged = Path(folder) / path.name
        try:
            yield staged
        except ModelError as error:
            raise ModelError(str(error).replace(str(staged.resolve()), str(path))) from error
        for file in sorted(Path(folder).iterdir()):
            os.replace(file, path.parent / file.name)  # noqa: PTH105
