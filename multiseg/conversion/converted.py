"""What a conversion tells of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multiseg.backend import ChannelOrder


@dataclass(frozen=True)
class Converted:
    """What became of the weights.

    ``path`` is the file, of a TensorFlow checkpoint the prefix of its files; ``network`` the network file written beside it.
    ``matched`` has the source's parameters by those in the file, found by ``how`` (name, structure, shape, map). ``reversed`` are
    those whose colours changed their order, from that of the source to ``channel_order``. ``left_out`` is what the source has and
    the file has not; ``unused`` are parameters of the network that lead to no output, and are as it starts with them.
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

    def to_json(self) -> dict[str, Any]:
        """Plain dict."""
        network = None if self.network is None else str(self.network)
        lists = {key: list(getattr(self, key)) for key in ("reversed", "left_out", "unused")}
        return {**vars(self), **lists, "path": str(self.path), "matched": dict(self.matched), "network": network}

    def __str__(self) -> str:
        lines = [f"{self.path}: {len(self.matched)} arrays, matched by {self.how}"]
        lines += [f"  {old} -> {new}" for new, old in self.matched.items() if old != new]
        if self.reversed:
            lines.append(f"  colours reversed, for images in {self.channel_order}: {', '.join(self.reversed)}")
        if self.left_out:
            lines.append(f"  left out: {', '.join(self.left_out)}")
        if self.unused:
            lines.append(f"  as the network starts, leading to no output: {', '.join(self.unused)}")
        return "\n".join([*lines, *([f"{self.network}: the network"] if self.network else [])])
