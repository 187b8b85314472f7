"""What a file that is written of a network does not express: comments at its head, and lines on the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from multiseg.network import IMAGES
from multiseg.topology.description import Description
from multiseg.topology.objective import Objective, objective_of
from multiseg.topology.writing import number

WIDTH = 118


def notes_of(topology: Description, classes: bool, writes_mean: bool = False) -> list[str]:
    """Return what a source file with the loss objective_of(topology, classes) does not express, a sentence for each.

    ``writes_mean``: whether the file states the network's mean.
    """
    notes = list(topology.notes)
    if topology.mean is not None and not writes_mean:
        notes.append(mean_note(topology.source, topology.mean))
    return notes + loss_notes(topology, classes)


def mean_note(source: str, mean: Sequence[float]) -> str:
    """Return the sentence for a mean, a number for each channel, colours as B, G, R."""
    values = ",".join(number(value).removesuffix(".0") for value in mean)
    order = ", colours as B,G,R" if len(mean) == 3 else ""
    return (
        f"the mean of {source} ({values}{order}) is subtracted from images before the network, not by this file; "
        f"train with it as --mean {values}"
    )


def loss_notes(topology: Description, classes: bool) -> list[str]:
    """Return the sentence for a network's own loss that the file replaces by another; none for losses of images."""
    if not topology.trains:
        several = f"{len(topology.outputs)} outputs" if len(topology.outputs) > 1 else f"{len(topology.inputs)} inputs"
        text = f"the loss of {topology.source} ({topology.loss}) is not in this file, which has {several}; train a part of it"
        return [] if topology.loss is None else [f"{text} that has one of each, with --outputs NAME"]
    own, used = topology.objective, objective_of(topology, classes)
    known = own is not None and used is not None and Objective.from_json(own).kind == used.kind
    replaced_images = topology.loss_labels == IMAGES and not classes
    if topology.loss is None or known or replaced_images or (classes and topology.cross_entropy):
        return []
    if used is None:
        written = "the framework's own loss of images"
    elif used.kind == "softmax":
        written = "the mean cross entropy of the softmax"
    else:
        written = "the mean cross entropy of the sigmoid"
    return [f"the loss of {topology.source} ({topology.loss}) is not expressed; the loss of this file is {written}"]


def read(text: str) -> list[str]:
    """Return the notes in the text of a file, the inverse of :func:`comments`."""
    notes: list[str] = []
    for line in text.splitlines():
        if line.startswith("# Note: "):
            notes.append(line.removeprefix("# Note: "))
        elif notes and line.startswith("#   "):
            notes[-1] += " " + line.removeprefix("#   ")
        elif notes:
            break
    return notes


def comments(notes: Sequence[str]) -> list[str]:
    """Return the notes as lines of comments."""
    lines = []
    for note in notes:
        lines += textwrap.wrap(f"# Note: {note}", WIDTH, subsequent_indent="#   ", break_long_words=False)
    return lines
