"""Train several jobs concurrently: finished ones are skipped, interrupted ones are resumed."""

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
from multiseg.errors import MultisegError, SettingsError, setting
from multiseg.job.job import Job
from multiseg.settings.requirements import check_kinds
from multiseg.training.signals import Stop, listening

if TYPE_CHECKING:
    from distributed import Client

    from multiseg.cluster.cluster import Cluster
from multiseg.job.outcome import Outcome, Report, place_of, train_one

MAX_SUBMITTED = 1000  # jobs submitted to a cluster concurrently; each needs a thread here
POLL_SECONDS = 0.2  # interval at which a stop request is checked while jobs run


def train_jobs(
    jobs: Mapping[str, Job],
    runs: str | Path,
    parallel: int = 1,
    executor: Executor | None = None,
    report: Report | None = None,
    scheduler: str | Path | Client | None = None,
) -> list[Outcome]:
    """Train each job in the folder of its name in ``runs``, at most ``parallel`` concurrently; return the outcomes in order.

    A failed job does not affect the others. Jobs without ``threads`` get an equal share of the cores. ``report`` is called
    with a job's name and an event. Jobs run in threads of this process, each with a process of its backend, or elsewhere:

    - ``scheduler``: on a Dask cluster, specified by its scheduler's address, a scheduler file, or a Dask client.
      ``parallel`` then applies per worker. Files, history and snapshots are transferred automatically; jobs of a worker that
      died are resumed on another one (docs/cluster.md).
    - ``executor``: in an executor of concurrent.futures, which must have access to the same folders; these jobs report only
      their outcomes.

    In the main thread Ctrl-C and SIGTERM stop all running jobs, except those of an executor, with snapshots, and no further
    jobs start. Raises one SettingsError for all problems of all jobs before any starts, and ClusterError for a cluster that
    cannot be used.
    """
    if executor is not None and scheduler is not None:
        raise SettingsError(f"{setting('executor')} and {setting('scheduler')}: specify one of them")
    if not isinstance(parallel, int) or isinstance(parallel, bool) or parallel < 1:
        raise SettingsError(f"{setting('parallel', parallel)}: must be a whole number from 1")
    _check(jobs, scheduler is not None)
    folder, stop = Path(runs), Stop()
    outcomes: dict[str, Outcome] = {}
    running: dict[Future[Outcome], str] = {}
    with ExitStack() as stack:
        stack.enter_context(listening(stop))
        train: Callable[..., Outcome] = train_one
        max_running = parallel
        if scheduler is not None:
            cluster = stack.enter_context(_cluster(scheduler))
            # the scheduler queues them
            train, max_running = cluster.train_one, MAX_SUBMITTED
            waiting = cluster.placed(jobs, parallel)
        else:
            share = max(1, len(os.sched_getaffinity(0)) // max(1, min(parallel, len(jobs))))
            waiting = {
                name: replace(job, dataset=place_of(job), threads=job.threads or share) for name, job in jobs.items()
            }
        pool = executor or stack.enter_context(ThreadPoolExecutor(max_running))
        try:
            while running or (waiting and not stop.asked):
                while waiting and len(running) < max_running and not stop.asked:
                    name = next(iter(waiting))
                    job = waiting.pop(name)
                    # another process can neither see this stop request nor call the listener
                    local_arguments = () if executor else (stop, report)
                    running[pool.submit(train, name, job, folder / name, *local_arguments)] = name
                for future in wait(running, POLL_SECONDS, FIRST_COMPLETED).done:
                    name = running.pop(future)
                    outcomes[name] = _outcome(future, name, folder / name)
                    if report:
                        report(name, {"event": outcomes[name].status, "error": outcomes[name].error})
        except BaseException:
            stop.ask()  # so that the threads end
            if scheduler is not None:
                cluster.close()  # without waiting for remote jobs
            raise
    for name in waiting:
        outcomes[name] = Outcome(name, folder / name, "stopped", "not started")
    return [outcomes[name] for name in jobs]


def _outcome(future: Future[Outcome], name: str, folder: Path) -> Outcome:
    try:
        return future.result()
    except Exception as error:  # an executor's process died, or a bug: the other jobs continue
        return Outcome(name, folder, "failed", f"{type(error).__name__}: {error}")


def _check(jobs: Mapping[str, Job], remote: bool) -> None:
    """Raise one SettingsError for all problems. With ``remote``, datasets at URLs are not downloaded to check them."""
    problems, datasets = [], {}
    for name, job in jobs.items():
        try:
            check_kinds(job)
            path = place_of(job)
            if remote and is_url(path):
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
