"""What a network file leaves ambiguous, or what training in multiseg wants otherwise, as sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from multiseg.worker import choice
from multiseg_caffe import aligned_crops, losses, prototxt, sources
from multiseg_caffe.deploy import deployed


def of_file(path: str) -> list[str]:
    """Return the notes about a file. Raises ModelError if it cannot be read."""
    chosen = choice.read(path)
    file, path = prototxt.read(path, complete=False), str(chosen.file)
    outputs = deployed(file, path, chosen.outputs).outputs
    return [*shrunk_labels(file, path, outputs), *aligned_crops.notes(file, path)]


def shrunk_labels(file: Any, path: str, outputs: list[str]) -> list[str]:
    """Return a sentence for each layer that shrinks the labels to the size of one of the ``outputs``, as DeepLab's files do."""
    net = prototxt.filtered(file, "train", path)
    labels = {top for top, source in sources.find(net, path).items() if source.role == sources.LABEL}
    terms = [term for term in net.layer if losses.weight(term) and term.bottom and term.bottom[0] in outputs]
    compared = {blob: term.bottom[0] for term in terms for blob in term.bottom[1:]}  # labels -> scores
    sentences = []
    for layer in net.layer:
        factor = layer.interp_param.shrink_factor if layer.type == "Interp" else 1
        scores = [compared[top] for top in layer.top if top in compared]
        if factor > 1 and labels.intersection(layer.bottom) and scores:
            larger = f"{scores[0]}_interp"
            enlarging = (
                f"layer {{ name: {larger!r} type: 'Interp' bottom: {scores[0]!r} top: {larger!r} "
                f"interp_param {{ zoom_factor: {factor} }} }}"
            )
            sentences.append(
                f"{Path(path).name}: layer {layer.name!r} (Interp) shrinks the labels to the size of the output; multiseg trains "
                f"and tests with labels of the image's size: enlarge the output instead, by {enlarging} (for images of "
                f"{factor} n + 1 pixels, as by crop_size), and let losses and metrics compare {larger!r} with {layer.bottom[0]!r}"
            )
    return sentences
