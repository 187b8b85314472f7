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
    """A cluster by its scheduler, see :class:`multiseg.cluster.connection.Connection`, that trains jobs."""

    def train_one(self, name: str, job: Job, folder: Path, stop: Stop, report: Report | None) -> Outcome:
        """Train one placed job somewhere in the cluster; ``folder`` becomes what it would be had it been trained here."""
        events = self.events[name] = queue.SimpleQueue()
        try:
            return Conversation(self, self.topic, events, name, job, folder, stop, report).outcome()
        finally:
            del self.events[name]
