"""A training step on several networks compared with the strongest loop that a user of the framework could write.

PyTorch: plain, channels_last and torch.compile. TensorFlow: a session, the same with XLA, and Keras 3 with jit_compile. Caffe:
pycaffe's solver. Each as a user starts it and with the memory settings of multiseg's workers. By processor time of one thread,
which other load on the machine affects least, or by wall time on several threads. The plain loop uses the installed pycaffe, or
that in the folder PLAIN_CAFFE.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pairing import Contender, by_turns, medians

import multiseg
from multiseg import backend as registry
from multiseg.layout import Layout
from multiseg.training.preparation import spec_of
from multiseg.worker.client import MEMORY
from parts.figures import Figure, ratio
from parts.setup import PLAIN, RATE, Bench, caffe_net, closing, network_process

BENCHMARKS = Path(__file__).parent.parent
MODELS = BENCHMARKS.parent / "models" / "multiseg_models"
NETS = BENCHMARKS.parent / "tests" / "nets"
VARIANTS = {
    "torch": ("plain", "channels_last", "torch.compile"),
    "tensorflow": ("plain", "XLA", "Keras with jit"),
    "caffe": ("plain",),
}
# a folder with another build of the package caffe, for the plain loop
OTHER_CAFFE = {"PYTHONPATH": os.environ["PLAIN_CAFFE"]} if "PLAIN_CAFFE" in os.environ else {}
XLA = {"TF_XLA_FLAGS": "--tf_xla_cpu_global_jit"}  # in the user's environment: XLA on CPUs needs it


@dataclass(frozen=True)
class Subject:
    """A network: its files and targets by backend, its batch, and the shape (C, H, W) of its images.

    ``classes`` 0: labels are images. ``of_images``: one class for a whole image.
    """

    name: str
    files: dict[str, Path]
    batch: int
    image: tuple[int, int, int]
    classes: int = 0
    of_images: bool = False
    targets: dict[str, float] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[int, ...]:
        """The shape of an image's labels as PyTorch's losses take them."""
        return () if self.of_images else self.image[1:]


def _files(folder: Path, name: str) -> dict[str, Path]:
    endings = {"torch": "_torch.py", "tensorflow": "_tensorflow.py", "caffe": ".prototxt"}
    return {backend: folder / f"{name}{ending}" for backend, ending in endings.items()}


TARGETS = {"torch": 1.2, "tensorflow": 1.2, "caffe": 1.3}
SUBJECTS = (
    Subject("FCN", {"torch": MODELS / "fcn_torch.py"}, 4, (1, 32, 32), targets={"torch": 2.2}),
    Subject("FCN", {"torch": MODELS / "fcn_torch.py"}, 32, (1, 32, 32), targets={"torch": 4.5}),
    Subject("U-Net", _files(MODELS, "unet"), 8, (3, 64, 64), 21, targets=TARGETS),
    Subject("FCN-8s style", _files(NETS, "fcn8s"), 8, (3, 64, 64), 5, targets=TARGETS),
    Subject("FCN-AlexNet", {"torch": MODELS / "fcn_alexnet_torch.py"}, 2, (3, 128, 128), 21),
    Subject("LeNet", {"torch": BENCHMARKS / "networks" / "lenet.py"}, 64, (1, 28, 28), 10, of_images=True),
)
QUICK = ("U-Net", "FCN-8s style")


def figures(bench: Bench) -> Iterator[Figure]:
    for backend in bench.backends:
        for subject in SUBJECTS:
            if backend in subject.files and not (bench.quick and subject.name not in QUICK):
                yield from _compared(bench, backend, subject)


def _compared(bench: Bench, backend: str, subject: Subject) -> Iterator[Figure]:
    with ExitStack() as stack:
        rivals = {"multiseg": closing(stack, _ours(bench, backend, subject))}
        for variant in VARIANTS[backend]:
            for memory in ({}, MEMORY):
                name = f"{variant} with the workers' memory" if memory else variant
                rivals[name] = closing(stack, _plain(bench, backend, subject, variant, memory))
        turns = {name: partial(rival.turn, bench.seconds) for name, rival in rivals.items()}
        times = by_turns(turns, bench.rounds)
    middle = medians({name: values for name, values in times.items() if name != "multiseg"})
    best = min(middle, key=lambda name: middle[name])
    title = f"{backend} {subject.name} batch {subject.batch}"
    target = subject.targets.get(backend)
    yield ratio(f"{title}: best rival ({best}) / multiseg", times, best, "multiseg", "higher", target)
    for name in middle:
        yield ratio(f"{title}: {name} / multiseg", times, name, "multiseg", "higher")


def _plain(bench: Bench, backend: str, subject: Subject, variant: str, memory: dict[str, str]) -> Contender:
    given: dict[str, Any] = {"batch_size": subject.batch, "rate": RATE, "variant": variant, **_threads(bench)}
    model = subject.files[backend]
    if backend == "torch":
        shapes = {"image": subject.image, "labels": subject.labels, "classes": subject.classes}
        return Contender("plain_torch_network", memory, model=str(model), **shapes, **given)
    given["images"] = str(_images(bench, backend, subject))
    if backend == "caffe":
        net = caffe_net(model, "train", (subject.batch, *subject.image), (subject.batch, 1, *subject.image[1:]))
        variables = {"OPENBLAS_NUM_THREADS": str(bench.threads), **memory, **OTHER_CAFFE}
        return Contender("plain_caffe", variables, net=net, what="train", **given)
    variables = PLAIN[backend] | memory | (XLA if variant == "XLA" else {})
    if variant == "Keras with jit":
        return Contender("keras_network", variables, network=model.stem, classes=subject.classes, **given)
    return Contender("plain_tensorflow_network", variables, model=str(model), classes=subject.classes, **given)


def _threads(bench: Bench) -> dict[str, Any]:
    return {"threads": bench.threads, "clock": "processor" if bench.threads == 1 else "wall"}


def _ours(bench: Bench, backend: str, subject: Subject) -> Contender:
    shape = _label_shape(subject)
    job = multiseg.Job(
        dataset="", backend=backend, model=subject.files[backend], batch_size=subject.batch, threads=bench.threads, seed=1,
        loss=None if backend == "caffe" else "cross_entropy" if subject.classes else "smooth_l1",
    )  # fmt: skip
    settings = job.resolve()
    spec = spec_of(settings, subject.image, shape, "classes" if subject.classes else "images")
    given = {"images": str(_images(bench, backend, subject)), "size": subject.image[1:]}
    return network_process(settings, spec, "train", subject.batch, **given, clock=_threads(bench)["clock"])


def _label_shape(subject: Subject) -> tuple[int, int, int]:
    if subject.of_images:
        return 1, 1, 1
    return (1, *subject.image[1:]) if subject.classes else subject.image


def _images(bench: Bench, backend: str, subject: Subject) -> Path:
    """A batch of random images and labels as the backend takes them, in a file for contenders."""
    draw = np.random.default_rng(0)
    features = draw.normal(size=(subject.batch, *subject.image)).astype(np.float32)
    count = (subject.batch, *_label_shape(subject))
    labels = draw.integers(0, subject.classes, count) if subject.classes else features.reshape(count)
    layout = Layout(registry.get(backend).data_order)
    path = bench.folder / f"{backend}-{subject.files[backend].stem}-{subject.batch}.npz"
    np.savez(path, features=layout.features(features), labels=layout.labels(labels.astype(np.float32)))
    return path
