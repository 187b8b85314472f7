"""Jobs on a Dask cluster: docs/cluster.md.

Each job is one Dask task, in a conversation with the program that asked for it. The worker tells what happens as Dask events;
the program answers, puts files there and gets files from there through Dask's client. So a worker needs no folder in common
with the program, and no connection but that to its scheduler; and wherever Dask begins a task again, after a worker's death, the
program gives it the last snapshot that it has.

offer.py         what a worker has: backends, cores, GPUs, announced as Dask's resources
attempt.py       a job in a Dask worker: the task, and what the program calls there
wire.py          files of a folder in pieces
cluster.py       the program's connection to the cluster: who can run what
conversation.py  the program's side of one job
mirror.py        the program's copy of a run folder that is written elsewhere
"""
