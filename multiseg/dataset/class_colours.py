"""The colours of classes in pictures: the dataset's, else a default palette; which class is the background."""

from __future__ import annotations

from functools import lru_cache

from multiseg.dataset.label_tables import BORDER_COLOUR, Colour, default_colours
from multiseg.dataset.labels import Labels

PALETTE_SIZE = 256  # of a palette image
_BACKGROUND_NAMES = ("background", "bg", "_background_")


@lru_cache(maxsize=16)
def palette(labels: Labels) -> tuple[Colour, ...]:
    """Return 256 colours by class index: those of ``labels``, BORDER_COLOUR for its ignored label, and default colours.

    Default colours are different from all colours of ``labels``.
    """
    own = list(labels.colours[:PALETTE_SIZE])
    unused = (colour for colour in default_colours(PALETTE_SIZE + len(own)) if colour not in own)
    # without colours of its own, a dataset has the default ones in their order
    colours = own + [next(unused) for _ in range(PALETTE_SIZE - len(own))]
    if labels.ignore is not None and labels.ignore < PALETTE_SIZE:
        colours[labels.ignore] = BORDER_COLOUR
    return tuple(colours)


def class_name(labels: Labels, index: int) -> str:
    """Return the name of a class; its index as text if it has none."""
    return labels.names[index] if index < len(labels.names) else str(index)


def background(labels: Labels) -> int | None:
    """Return the class that overlays leave transparent: the one named background, or class 0 of classes without names.

    Classes whose names are their numbers have no names. None if all have names and none is the background, as in street scenes.
    """
    if all(name == str(index) for index, name in enumerate(labels.names)):
        return 0
    names = [name.lower() for name in labels.names]
    return next((names.index(name) for name in _BACKGROUND_NAMES if name in names), None)
