"""Several jobs, trained some at a time; what is finished is skipped, what was interrupted goes on."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from multiseg.dataset import Dataset
from multiseg.dataset.location import is_url
from multiseg.errors import MultisegError, SettingsError
from multiseg.job.job import Job
from multiseg.training.signals import Stop, listening

if TYPE_CHECKING:
    from distributed import Client

    from multiseg.cluster.cluster import Cluster
from multiseg.job.outcome import Outcome, Report, place_of, train_one

AT_ONCE = 1000  # jobs that a cluster is given at once: each has a thread here
POLL_SECONDS = 0.2  # how often the wish to stop is looked at while jobs run


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


def _outcome(future: Future[Outcome], name: str, folder: Path) -> Outcome:
    try:
        return future.result()
    except Exception as error:  # what an executor makes of a process that died, or a fault of ours: the others go on
        return Outcome(name, folder, "failed", f"{type(error).__name__}: {error}")


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
