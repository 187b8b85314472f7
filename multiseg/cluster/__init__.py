"""Jobs on a Dask cluster: docs/cluster.md.

Each job is one Dask task that communicates with the program (the client) that submitted it. The worker reports events through
Dask; the program responds, and sends and fetches files through Dask's client. A worker therefore needs no folder shared with
the program, and no connection except to its scheduler. If Dask restarts a task after a worker died, the program sends the last
snapshot it has to the new worker.

offer.py         resources of a worker: backends, cores, GPUs, announced as Dask's resources
attempt.py       a job in a Dask worker: the task, and the functions that the program calls in the worker
wire.py          transfer of a folder's files in pieces
connection.py    the program's connection to the cluster: the workers, and which jobs they can run
cluster.py       a cluster that trains jobs
conversation.py  the program's side of one job
mirror.py        the program's copy of a run folder that a worker writes
"""
