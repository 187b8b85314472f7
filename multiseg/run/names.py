"""Names of the files and folders in a run folder, and the columns of its history."""

from __future__ import annotations

from multiseg.model_files import run_copy
from multiseg.settings.metrics import SCORES

JOB = run_copy.JOB  # settings, dataset, network and environment, written once
HISTORY = "history.csv"  # one row per epoch and per validation; row 0 is the validation before training
SUMMARY = "summary.json"  # status, best epoch, seconds, peak memory
EVENTS = "events.jsonl"  # events with their time: start, rows, snapshots, stop, end; one JSON object per line
MODEL = run_copy.MODEL  # the network file; for a model of another backend also the exported file
SNAPSHOTS = "snapshots"  # epoch-0001 ...: one folder per snapshot, with the framework's own files and
POSITION = "position.json"  # the position in the training
SUMS = "sums.json"  # in a snapshot: SHA-256 of its files, of the history up to it and of the settings
WORKER_LOG = "worker.log"  # what the backend's process printed
TENSORBOARD = "tensorboard"  # a log for TensorBoard, if it was requested
LOCK = ".lock"  # held by the process that trains
PROGRESS = ".progress.json"  # the last step, written at most twice a second; for `multiseg watch`
PICTURES = "pictures"  # outputs for the first validation images, after the last validation
REQUEST = ".request"  # a request to the process that trains, see multiseg.run.requests
# the entries of a folder until job.json is written: in a copy from a cluster the log is written by rename, and the program writes
# the progress of a training whose job.json is still on its way; a request may come at any time
BEFORE_JOB = {SNAPSHOTS, MODEL, WORKER_LOG, LOCK, PROGRESS, REQUEST}
BEFORE_JOB |= {f".{name}.part" for name in (JOB, WORKER_LOG, PROGRESS, REQUEST)}
_FILES = {JOB, HISTORY, SUMMARY, EVENTS, PROGRESS, REQUEST}
OWN = BEFORE_JOB | _FILES | {f".{name}.part" for name in _FILES} | {TENSORBOARD, PICTURES}  # all entries of a run

FORMAT = 1
COLUMNS = (
    "epoch", "iteration", *(metric.key for metric in SCORES), "learning_rate", "seconds", "val_seconds",
    "images_per_second",
)  # fmt: skip
