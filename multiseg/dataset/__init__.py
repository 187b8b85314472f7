"""The dataset that all backends share: LMDB databases of Caffe's Datum records, laid out as DIGITS does.

The names below are imported when they are first used: the processes that help to encode need only a part.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiseg.dataset.dataset import Dataset
    from multiseg.dataset.reading import Split, open_split

_WHERE = {
    "Dataset": "multiseg.dataset.dataset",
    "Split": "multiseg.dataset.reading",
    "open_split": "multiseg.dataset.reading",
}

__all__ = ["Dataset", "Split", "open_split"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'multiseg.dataset' has no attribute {name!r}")
    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value
