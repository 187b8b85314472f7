"""Read jobs from a TOML file.

A list of values defines one job per value, several lists define every combination; see :data:`LISTS` for settings that are
lists themselves::

    runs = "runs"                # folder of the run folders; this and other paths are relative to the file
    parallel = 2                 # number of jobs trained concurrently

    [defaults]
    dataset = "dataset"
    epochs = 6

    [[job]]
    backend = ["caffe", "torch", "tensorflow"]
    seed = [1, 2]
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from multiseg.dataset.location import is_url
from multiseg.errors import SettingsError
from multiseg.files import read_text
from multiseg.job.job import Job
from multiseg.job.outcome import PATHS
from multiseg.model_files import shipped

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SETTINGS = tuple(field.name for field in fields(Job))
# settings whose value may be a list, and the types of items that make a list one of alternatives
LISTS: dict[str, type | tuple[type, ...]] = {
    "freeze": list,
    "outputs": list,
    "mean": list,
    "divide_std": (list, str),
    "class_weights": (list, str),
    "crop": (list, str),
}

# arguments of one training that are no settings of a job, and where they can be specified
ELSEWHERE = {
    "tensorboard": "it is for one training: multiseg train --tensorboard, job.train(..., tensorboard=True)",
    "run": "the run folder is that of the job's name in runs; specify name and runs",
    "resume": "interrupted jobs of a file are always resumed; leave it out",
    "page": "specify it on the command line: multiseg train FILE --page PAGE.html",
    "scheduler": "specify it on the command line: multiseg train FILE --scheduler ADDRESS",
    "parallel": "it is for all jobs; specify it above the tables",
    "runs": "it is for all jobs; specify it above the tables",
}


@dataclass(frozen=True)
class JobList:
    """Jobs by name, the folder of their run folders, and how many to train concurrently."""

    jobs: dict[str, Job]
    runs: Path
    parallel: int = 1


def read_jobs(path: str | Path) -> JobList:
    """Read the jobs of a TOML file. Raise SettingsError, which names the file and every unknown key or invalid value."""
    file = Path(path)
    try:
        content = tomllib.loads(read_text(file))
    except OSError as error:
        raise SettingsError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # also of text that is not UTF-8, and of numbers of very many digits
        raise SettingsError(f"{file}: is not TOML: {error}") from error
    tables = content.get("job")
    defaults = content.get("defaults", {})
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in (*tables, defaults)):
        raise SettingsError(f"{file}: needs a [[job]] table for each job, and may have one table [defaults]")
    problems = [f"unknown key {key!r}" for key in content if key not in ("runs", "parallel", "defaults", "job")]
    for where, table in [("[defaults]", defaults), *(("[[job]]", table) for table in tables)]:
        unknown = [key for key in table if key not in (*SETTINGS, "name")]
        problems += [
            f"{where} has the unknown key {key!r}; {ELSEWHERE.get(key) or 'it takes: name, ' + ', '.join(SETTINGS)}"
            for key in unknown
        ]
    parallel = content.get("parallel", 1)
    if not isinstance(parallel, int) or isinstance(parallel, bool) or parallel < 1:
        problems.append(f"parallel={parallel!r}: must be a whole number from 1")
    for number, table in enumerate(tables, 1):
        for key, value in {**defaults, **table}.items():
            values = _choices(key, value)
            if not values:
                problems.append(f"[[job]] {number}: {key}=[]: lists no value for a job; leave it out, or list values")
            if key in PATHS and not all(isinstance(path, str) for path in values):
                problems.append(f"[[job]] {number}: {key}={value!r}: must be a path, as text")
    runs = content.get("runs", "runs")
    if not isinstance(runs, str):
        problems.append(f"runs={runs!r}: must be a folder")
    if problems:
        raise SettingsError(f"{file}: {'; '.join(problems)}")
    jobs: dict[str, Job] = {}
    for table in tables:
        for name, settings in _expanded({**defaults, **table}):
            if name in jobs:
                raise SettingsError(f"{file}: two jobs are called {name!r}; give one of them another name = ...")
            if "dataset" not in settings:
                raise SettingsError(f"{file}: job {name!r} has no dataset")
            paths = {key: value for key, value in settings.items() if key in PATHS}
            absolute = {key: value if _is_absolute(key, value) else file.parent / value for key, value in paths.items()}
            jobs[name] = Job(**{**settings, **absolute})
    return JobList(jobs, file.parent / runs, parallel)


def _is_absolute(key: str, value: Any) -> bool:
    """Return whether a value of a setting is not relative to the file: a URL, or the name of a network."""
    return is_url(value) or (key == "model" and shipped.find(value) is not None)


def _expanded(table: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and settings of each combination."""
    base = table.get("name")
    choices = {key: _choices(key, value) for key, value in table.items() if key != "name"}
    for combination in itertools.product(*choices.values()):
        settings = dict(zip(choices, combination, strict=True))
        parts = [str(base or settings.get("backend", Job.backend))]
        for key, values in choices.items():
            if len(values) > 1 and (key != "backend" or base):
                value = settings[key]
                number = values.index(value) + 1
                shown = number if isinstance(value, (dict, list)) else _stem(value) if key in PATHS else value
                parts.append(str(shown) if key == "backend" else f"{key}={shown}")
        name = re.sub(r"[^\w.=+-]+", "-", "_".join(parts))
        # a folder in that of the runs: "." and ".." are that folder and the one around it
        yield re.sub(r"^\.+$", "-", name), settings


def _stem(value: Any) -> str:
    """Return the name of a path in names of jobs: without its extension, and with the choice in a file, FILE:NAME."""
    return Path(value).name if ":" in Path(value).name else Path(value).stem


def _choices(key: str, value: Any) -> list[Any]:
    """Return the alternatives of a setting, one per job: the items of a list, unless the list is itself one value of it."""
    is_choice = isinstance(value, list) and (key not in LISTS or any(isinstance(item, LISTS[key]) for item in value))
    return value if is_choice else [value]
