"""A Dask cluster that trains jobs."""

from __future__ import annotations

import queue
from pathlib import Path

from multiseg.cluster.connection import Connection
from multiseg.cluster.conversation import Conversation
from multiseg.job.job import Job
from multiseg.job.outcome import Outcome, Report
from multiseg.training.signals import Stop


class Cluster(Connection):
    """A cluster that trains jobs; construct it with its scheduler, see :class:`multiseg.cluster.connection.Connection`."""

    def train_one(self, name: str, job: Job, folder: Path, stop: Stop, report: Report | None) -> Outcome:
        """Train one placed job in the cluster; ``folder`` then has the same content as after training on this machine."""
        events = self.events[name] = queue.SimpleQueue()
        try:
            return Conversation(self, self.topic, events, name, job, folder, stop, report).outcome()
        finally:
            del self.events[name]
