"""Fuzz readers: one process for each group, with bounded memory.

``python -m helpers.fuzzing --inputs 100000 [--seed 1] [--group core] [--reader job.json] [--keep FOLDER]``
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from helpers.fuzzing.reader import Finding, Reader, fuzz

GROUPS = ("core", "runs", "torch", "tensorflow")  # modules of this package: samples(folder) and READERS
FOUND = 3  # exit status of a process that found something
MEMORY = 1 << 30  # bytes of address space that reading may take, beyond what the process has when it begins
SHARES = {"core": 0.55, "runs": 0.35, "torch": 0.05, "tensorflow": 0.05}  # of the inputs; frameworks are slow


def main() -> int:
    """Run all groups, each in a process of its own, and print what was found; return 1 if anything was."""
    parser = argparse.ArgumentParser(description="Fuzz the readers of multiseg.")
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--group", choices=GROUPS, action="append")
    parser.add_argument("--reader", help="a part of a reader's name")
    parser.add_argument("--keep", type=Path, help="folder for inputs that were found")
    parser.add_argument("--process", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.process:
        return _process(options)
    groups = options.group or list(GROUPS)
    total = sum(SHARES[group] for group in groups)
    return max([_group(options, group, round(options.inputs * SHARES[group] / total)) for group in groups])


def _group(options: argparse.Namespace, group: str, inputs: int) -> int:
    """Fuzz a group in a process; a process that dies is a finding too."""
    with tempfile.TemporaryDirectory(prefix="multiseg-fuzz-") as folder:
        command = [sys.executable, "-m", "helpers.fuzzing", "--process", "--group", group, "--inputs", str(inputs),
                   "--seed", str(options.seed)]  # fmt: skip
        command += ["--reader", options.reader] if options.reader else []
        command += ["--keep", str(options.keep.resolve())] if options.keep else []
        environment = {**os.environ, "TMPDIR": folder, "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}
        with Path(folder, "errors").open("wb") as errors:  # libtiff prints what it finds
            status = subprocess.run(command, env=environment, stderr=errors, check=False).returncode
        if status not in (0, FOUND):
            last = Path(folder, "note")
            kept = (options.keep or Path.cwd()) / f"died-{group}"
            if last.exists():
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_bytes(last.read_bytes())
            print("\n".join(Path(folder, "errors").read_text(errors="replace").splitlines()[-15:]))
            print(f"{group}: the process died with status {status}; its last input is {kept}", flush=True)
            return 1
        return 1 if status else 0


def _process(options: argparse.Namespace) -> int:
    module = importlib.import_module(f"helpers.fuzzing.{options.group[0]}_readers")
    folder = Path(os.environ["TMPDIR"], "samples")
    folder.mkdir()
    module.samples(folder)
    readers: list[Reader] = [reader for reader in module.READERS if not options.reader or options.reader in reader.name]
    others = [(folder / reader.file).read_bytes()[:20_000] for reader in module.READERS]
    for reader in readers:
        reader.read(folder / reader.file)  # imports what it needs
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    total = sum(reader.weight for reader in readers)
    findings: dict[tuple[str, str, str], Finding] = {}
    outcomes: Counter[str] = Counter()
    started = time.process_time()
    for reader in readers:
        begun, mine = time.process_time(), Counter[str]()
        for outcome in fuzz(
            reader,
            folder,
            max(1, round(options.inputs * reader.weight / total)),
            options.seed,
            others,
            Path(os.environ["TMPDIR"], "note"),
        ):
            if isinstance(outcome, Finding):
                mine["found"] += 1
                key = (reader.name, outcome.problem.partition(":")[0], outcome.place)
                if key not in findings:
                    findings[key] = outcome
                    _show(outcome, options.keep)
            else:
                mine[outcome] += 1
        outcomes += mine
        seconds = time.process_time() - begun
        print(
            f"{options.group[0]:10} {reader.name:28} {mine.total():7} inputs {dict(mine)} {seconds:.1f} s", flush=True
        )
    print(f"{options.group[0]}: {outcomes.total()} inputs, {outcomes['value']} read, {outcomes['error']} refused, "
          f"{outcomes['found']} neither, in {time.process_time() - started:.0f} s of processor time", flush=True)  # fmt: skip
    return FOUND if findings else 0


def _show(finding: Finding, keep: Path | None) -> None:
    where = ""
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
        path = (
            keep
            / f"{finding.reader.replace('/', '-').replace(' ', '-')}-{hashlib.sha256(finding.input).hexdigest()[:8]}"
        )
        path.write_bytes(finding.input)
        where = f" input {path.name}"
    print(
        json.dumps({"reader": finding.reader, "problem": finding.problem, "place": finding.place, "seed": finding.seed})
        + where,
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
