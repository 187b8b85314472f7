"""Measure the speed of datasets. Prints ratios from one run, so that the speed of the machine cancels out.

python benchmarks/dataset.py                     # all except the long ones
python benchmarks/dataset.py create read         # some of them
python benchmarks/dataset.py photographs         # JPEG photographs, augmented, by the number of data workers
FOLDER=. python benchmarks/dataset.py png        # PNG files of photographs by zlib's level of compression
python benchmarks/dataset.py scale kills         # the long ones: 100,000 pairs; 200 kills
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

import multiseg
from multiseg.dataset.augmentation import Augmentation, Augmented
from multiseg.dataset.cropping import Crop
from multiseg.dataset.decoded import Limit
from multiseg.dataset.feed import batches, epoch_order
from multiseg.dataset.readers import Readers
from multiseg.errors import DatasetError
from multiseg.layout import Layout

ROUNDS = 5
WORKERS = (0, 1, 2)


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def plain_loop(images: Path, out: Path) -> None:
    """The usual script: one thread, Pillow to read and encode, protobuf, lmdb; shuffle, split, mean."""
    import lmdb

    from multiseg.dataset.records import BlobProto, Datum

    inputs = sorted(path for path in (images / "input").rglob("*") if path.suffix == ".png")
    targets = sorted(path for path in (images / "target").rglob("*") if path.suffix == ".png")
    order = list(range(len(inputs)))
    random.Random(0).shuffle(order)
    count = len(order) // 10
    for name, some in (("train_db", order[count:]), ("val_db", order[:count])):
        features_path, labels_path = out / name / "features", out / name / "labels"
        features_path.mkdir(parents=True)
        labels_path.mkdir(parents=True)
        features = lmdb.open(str(features_path), map_size=1 << 36, sync=False)
        labels = lmdb.open(str(labels_path), map_size=1 << 36, sync=False)
        total: np.ndarray | None = None
        with features.begin(write=True) as into_features, labels.begin(write=True) as into_labels:
            for number, index in enumerate(some):
                key = b"%09d" % number
                picture = Image.open(inputs[index])
                pixels = np.array(picture)
                total = pixels.astype(np.float64) if total is None else total + pixels
                buffer = io.BytesIO()
                picture.save(buffer, "PNG")
                height, width = pixels.shape[:2]
                datum = Datum(
                    channels=len(picture.getbands()), height=height, width=width, data=buffer.getvalue(), encoded=True
                )
                into_features.put(key, datum.SerializeToString())
                label = np.array(Image.open(targets[index]))
                datum = Datum(channels=1, height=height, width=width, data=label.tobytes(), encoded=False)
                into_labels.put(key, datum.SerializeToString())
        assert total is not None
        mean = np.around(total / len(some)).astype(np.uint8)
        planes = mean[np.newaxis] if mean.ndim == 2 else mean.transpose(2, 0, 1)[::-1]
        blob = BlobProto(num=1, channels=planes.shape[0], height=planes.shape[1], width=planes.shape[2])
        blob.data.extend(planes.ravel().tolist())
        (out / name / "mean.binaryproto").write_bytes(blob.SerializeToString())
        for environment in (features, labels):
            environment.sync(True)
            environment.close()


def create(images: Path, out: Path, workers: int | None, encoding: str = "png") -> multiseg.Dataset:
    return multiseg.Dataset.create(
        out, input=images / "input", target=images / "target", seed=0, workers=workers, feature_encoding=encoding
    )


def photographs(folder: Path, count: int, width: int, height: int) -> Path:
    """Write pairs that compress like photographs and their masks, unlike triangles."""
    numbers = np.random.default_rng(0)
    for kind in ("input", "target"):
        (folder / kind).mkdir(parents=True)
    for index in range(count):
        coarse = Image.fromarray(numbers.integers(0, 256, (9, 9, 3), np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
        grainy = (smooth + numbers.normal(0, 4, smooth.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(grainy).save(folder / "input" / f"{index:08d}.png", compress_level=1)
        Image.fromarray((smooth[..., 0] > 128) * np.uint8(255)).save(folder / "target" / f"{index:08d}.png")
    return folder


def compare_creation(work: Path, images: Path) -> dict[str, float]:
    """Return the best time of each way to create a dataset from the images."""
    ways: dict[str, Callable[[Path], object]] = {
        "plain loop": lambda out: plain_loop(images, out),
        "1 worker": lambda out: create(images, out, 1),
        "2 workers": lambda out: create(images, out, 2),
        "all cores": lambda out: create(images, out, None),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):  # alternating, so that other load on the machine affects all alike
        for name, way in ways.items():
            out = work / "out"
            times[name].append(seconds(lambda way=way, out=out: way(out)))  # type: ignore[misc]
            shutil.rmtree(out)
    shutil.rmtree(images)
    return {name: min(some) for name, some in times.items()}


def bench_create(work: Path) -> None:
    for what, images in (
        ("10,000 pairs of triangles, 32x32", lambda: multiseg.create_images(work / "images", seed=0)),
        ("1,000 pairs of triangles, 512x512", lambda: multiseg.create_images(work / "images", 1_000, 512, seed=0)),
        ("250 pairs like photographs, 512x512", lambda: photographs(work / "images", 250, 512, 512)),
    ):
        took = compare_creation(work, images())
        plain, one = took["plain loop"], took["1 worker"]
        print(f"create {what}, best of {ROUNDS}: " + ", ".join(f"{name} {time:.2f} s" for name, time in took.items()))
        print(f"  plain loop / all cores: {plain / took['all cores']:.2f}, plain loop / 1 worker: {plain / one:.2f}")
        print(f"  1 worker / 2 workers: {one / took['2 workers']:.2f}")


def bench_read(work: Path) -> None:
    images = multiseg.create_images(work / "images", seed=0)
    for encoding, wanted in (("none", 30_000), ("png", 8_000)):
        dataset = create(images, work / encoding, None, encoding)
        mean = dataset.mean_pixel
        rates = []
        for epoch in range(ROUNDS):
            order = epoch_order(len(dataset.train), 0, epoch)
            start = time.perf_counter()
            with batches(dataset.train, 32, order, Layout("NHWC", "BGR", mean)) as feed:
                read = sum(len(batch.indices) for batch in feed)
            rates.append(read / (time.perf_counter() - start))
        print(f"read random batches of 32, 32x32, {encoding}: {median(rates):,.0f} samples/s  (wanted {wanted:,})")
    shutil.rmtree(images)


_MEASURED = r"""
import json, re, resource, sys, time, multiseg
from pathlib import Path
from multiseg.dataset.feed import batches, epoch_order
images, out, what = sys.argv[1:]
start = time.perf_counter()
if what == "create":
    multiseg.Dataset.create(out, input=images + "/input", target=images + "/target", seed=0)
else:
    split = multiseg.Dataset.open(out).train
    for batch in batches(split, 32, epoch_order(len(split), 0, 0)):
        pass
# ru_maxrss of this process includes the memory of its parent at the fork
peak = int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1]) / 1024
print(json.dumps([time.perf_counter() - start, peak, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024]))
"""


def bench_photographs(work: Path) -> None:
    images = photographs(work / "images", 200, 500, 375)
    dataset = multiseg.Dataset.create(
        work / "dataset", input=images / "input", target=images / "target", feature_encoding="jpg", label_encoding="png",
        val_percent=0, seed=0,
    )  # fmt: skip
    split, layout = dataset.train, Layout("NCHW", mean=np.full(3, 100, np.float32))
    print("images of 500x375, crops of 321x321: images per second, each decoded, or kept decoded in memory")
    for options in ({"flip": "horizontal"}, {"flip": "horizontal", "scale": (0.5, 2)}):
        change = Augmented(Augmentation.of(options), 0, 0, Crop((321, 321), (100, 100, 100)))

        def one_pass(readers: Readers, change: Augmented = change) -> None:
            for _ in batches(split, 8, epoch_order(len(split), 0, 0), layout, change=change, readers=readers):
                pass

        kinds = [(workers, kept) for kept in (0, 10**9) for workers in WORKERS]
        times: dict[tuple[int, int], list[float]] = {kind: [] for kind in kinds}
        with ExitStack() as stack:
            pools = {kind: stack.enter_context(Readers(kind[0], Limit(kind[1]))) for kind in kinds}
            for readers in pools.values():  # which start, and keep the decoded images
                one_pass(readers)
            for _ in range(ROUNDS):
                for kind, readers in pools.items():
                    times[kind].append(seconds(partial(one_pass, readers)))
        print(f"{', '.join(options)}, data workers:", ", ".join(map(str, WORKERS)))
        for kept, title in ((0, "decoded"), (10**9, "kept")):
            rates = [len(split) / median(times[workers, kept]) for workers in WORKERS]
            print(f"  {title}:", ", ".join(f"{rate:.0f}" for rate in rates))


def bench_png(work: Path) -> None:
    """Of drawn images, which compress like photographs; of real ones in FOLDER, if it is set."""
    folder = (
        Path(os.environ["FOLDER"]) if "FOLDER" in os.environ else photographs(work / "images", 40, 500, 375) / "input"
    )
    images = [Image.open(path).convert("RGB") for path in sorted(folder.iterdir())[:100]]
    print("level: ms to encode an image, kB, ms to decode it")
    for level in (1, 2, 3, 4, 6, 9):
        files: list[bytes] = []

        def encode(level: int = level, files: list[bytes] = files) -> None:
            for image in images:
                buffer = io.BytesIO()
                image.save(buffer, "PNG", compress_level=level)
                files.append(buffer.getvalue())

        def decode(files: list[bytes] = files) -> None:
            for file in files:
                Image.open(io.BytesIO(file)).load()

        each = [1000 * seconds(way) / len(images) for way in (encode, decode)]
        print(f"{level}: {each[0]:.2f}, {sum(map(len, files)) / len(files) / 1000:.1f}, {each[1]:.2f}")


def bench_scale(work: Path) -> None:
    for count in (1_000, 10_000, 100_000):
        images = multiseg.create_images(work / "images", count=count, seed=0)
        for what in ("create", "read"):
            answer = subprocess.run(
                [sys.executable, "-c", _MEASURED, str(images), str(work / "out"), what],
                stdout=subprocess.PIPE,
                check=True,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            )
            took, peak, helpers = json.loads(answer.stdout)
            print(
                f"{what} {count:,} pairs of 32x32: {took / count * 1e6:.0f} us a pair, peak memory {peak:.0f} MB"
                + (f", of a helper {helpers:.0f} MB" if what == "create" and helpers else "")
            )
        shutil.rmtree(work / "out")
        shutil.rmtree(images)


def bench_kills(work: Path, rounds: int = 200) -> None:
    images = multiseg.create_images(work / "images", count=3000, seed=0)
    script = (
        "import sys, multiseg, multiseg.dataset.creation as creation; a, out = sys.argv[1:]; "
        "creation.MOST_PAIRS = 32; "  # chunks enough for a helper to take part
        "multiseg.Dataset.create(out, input=a + '/input', target=a + '/target', seed=0, workers=2)"
    )
    command = [sys.executable, "-c", script, str(images), str(work / "out")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    whole = seconds(lambda: subprocess.run(command, check=True, env=environment))
    expected = multiseg.Dataset.open(work / "out").content_hash
    shutil.rmtree(work / "out")
    numbers = random.Random(0)
    finished = none = half = 0
    for _ in range(rounds):
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        time.sleep(numbers.random() * whole * 1.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        try:
            dataset = multiseg.Dataset.open(work / "out")
        except DatasetError:
            none += 1
            half += (work / "out").exists()
        else:
            finished += 1
            half += dataset.content_hash != expected or len(dataset.train) + len(dataset.val) != 3000
            shutil.rmtree(work / "out")
    subprocess.run(command, check=True, env=environment)
    left = sorted(path.name for path in work.iterdir() if path.name not in ("images", "out"))
    print(f"{rounds} kills: {finished} whole datasets, {none} none, {half} half ones; left over after one more: {left}")
    shutil.rmtree(work / "out")
    shutil.rmtree(images)


BENCHMARKS = {
    "create": bench_create,
    "read": bench_read,
    "photographs": bench_photographs,
    "png": bench_png,
    "scale": bench_scale,
    "kills": bench_kills,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="default: create read")
    for name in parser.parse_args().names or ["create", "read"]:
        with tempfile.TemporaryDirectory() as work:
            BENCHMARKS[name](Path(work))


if __name__ == "__main__":
    main()
