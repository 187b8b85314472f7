"""Cut a network to the layers that the named outputs need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from multiseg.errors import ModelError, setting
from multiseg.topology.layer import Layer
from multiseg.topology.names import unknown_output
from multiseg.topology.objective import Objective
from multiseg.topology.topology import Topology

WITHOUT_LOSS = {"loss": None, "loss_labels": None, "cross_entropy": False, "objective": None}


def cut(topology: Topology, names: Sequence[str]) -> Topology:
    """Return the network of the layers that the outputs ``names`` need; all of it for no names.

    A name is that of an output in the file (``output_titles``), of a layer, of one of its values, or an alias of a value. A layer
    with several outputs has them all, a MaxPool with indices only its values. The loss is kept if it compares the only output.

    Raises ModelError for an unknown name, with similar ones, and for the network's input.
    """
    if not names:
        return topology
    titles = dict(zip(topology.titles, topology.outputs, strict=True))
    outputs: dict[str, str] = {}
    notes = [note for name in names for note in topology.remarks.get(name, ())]
    for name in names:
        values = [titles[name]] if name in titles else _values(topology, name)
        if any(layer.name == name and values[0] not in layer.outputs for layer in topology.layers):
            notes.append(
                f"the output {name!r} is the one that {topology.source} itself calls so, {values[0]!r}, not that of this "
                "layer"
            )
        outputs.update({value: name if len(values) == 1 else value for value in values})
    part = replace(topology, outputs=tuple(outputs), output_titles=tuple(outputs.values()))
    layers = part.leading
    read = {value for layer in layers for value in layer.inputs}
    inputs = {name: shape for name, shape in topology.inputs.items() if name in read}
    if not inputs:
        raise ModelError(f"{topology.source}: {setting('outputs', list(names))}: does not depend on the input")
    (first, first_shape), *further = inputs.items()
    kept = {layer.name for layer in layers}
    return replace(
        part,
        input=first,
        input_shape=first_shape,
        more_inputs=dict(further),
        layers=layers,
        shared=tuple(group for group in topology.shared if len(kept.intersection(group)) > 1),
        notes=(*topology.notes, *notes),
        **({} if _keeps_loss(topology, part, layers) else WITHOUT_LOSS),  # type: ignore[arg-type]
    )


def _values(topology: Topology, name: str) -> Sequence[str]:
    """Return the values that a name of a layer, or of a value, stands for."""
    if name in topology.inputs:
        raise ModelError(
            f"{topology.source}: {setting('outputs', name)}: is the input; specify the name of a layer after it"
        )
    named = [layer for layer in topology.layers if layer.name == name]
    if named:
        last = named[-1]
        return last.outputs[:1] if last.type == "MaxPool" else last.outputs
    if any(name in layer.outputs for layer in topology.layers):
        return [name]
    if name in topology.aliases:
        return [topology.aliases[name]]
    names = [*topology.titles, *(value for layer in topology.layers for value in (layer.name, *layer.outputs))]
    raise unknown_output(topology.source, name, [*names, *topology.aliases])


def _keeps_loss(topology: Topology, part: Topology, layers: Sequence[Layer]) -> bool:
    """Return whether the loss of the network compares the only output that remains."""
    if part.outputs == topology.outputs:
        return True
    if topology.objective is None or len(part.outputs) != 1:
        return False
    scores, (output,) = Objective.from_json(topology.objective).scores, part.outputs
    producer = next((layer for layer in layers if output in layer.outputs), None)
    return scores is not None and (scores == output or (producer is not None and scores in producer.inputs))
