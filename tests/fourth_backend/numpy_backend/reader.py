"""Weights out of this backend's snapshots, or any .npz with arrays named ``layer.part``."""

from __future__ import annotations

from typing import Any

import numpy as np


def read_weights(path: str) -> dict[str, Any]:
    with np.load(path) as file:
        return {name.removeprefix("weights/"): file[name] for name in file.files if not name.startswith("state/")}
