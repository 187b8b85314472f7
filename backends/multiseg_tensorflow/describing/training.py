"""Add what only the training graph shows to the layers of the inference graph: statistics of batches, and dropout."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from multiseg.topology.names import unused
from multiseg_tensorflow.describing.layers import Layers, path_of
from multiseg_tensorflow.describing.walk import Node
from multiseg_tensorflow.dropout import Dropout


def mark_training_statistics(layers: Layers, training: Layers) -> None:
    """Mark the batch normalisations that use stored statistics in training too; ``training`` are the layers of that graph."""
    norms = [node for node in training.nodes if node.type == "BatchNormalization"]
    for node in layers.nodes:
        if node.type == "BatchNormalization":
            partner = next((norm for norm in norms if _keys(norm) & _keys(node)), None)
            if partner is not None and "prediction_statistics" not in partner.parameters:
                node.parameters["training_statistics"] = "stored"


def _keys(node: Node) -> set[str]:
    """Return names that a layer has in both graphs: of its variables, and of its operation."""
    return {ref.variable.name for ref in node.weights.values() if ref.variable is not None} | {node.op.name}


def with_dropouts(layers: Layers, training: Layers, dropouts: Iterable[Dropout]) -> Layers:
    """Return ``layers`` with the dropouts of the training graph: where that has them, for the layers that read them there."""
    entries = {entry.result: entry for entry in dropouts}
    partners = _partners(layers, training)
    taken = {node.name for node in layers.nodes}
    after: dict[Node, list[Node]] = {}  # the dropouts of a layer, in order
    roots: dict[Node, Node] = {}  # the layer that a dropout is of, also through other dropouts
    for node in training.nodes:
        source = node.inputs[0] if node.type == "Dropout" and node.op in entries else None
        if source is None or node in partners:  # that is in the inference graph, too
            continue
        entry = entries[node.op]
        before = partners.get(source.node)
        if before is None:
            continue
        name = unused(path_of(entry.name), taken, first=1)
        taken.add(name)
        added = Node(
            node.op, "Dropout", [replace(source, node=before)], entry.parameters, tensor=node.tensor, name=name
        )
        added.shapes = [before.shapes[source.index]] if before.shapes else node.shapes
        root = roots[added] = roots.get(before, before)
        after.setdefault(root, []).append(added)
        partners[node] = added
    _connect(layers, training, partners, roots)
    nodes = [other for node in [*layers.sources, *layers.nodes] for other in (node, *after.get(node, ()))]
    titles, outputs = list(layers.titles), list(layers.outputs)
    names = {node.name: partners[node].name for node in training.nodes if partners.get(node) in roots}
    if len(training.outputs) == len(outputs):
        for place, name in enumerate(training.outputs):
            if name in names:
                titles[place] = names[name] if titles[place] == outputs[place] else titles[place]
                outputs[place] = names[name]
    return replace(layers, nodes=[node for node in nodes if node not in layers.sources], titles=titles, outputs=outputs)


def _partners(layers: Layers, training: Layers) -> dict[Node, Node]:
    """Return the layers of the inference graph by those of the training graph."""
    partners = dict(zip(training.sources, layers.sources))  # noqa: B905 - worker code runs on Python 3.9
    # one operation may be several layers, such as the transposition and the flattening of an image
    by_key = {(node.type, key): node for node in reversed(layers.nodes) for key in _keys(node)}
    for node in training.nodes:
        keys = [(node.type, key) for key in (node.op.name, *sorted(_keys(node)))]
        partner = next((by_key[key] for key in keys if key in by_key), None)
        if partner is not None:
            partners[node] = partner
    return partners


def _connect(layers: Layers, training: Layers, partners: dict[Node, Node], roots: dict[Node, Node]) -> None:
    """Let the layers read the dropouts that they read in training."""
    for node in training.nodes:
        for place, value in enumerate(node.inputs):
            dropout = partners.get(value.node)
            if dropout in roots and node in partners and partners[node] not in roots:
                _read(partners[node], dropout, roots[dropout], place)
    # what reads it has another name in the two graphs: all that read the layer before
    ends = {value.node for node in [*layers.nodes, *roots] for value in node.inputs}
    ends |= {partners[node] for node in training.nodes if node in partners and node.name in training.outputs}
    for dropout, root in roots.items():
        if dropout not in ends:
            for reader in layers.nodes:
                _read(reader, dropout, root)


def _read(reader: Node, dropout: Node, root: Node, place: int | None = None) -> None:
    """Let a layer read a dropout instead of the layer ``root`` before it: at ``place`` if it reads it there, else everywhere."""
    reads = [number for number, value in enumerate(reader.inputs) if value.node is root]
    for number in [place] if place in reads else reads:
        reader.inputs[number] = replace(reader.inputs[number], node=dropout, index=0)
