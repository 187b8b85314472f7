"""Readers of golden files, which a backend in NumPy writes: part of the group runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import multiseg
from helpers.fuzzing.reader import Reader
from multiseg import backend as registry
from multiseg.parity.golden import content as golden_content
from multiseg.parity.golden import file as golden_file
from multiseg.parity.golden.plan import GoldenPlan

OPTIONS: dict[str, Any] = {
    "device": "auto", "threads": 1, "lowering": True, "classes": None, "model_options": None, "outputs": (),
}  # fmt: skip


def samples(folder: Path) -> None:
    """Write a golden file for the dataset in the folder, and its content as JSON."""
    path = folder / "golden.safetensors"
    multiseg.check_parity(
        folder / "dataset", ["numpy"], model(), steps=2, batch_size=2, threads=1, divide_std=[50.0], save=path
    )
    content, _ = golden_file.unpacked(path, path.read_bytes())
    (folder / "golden.json").write_text(json.dumps(content))


def model() -> Path:
    return registry.get("numpy").default_model_path


def _content(path: Path) -> None:
    """Read a golden file with the right digest whose content is that of a JSON file, and plan a check with it."""
    try:
        changed = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return
    whole = path.with_name("golden.safetensors")
    _, arrays = golden_file.unpacked(whole, whole.read_bytes())
    try:
        data = golden_file.packed(changed, arrays)
    except (ValueError, RecursionError):  # JSON that Python reads and does not write
        return
    content, arrays = golden_file.unpacked(path, data)
    plan = GoldenPlan(golden_content.golden(path, content, arrays), [model()], [], [], OPTIONS)
    plan.recipe().batch(0)


READERS = [
    Reader("golden file", "golden.safetensors", golden_file.read),
    Reader("content of a golden file", "golden.json", _content, 3),
]
