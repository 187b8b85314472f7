"""A training step of PyTorch on several networks compared with the strongest loop that a user could write.

Plain PyTorch, channels_last and torch.compile, each as a user starts it and with the memory settings of multiseg's workers. By
processor time of one thread, which other load on the machine affects least.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from pairing import Contender, by_turns, medians

import multiseg
from multiseg.training.preparation import spec_of
from multiseg.worker.client import MEMORY, environment
from parts.figures import Figure, ratio
from parts.setup import RATE, Bench, closing

BENCHMARKS = Path(__file__).parent.parent
MODELS = BENCHMARKS.parent / "models" / "multiseg_models"
VARIANTS = ("plain", "channels_last", "torch.compile")


@dataclass(frozen=True)
class Subject:
    """A network file, its batch, and the shapes (C, H, W) of its images; ``classes`` 0: labels are images."""

    name: str
    model: Path
    batch: int
    image: tuple[int, int, int]
    classes: int = 0
    of_images: bool = False  # one class for a whole image
    target: float | None = None

    @property
    def labels(self) -> tuple[int, ...]:
        """The shape of an image's labels as PyTorch's losses take them."""
        return () if self.of_images else self.image[1:]


SUBJECTS = (
    Subject("FCN", MODELS / "fcn_torch.py", 4, (1, 32, 32), target=2.2),
    Subject("FCN", MODELS / "fcn_torch.py", 32, (1, 32, 32), target=4.5),
    Subject("U-Net", MODELS / "unet_torch.py", 8, (3, 64, 64), 21, target=1.2),
    Subject("FCN-8s style", BENCHMARKS.parent / "tests" / "nets" / "fcn8s_torch.py", 8, (3, 64, 64), 5, target=1.2),
    Subject("FCN-AlexNet", MODELS / "fcn_alexnet_torch.py", 2, (3, 128, 128), 21),
    Subject("LeNet", BENCHMARKS / "networks" / "lenet.py", 64, (1, 28, 28), 10, of_images=True),
)
QUICK = ("U-Net", "FCN-8s style")


def figures(bench: Bench) -> Iterator[Figure]:
    if "torch" not in bench.backends:
        return
    for subject in SUBJECTS:
        if bench.quick and subject.name not in QUICK:
            continue
        with ExitStack() as stack:
            rivals = {"multiseg": closing(stack, _ours(bench, subject))}
            for variant in VARIANTS:
                for memory in ({}, MEMORY):
                    name = f"{variant} with the workers' memory" if memory else variant
                    rivals[name] = closing(stack, _plain(subject, variant, memory))
            turns = {name: partial(rival.turn, bench.seconds) for name, rival in rivals.items()}
            times = by_turns(turns, bench.rounds)
        middle = medians({name: values for name, values in times.items() if name != "multiseg"})
        best = min(middle, key=lambda name: middle[name])
        title = f"{subject.name} batch {subject.batch}"
        yield ratio(f"{title}: best rival ({best}) / multiseg", times, best, "multiseg", "higher", subject.target)
        for name in middle:
            yield ratio(f"{title}: {name} / multiseg", times, name, "multiseg", "higher")


def _plain(subject: Subject, variant: str, memory: dict[str, str]) -> Contender:
    return Contender(
        "plain_torch_network", memory, model=str(subject.model), image=subject.image, labels=subject.labels,
        classes=subject.classes, batch_size=subject.batch, variant=variant, rate=RATE, clock="processor",
    )  # fmt: skip


def _ours(bench: Bench, subject: Subject) -> Contender:
    draw = np.random.default_rng(0)
    features = draw.normal(size=(subject.batch, *subject.image)).astype(np.float32)
    shape = (1, 1, 1) if subject.of_images else (1, *subject.image[1:]) if subject.classes else subject.image
    count = (subject.batch, *shape)
    labels = draw.integers(0, subject.classes, count) if subject.classes else features.reshape(count)
    path = bench.folder / f"{subject.model.stem}-{subject.batch}.npz"
    np.savez(path, features=features, labels=labels.astype(np.float32))
    job = multiseg.Job(
        dataset="", backend="torch", model=subject.model, batch_size=subject.batch, threads=1, seed=1,
        loss="cross_entropy" if subject.classes else "smooth_l1",
    )  # fmt: skip
    settings = job.resolve()
    spec = spec_of(settings, subject.image, shape, "classes" if subject.classes else "images")
    return Contender(
        "multiseg_step", environment(settings.backend, 1), what="train", batch_size=subject.batch, rate=RATE, images=str(path),
        size=subject.image[1:], module=settings.backend.module, spec=spec.to_json(), clock="processor",
    )  # fmt: skip
