"""Several jobs: read from one file, trained some at a time; what is finished is skipped, what was interrupted goes on.

A file of jobs is TOML. A list of values stands for one job each, several lists for every combination::

    runs = "runs"                # folder of the run folders; this and other paths are relative to the file
    parallel = 2                 # jobs at a time

    [defaults]
    dataset = "dataset"
    epochs = 6

    [[job]]
    backend = ["caffe", "torch", "tensorflow"]
    seed = [1, 2]
"""

from __future__ import annotations

import itertools
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from multiseg.dataset import Dataset
from multiseg.dataset.location import is_url
from multiseg.errors import MultisegError, SettingsError, TrainingStopped
from multiseg.job import Job
from multiseg.run_folder import RunFolder
from multiseg.stopping import Stop, listening

if TYPE_CHECKING:
    from distributed import Client

    from multiseg.cluster.cluster import Cluster

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PATHS = ("dataset", "model", "weights")
SETTINGS = tuple(each.name for each in fields(Job))
AT_ONCE = 1000  # jobs that a cluster is given at once: each has a thread here
POLL_SECONDS = 0.2  # how often the wish to stop is looked at while jobs run

Report = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True)
class Outcome:
    """What became of a job: ``skipped`` was finished before, ``stopped`` can be resumed, ``failed`` has an ``error``."""

    name: str
    folder: Path
    status: Literal["finished", "skipped", "stopped", "failed"]
    error: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class JobList:
    """Jobs by name, the folder for their run folders, and how many at a time."""

    jobs: dict[str, Job]
    runs: Path
    parallel: int = 1


def read_jobs(path: str | Path) -> JobList:
    """The jobs in a TOML file. Raises SettingsError naming the file and everything in it that is unknown."""
    file = Path(path)
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{file}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: is not TOML: {error}") from error
    tables = content.get("job")
    defaults = content.get("defaults", {})
    if not isinstance(tables, list) or not tables or not all(isinstance(each, dict) for each in (*tables, defaults)):
        raise SettingsError(f"{file}: needs a [[job]] table for each job, and may have one table [defaults]")
    problems = [f"unknown key {key!r}" for key in content if key not in ("runs", "parallel", "defaults", "job")]
    for where, table in [("[defaults]", defaults), *(("[[job]]", table) for table in tables)]:
        unknown = [key for key in table if key not in (*SETTINGS, "name")]
        problems += [f"{where} has the unknown key {key!r}; it takes: name, {', '.join(SETTINGS)}" for key in unknown]
    parallel = content.get("parallel", 1)
    if not isinstance(parallel, int) or isinstance(parallel, bool) or parallel < 1:
        problems.append(f"parallel={parallel!r}: must be a whole number from 1")
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
            places = {key: value for key, value in settings.items() if key in PATHS}
            given = {key: value if is_url(value) else file.parent / value for key, value in places.items()}
            jobs[name] = Job(**{**settings, **given})
    return JobList(jobs, file.parent / runs, parallel)


def _expanded(table: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and settings of each combination."""
    base = table.get("name")
    choices = {key: value if _is_choice(key, value) else [value] for key, value in table.items() if key != "name"}
    for combination in itertools.product(*choices.values()):
        settings = dict(zip(choices, combination, strict=True))
        parts = [str(base or settings.get("backend", Job.backend))]
        for key, values in choices.items():
            if len(values) > 1 and (key != "backend" or base):
                value = settings[key]
                number = values.index(value) + 1
                shown = number if isinstance(value, (dict, list)) else Path(value).stem if key in PATHS else value
                parts.append(str(shown) if key == "backend" else f"{key}={shown}")
        yield re.sub(r"[^\w.=+-]+", "-", "_".join(parts)), settings


def _is_choice(key: str, value: Any) -> bool:
    """Whether a list stands for several jobs; ``freeze`` is a list itself, of which a list is several."""
    return isinstance(value, list) and (key != "freeze" or any(isinstance(each, list) for each in value))


def train_jobs(
    jobs: Mapping[str, Job],
    runs: str | Path,
    parallel: int = 1,
    executor: Executor | None = None,
    report: Report | None = None,
    scheduler: str | Path | Client | None = None,
) -> list[Outcome]:
    """Train jobs, each into the folder of its name in ``runs``, at most ``parallel`` at once; their outcomes in order.

    One that fails leaves the others alone. Where a job leaves ``threads`` open, the cores are shared out. ``report`` gets a
    name and an event. They run in threads of this process, each with its backend's own process; or elsewhere:

    - ``scheduler``: on a Dask cluster, by its scheduler's address, a scheduler file, or a Dask client. ``parallel`` is then for
      each worker. Files, history and snapshots come and go by themselves; what a dead worker had begun goes on with another one
      (docs/cluster.md).
    - ``executor``: any of concurrent.futures' kind, which must reach the same folders; jobs in it tell of nothing but their
      outcome.

    In the main thread Ctrl-C and SIGTERM stop all that run, but for an executor's, with snapshots, and start no more. Raises
    one SettingsError for all that is wrong with any job, before any starts, and ClusterError for a cluster that is of no use.
    """
    if executor is not None and scheduler is not None:
        raise SettingsError("executor and scheduler: give one of them")
    _check(jobs, scheduler is not None)
    folder, stop = Path(runs), Stop()
    outcomes: dict[str, Outcome] = {}
    running: dict[Future[Outcome], str] = {}
    with ExitStack() as stack:
        stack.enter_context(listening(stop))
        train: Callable[..., Outcome] = train_one
        at_once = parallel
        if scheduler is not None:
            cluster = stack.enter_context(_cluster(scheduler))
            # the scheduler has them wait for their turn
            train, at_once = cluster.train_one, AT_ONCE
            waiting = cluster.placed(jobs, parallel)
        else:
            share = max(1, len(os.sched_getaffinity(0)) // max(1, min(parallel, len(jobs))))
            waiting = {
                name: replace(job, dataset=place_of(job), threads=job.threads or share) for name, job in jobs.items()
            }
        pool = executor or stack.enter_context(ThreadPoolExecutor(at_once))
        try:
            while running or (waiting and not stop.asked):
                while waiting and len(running) < at_once and not stop.asked:
                    name = next(iter(waiting))
                    job = waiting.pop(name)
                    # another process has neither this one's wish to stop nor its ears
                    near = () if executor else (stop, report)
                    running[pool.submit(train, name, job, folder / name, *near)] = name
                for future in wait(running, POLL_SECONDS, FIRST_COMPLETED).done:
                    name = running.pop(future)
                    outcomes[name] = _outcome(future, name, folder / name)
                    if report:
                        report(name, {"event": outcomes[name].status, "error": outcomes[name].error})
        except BaseException:
            stop.ask()  # so that the threads end
            if scheduler is not None:
                cluster.close()  # without waiting for what is far away
            raise
    for name in waiting:
        outcomes[name] = Outcome(name, folder / name, "stopped", "not begun")
    return [outcomes[name] for name in jobs]


def train_one(name: str, job: Job, folder: Path, stop: Stop | None = None, report: Report | None = None) -> Outcome:
    """Train one job into ``folder``, or go on with what is there; never raises what multiseg raises on purpose."""
    began = time.perf_counter()

    def outcome(status: Literal["finished", "skipped", "stopped", "failed"], error: object = "") -> Outcome:
        return Outcome(name, folder, status, str(error), time.perf_counter() - began)

    def listen(event: dict[str, Any]) -> None:
        if report:
            report(name, event)

    there = folder.is_dir() and any(folder.iterdir())
    finished = there and RunFolder(folder).finished
    try:
        job.train(folder, resume=there, progress=listen, stop=stop)
    except TrainingStopped as error:
        return outcome("stopped", error)
    except (MultisegError, OSError) as error:
        return outcome("failed", error)
    return outcome("skipped" if finished else "finished")


def _outcome(future: Future[Outcome], name: str, folder: Path) -> Outcome:
    try:
        return future.result()
    except Exception as error:  # what an executor makes of a process that died, or a fault of ours: the others go on
        return Outcome(name, folder, "failed", f"{type(error).__name__}: {error}")


def place_of(job: Job) -> str | Path:
    """Where a job's dataset is: a folder, or a URL."""
    return job.dataset.path if isinstance(job.dataset, Dataset) else job.dataset


def _check(jobs: Mapping[str, Job], elsewhere: bool) -> None:
    """Raise SettingsError for all that is wrong; ``elsewhere``, no dataset is copied here to see how it fits."""
    problems, datasets = [], {}
    for name, job in jobs.items():
        try:
            path = place_of(job)
            if elsewhere and is_url(path):
                job.resolve()
                continue
            if path not in datasets:
                datasets[path] = Dataset.open(path)
            job.resolve(datasets[path])
        except MultisegError as error:
            problems.append(f"job {name!r}: {error}")
    if problems:
        raise SettingsError("\n".join(problems))


def _cluster(scheduler: str | Path | Client) -> Cluster:
    try:
        from multiseg.cluster.cluster import Cluster
    except ImportError as error:
        raise SettingsError(f"scheduler: needs Dask ({error}); pip install 'multiseg[cluster]'") from error
    return Cluster(scheduler)
