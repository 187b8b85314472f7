"""A dataset made and trained on, once: seconds of either, and the peak memory of this process and of the worker."""

import json
import time
from pathlib import Path

from serving import options, said

import multiseg

given = options()
answers = said()
began = time.perf_counter()
images = Path(given["images"])
dataset = multiseg.Dataset.create(
    given["dataset"], input=images / "input", target=images / "target", val_percent=0, seed=1
)
create = time.perf_counter() - began
run = multiseg.Job(dataset=dataset, **given["job"]).train(given["folder"], progress=False)
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
found = {
    "create": create / len(dataset.train),
    "train": run.history[-1]["seconds"] / len(dataset.train),
    "program": int(peak.split()[1]) / 1024,
    "worker": run.summary["peak_memory_mb"],
}
print(json.dumps(found), file=answers)
