"""Write a reduced part to a folder: network files, weights, batch, and a program that shows the difference without multiseg."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from multiseg import backend as registry
from multiseg import reference
from multiseg._version import __version__
from multiseg.backend import Backend
from multiseg.errors import ModelError, MultisegError
from multiseg.exporting import source
from multiseg.files import write_json, write_text
from multiseg.model_files.weights_file import NeutralWeights
from multiseg.model_files.weights_file import write as write_neutral
from multiseg.model_files.writing import write_weights
from multiseg.parity import case as cases
from multiseg.parity.case import Case
from multiseg.parity.reduction.search import Reduction
from multiseg.parity.rows import plain, sentence
from multiseg.reference.bounded import TINY, Array, Bounded
from multiseg.topology.words import listed
from multiseg.worker.client import Worker

SCRIPT, BATCH, WEIGHTS, REPORT, FACTS = "show.py", "batch.npz", "weights.safetensors", "README.md", "reduced.json"
ROW = ("stage", "name", "step", "absolute", "relative", "tolerance", "share", "terms", "words")  # in the facts
SECONDS = 120  # that the program may take
TAIL = """\
expected, bound = batch['expected'], batch['bound']
measured = np.asarray(measured, np.float64)
if measured.size != expected.size:
    sys.exit(print(version, '- differs beyond rounding: shape', measured.shape, 'for', expected.shape) or 1)
measured = measured.reshape(expected.shape)
difference = np.abs(measured - expected)
wrong = ~(difference <= bound)
worst = np.unravel_index((difference / bound).argmax(), expected.shape)
print(version, '-', WHAT)
print(f'at {tuple(map(int, worst))}: {measured[worst]:.9g}, float64 {expected[worst]:.9g}, '
      f'difference {difference[worst]:.3g}, rounding allows {bound[worst]:.3g}')
print(f'{wrong.sum()} of {wrong.size} values differ beyond rounding')
sys.exit(1 if wrong.any() else 0)
"""


@dataclass(frozen=True)
class Reproduction:
    """A reduced part on disk.

    ``alone``: whether the program shows the difference with the framework alone; None if there is no program, or it failed;
    ``printed``: what the program printed; ``remarks``: what the files do not show, and why.
    """

    folder: Path
    reduction: Reduction
    alone: bool | None
    printed: str
    remarks: tuple[str, ...]


def write(reduction: Reduction, backend: Backend, worker: Worker, folder: Path, title: str) -> Reproduction:
    """Write everything into the new folder ``folder``, and run the program. ``title`` names the network."""
    folder.mkdir(parents=True)
    part, remarks = reduction.case, list(reduction.remarks)
    names = _networks(part, backend, folder, remarks)
    write_neutral(folder / WEIGHTS, NeutralWeights(_float32(part.own or part.weights), "RGB"))
    expected, arrays = _expected(reduction)
    arrays = {"input": np.asarray(part.images, np.float32), **arrays}
    if part.labels is not None:
        arrays["labels"] = np.asarray(part.labels, np.float32)
    saved: Any = arrays
    np.savez(folder / BATCH, **saved)
    alone, printed = None, ""
    if expected is None:
        remarks.append(
            f"{SCRIPT} is not written: the difference is in {reduction.original.stage}, which multiseg's backend computes with "
            "several functions of the framework; run multiseg fuzz or multiseg parity again to see it"
        )
    elif (text := _program(reduction, backend, worker, folder, names, remarks)) is not None:
        write_text(folder / SCRIPT, text)
        alone, printed = _run(backend, folder)
        if alone is None:
            remarks.append(
                f"{SCRIPT} failed: {printed.strip().splitlines()[-1] if printed.strip() else 'it printed nothing'}"
            )
        elif not alone:
            remarks.append(
                f"{SCRIPT} agrees with float64: {backend.title} alone computes the part right, so the difference comes from "
                "multiseg's backend or from settings of its process"
            )
    reproduction = Reproduction(folder, reduction, alone, printed, tuple(remarks))
    write_json(folder / FACTS, facts(reproduction, backend, title))
    write_text(folder / REPORT, _report(reproduction, backend, title))
    return reproduction


def _float32(weights: Any) -> dict[str, Array]:
    return {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in weights.items()}


def _networks(part: Case, backend: Backend, folder: Path, remarks: list[str]) -> dict[str, Path]:
    """Write the part as a network file of each backend that can express it; return the paths by the backends' names."""
    names = {}
    for target in {each.name: each for each in [*registry.installed(), backend]}.values():
        if target.exporter is None:
            continue
        topology = (part.written or part.topology) if target.name == backend.name else part.topology
        try:
            text = source.source(target, topology, part.classes)
        except ModelError as error:
            remarks.append(f"not written for {target.title}: {error}")
            continue
        names[target.name] = folder / f"part_{target.name}{target.formats[0]}"
        write_text(names[target.name], text)
    return names


def _expected(reduction: Reduction) -> tuple[Bounded | None, dict[str, Array]]:
    """Return what the program compares with, and the arrays of it; None for stages that it does not show."""
    part, row = reduction.case, reduction.row or reduction.original
    trace = reference.forward(part.topology, part.weights, part.images)
    arrays: dict[str, Array] = {}
    if row.stage in ("forward", "output", "weights"):
        expected = trace.output
    elif row.stage == "gradient" and row.name in part.topology.weights:
        slope = np.random.default_rng(1).normal(size=trace.output.value.shape).astype(np.float32)
        arrays["output_gradient"] = slope
        expected = reference.backward(trace, reference.exact(slope))[row.name]
    else:
        return None, {}
    bound = np.broadcast_to(np.asarray(expected.bound) + TINY, expected.value.shape)
    return expected, {**arrays, "expected": expected.value, "bound": np.array(bound)}


def _program(
    reduction: Reduction, backend: Backend, worker: Worker, folder: Path, names: dict[str, Path], remarks: list[str]
) -> str | None:  # fmt: skip
    """Write the weights for the framework, and return the program; None with a remark if there is none for this network."""
    if backend.alone is None or backend.name not in names:
        remarks.append(f"{SCRIPT} is not written: the backend {backend.name!r} does not write programs")
        return None
    part, row = reduction.case, reduction.row or reduction.original
    network, module = names[backend.name], backend.alone
    channels, height, width = part.topology.input_shape
    try:
        side = cases.side_of(part, part.topology, part.written or part.topology, backend, worker, network)
        side.load(part.spec(network, None, False))
        weights = folder / f"weights_{backend.name}.{backend.weights_format or 'bin'}"
        own = side.named(part.own or part.weights)
        if own:
            write_weights(backend, weights, own, network, (channels, height, width), worker)
        parameter = None
        if row.stage == "gradient":
            parameter = next(name for name, other in side.matching.names.items() if other == row.name)
        output = (part.written or part.topology).outputs[0]
        arguments = {
            "network": str(network), "weights": str(weights), "input_shape": [channels, height, width], "output": output,
            "parameter": parameter,
        }  # fmt: skip
        name, _, function = module.partition(":")
        lines: list[str] = worker.call("read", module=name, function=function, arguments=arguments)
    except (MultisegError, StopIteration) as error:
        remarks.append(f"{SCRIPT} is not written: {error}")
        return None
    what = f"the gradient of {row.name}" if row.stage == "gradient" else f"the output {part.topology.outputs[0]}"
    what += f" of {listed([layer.type for layer in part.topology.layers])}"
    head = [
        f'"""Compare {what} in {backend.title} with float64. Exit status: 1 if it differs beyond rounding."""',
        "import os",
        "import sys",
        "import numpy as np",
        *(f"os.environ.setdefault({key!r}, {value!r})" for key, value in backend.environment.items()),
        "os.chdir(os.path.dirname(os.path.abspath(__file__)))",
        "sys.path.insert(0, os.getcwd())",
        f"batch = np.load({BATCH!r})",
    ]
    return "\n".join([*head, *lines]) + "\n" + TAIL.replace("WHAT", repr(what))


def _run(backend: Backend, folder: Path) -> tuple[bool | None, str]:
    """Run the program, and return whether it shows the difference, None if it failed; and what it printed."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    try:
        done = subprocess.run(
            [backend.python, str(folder / SCRIPT)],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, f"it did not end within {SECONDS} s"
    shown = "beyond rounding" in done.stdout
    return (done.returncode == 1) if shown and done.returncode in (
        0,
        1,
    ) else None, done.stdout if shown else done.stderr


def facts(reproduction: Reproduction, backend: Backend, title: str) -> dict[str, Any]:
    """Return the facts as plain values."""
    reduction = reproduction.reduction
    rows = {"difference": reduction.original, "part_difference": reduction.row}
    return {
        "network": title,
        "backend": backend.name,
        "layers": list(reduction.layers),
        "layers_of_network": reduction.of,
        "differs_on_its_own": reduction.row is not None,
        "shown_by_the_framework_alone": reproduction.alone,
        "tried": reduction.tried,
        "seconds": round(reduction.seconds, 2),
        "remarks": list(reproduction.remarks),
        "multiseg": __version__,
        **{
            key: None if row is None else {name: plain(getattr(row, name)) for name in ROW} for key, row in rows.items()
        },
    }


def _report(reproduction: Reproduction, backend: Backend, title: str) -> str:
    """Return the report in Markdown."""
    reduction = reproduction.reduction
    names = sorted(path.name for path in reproduction.folder.iterdir() if path.name not in (REPORT,))
    lines = [
        f"# A part of {title} that differs in {backend.title}",
        "",
        f"- In the network: {sentence(reduction.original)}",
        f"- In the part: {'no difference' if reduction.row is None else sentence(reduction.row)}",
        f"- Layers: {listed([f'`{name}`' for name in reduction.layers])} of {reduction.of}",
        *(f"- {_capital(remark)}" for remark in reproduction.remarks),
        "",
        f"Files: {', '.join(f'`{name}`' for name in names)}.",
    ]
    if reproduction.printed:
        lines += ["", f"`python {SCRIPT}` printed:", "", *(f"    {line}" for line in reproduction.printed.splitlines())]
    return "\n".join(lines) + "\n"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
