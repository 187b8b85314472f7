"""Train several jobs, from a file or a mapping."""

from multiseg.jobs.file import JobList, read_jobs
from multiseg.jobs.jobs import train_jobs

__all__ = ["JobList", "read_jobs", "train_jobs"]
