"""The result of a conversion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multiseg.backend import ChannelOrder


@dataclass(frozen=True)
class Converted:
    """Files written by a conversion, and how parameters were matched.

    ``path`` is the weights file (for a TensorFlow checkpoint the prefix of its files), ``network`` the network file written with
    it. ``matched`` has the source's parameters by those in the file, matched by ``how`` (name, structure, shape, map).
    ``reversed`` are those permuted from the source's channel order to ``channel_order``. ``left_out`` lists what the source has
    and the file does not; ``unused`` the network's parameters that no output depends on and that keep their initial values;
    ``notes`` says what the network files leave ambiguous.
    """

    path: Path
    to: str
    matched: Mapping[str, str]
    how: str
    channel_order: ChannelOrder | None
    reversed: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    network: Path | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain values."""
        network = None if self.network is None else str(self.network)
        lists = {key: list(getattr(self, key)) for key in ("reversed", "left_out", "unused", "notes")}
        return {**vars(self), **lists, "path": str(self.path), "matched": dict(self.matched), "network": network}

    def __str__(self) -> str:
        lines = [f"{self.path}: {len(self.matched)} arrays, matched by {self.how}"]
        lines += [f"  {old} -> {new}" for new, old in self.matched.items() if old != new]
        if self.reversed:
            lines.append(f"  channels reversed, for images in {self.channel_order}: {', '.join(self.reversed)}")
        if self.left_out:
            lines.append(f"  left out: {', '.join(self.left_out)}")
        if self.unused:
            lines.append(f"  at their initial values, as no output depends on them: {', '.join(self.unused)}")
        return "\n".join([*lines, *([f"{self.network}: the network"] if self.network else [])])
