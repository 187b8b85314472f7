"""Create a dataset and train on it once: seconds of both, and the peak memory of this process and of the worker."""

import json
import re
import threading
import time
from pathlib import Path

from serving import options, said

import multiseg

given = options()
answers = said()
peak = 0.0  # own memory in MB: pages of the databases, which are the system's cache, do not count


def watch() -> None:
    global peak
    while True:
        own = re.search(r"RssAnon:\s*(\d+)", Path("/proc/self/status").read_text())
        peak = max(peak, int(own[1]) / 1024)
        time.sleep(0.02)


threading.Thread(target=watch, daemon=True).start()
began = time.perf_counter()
images = Path(given["images"])
dataset = multiseg.Dataset.create(
    given["dataset"], input=images / "input", target=images / "target", val_percent=0, seed=1
)
create = time.perf_counter() - began
run = multiseg.Job(dataset=dataset, **given["job"]).train(given["folder"], progress=False)
found = {
    "create": create / len(dataset.train),
    "train": run.history[-1]["seconds"] / len(dataset.train),
    "program": peak,
    "worker": run.summary["peak_memory_mb"],
}
print(json.dumps(found), file=answers)
