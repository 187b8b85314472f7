"""One training job: settings that a user requests, their resolution, and the outcome."""

from multiseg.job.job import Job

__all__ = ["Job"]
