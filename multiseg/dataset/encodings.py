"""The encodings of a dataset's records."""

from __future__ import annotations

from typing import Literal

RecordEncoding = Literal["none", "png", "jpg"]
LabelEncoding = Literal["none", "png"]  # JPEG changes values
