"""Write and read golden files: safetensors with the arrays of multiseg.parity.golden.golden.Golden, and the rest as JSON.

The metadata have ``format``, ``version`` of the format, ``content`` (JSON, see multiseg.parity.golden.content) and ``sha256``,
that of the whole file with zeros in its place. Arrays are named ``weights/PARAMETER``, ``layers/VALUE``,
``gradients/PARAMETER``, ``after/PARAMETER``, ``loss/PLACE``, ``features``, ``labels``, ``batches``, ``mean`` and ``std``. The
bounds of an array, float32 and rounded up, have its name after ``bounds/``; values without them are exact. The same content
makes the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from multiseg._version import __version__
from multiseg.errors import ModelError, setting
from multiseg.files import parse_json, read_bytes, write_bytes
from multiseg.model_files.weights_file import GOLDEN, recognised
from multiseg.parity.golden import content as golden_content
from multiseg.parity.golden.golden import Golden
from multiseg.parity.reference_values import ReferenceValues
from multiseg.reference.bounded import Array, Bounded

VERSION = 1
MOST_BYTES = 1 << 30  # of all arrays
MOST_HEADER = 1 << 27  # of safetensors
NO_DIGEST = "0" * 64
DIGEST = re.compile(rb'"sha256":"([0-9a-f]{64})"')
# what safetensors calls the types of images, labels and values
DTYPES = {f"{kind}{bits}": f"{kind[0].upper()}{bits}" for kind in ("int", "uint", "float") for bits in (16, 32, 64)}
DTYPES |= {"int8": "I8", "uint8": "U8"}
LARGEST = np.finfo(np.float32).max


def write(golden: Golden) -> int:
    """Write ``golden`` to its path, atomically, and return the number of bytes. Raises ModelError if they are too many."""
    arrays: dict[str, Array] = {
        "features": golden.features, "labels": golden.labels, "batches": golden.batches.astype(np.int64),
        **{name: value for name, value in (("mean", golden.mean), ("std", golden.std)) if value is not None},
        **{f"weights/{name}": value.astype(np.float32) for name, value in golden.weights.items()},
        **{f"after/{name}": value for name, value in golden.values.weights.items()},
    }  # fmt: skip
    terms: dict[str, int] = {}
    for name, value in _bounded(golden.values).items():
        arrays[name], terms[name] = value.value, value.terms
        if not value.exact:
            arrays[f"bounds/{name}"] = rounded_up(np.broadcast_to(value.bound, value.value.shape))
    size = sum(value.nbytes for value in arrays.values())
    if size > MOST_BYTES:
        raise ModelError(
            f"{golden.path}: would have {size:,} bytes, a golden file has at most {MOST_BYTES:,}; choose a smaller "
            f"{setting('batch_size')}, or a smaller network"
        )
    data = packed(golden_content.to_json(golden, terms, __version__), arrays)
    write_bytes(golden.path, data)
    return len(data)


def _bounded(values: ReferenceValues) -> dict[str, Bounded]:
    return {
        **{f"layers/{name}": value for name, value in values.layers.items()},
        **{f"gradients/{name}": value for name, value in values.gradients.items()},
        **{f"loss/{place}": value for place, value in enumerate(values.loss)},
    }


def rounded_up(bound: Array) -> Array:
    """Return a bound as float32 that is not smaller."""
    finite = np.minimum(bound, LARGEST)
    single = finite.astype(np.float32)
    with np.errstate(over="ignore"):  # of the largest number, which is not rounded down
        above: Array = np.nextafter(single, np.float32(np.inf))
    return np.where(single < finite, above, single)


def packed(content: Mapping[str, Any], arrays: Mapping[str, Array]) -> bytes:
    """Return the bytes of a golden file: of the format safetensors, with the digest."""
    metadata = {"format": GOLDEN, "version": str(VERSION), "content": json.dumps(content), "sha256": NO_DIGEST}
    header: dict[str, Any] = {"__metadata__": metadata}
    parts, end = [], 0
    for name in sorted(
        arrays, key=lambda key: (-arrays[key].itemsize, key)
    ):  # larger types first, thus all are aligned
        part = np.ascontiguousarray(arrays[name]).tobytes()
        header[name] = {
            "dtype": DTYPES[arrays[name].dtype.name],
            "shape": list(arrays[name].shape),
            "data_offsets": [end, end + len(part)],
        }
        parts.append(part)
        end += len(part)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    data = b"".join([len(text).to_bytes(8, "little"), text, *parts])
    return _with_digest(data, hashlib.sha256(data).hexdigest())


def _with_digest(data: bytes, digest: str) -> bytes:
    """Return the bytes with another digest. Quotes in the content are escaped, so the pattern is found in the metadata alone."""
    return DIGEST.sub(f'"sha256":"{digest}"'.encode(), data, count=1)


def read(path: Path) -> Golden:
    """Return the content of a golden file. Raises ModelError if it is damaged, of another kind, or of a newer version."""
    try:
        if path.stat().st_size > MOST_BYTES + MOST_HEADER:
            raise ModelError(
                f"{path}: is not a golden file of parity, or is damaged: it has more than {MOST_BYTES:,} bytes"
            )
        data = read_bytes(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
    content, arrays = unpacked(path, data)
    return golden_content.golden(path, content, arrays)


def unpacked(path: Path, data: bytes) -> tuple[Any, dict[str, Array]]:
    """Return the JSON content and the arrays of a file. Raises ModelError naming ``path``."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    end = 8 + int.from_bytes(data[:8], "little")
    metadata = _metadata(data[8:end]) if recognised(data[:16]) else {}
    if metadata.get("format") != GOLDEN:
        raise ModelError(
            f"{path}: is not a golden file of parity, or is damaged; {setting('save', example='FILE')} writes one"
        )
    version = metadata.get("version")
    if version != str(VERSION):
        raise ModelError(
            f"{path}: is a golden file of version {str(version)[:20]!r}, this multiseg ({__version__}) reads version {VERSION}; "
            "install the version that wrote it, or a newer one"
        )
    match = DIGEST.search(data, 8, end)
    damaged = f"{path}: is damaged or truncated: its SHA-256 is not the one that it states"
    if match is None:
        raise ModelError(damaged)
    if hashlib.sha256(_with_digest(data, NO_DIGEST)).hexdigest().encode() != match[1]:
        raise ModelError(damaged)
    try:
        return parse_json(metadata["content"]), load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: is damaged: {error}") from error


def _metadata(header: bytes) -> dict[str, Any]:
    try:
        metadata = parse_json(header)["__metadata__"]
    except (ValueError, KeyError, TypeError):
        return {}
    return metadata if isinstance(metadata, dict) else {}
