"""The matrix products of one training step of the FCN on 32x32 pixels, and a copy of its parameters, by one library.

Each product a b' of matrices as Caffe and PyTorch store them, as it is ("rows") or turned round, b a' ("columns").
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from serving import options, serve

PARAMETERS = 8_652_097

given = options()
images, library, threads = given["batch_size"], given["library"], given["threads"]


def random(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(1).random((rows, columns), dtype=np.float32)


def layer(name: str, inputs: np.ndarray, weights: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The layer's products, as pairs (a, b): its output, and the gradients of its weights and of its inputs."""
    gradient = random(len(inputs), len(weights))
    return {
        f"{name} output": (inputs, weights),
        f"{name} weights": (gradient.T, inputs.T),
        f"{name} inputs": (gradient, weights.T),
    }


pairs = {
    **layer("conv1", random(images * 32 * 32, 9), random(32, 9)),
    **layer("conv2", random(images * 4, 8192), random(1024, 8192)),
    **layer("deconv", random(images * 4, 1024), random(1024, 256).T),
}
del pairs["conv1 inputs"]  # images have no gradient
source, target = (random(1, PARAMETERS)[0] for _ in range(2))

if library == "numpy":
    pool, parts = (
        ThreadPoolExecutor(threads),
        list(zip(*(np.array_split(a, threads) for a in (target, source)), strict=True)),
    )

    def product(a: np.ndarray, b: np.ndarray) -> Callable[[], object]:
        out = np.empty((len(a), len(b)), np.float32)
        return lambda: np.matmul(a, b.T, out=out)

    def copy() -> None:
        list(pool.map(lambda part: np.copyto(*part), parts))

else:
    import torch

    torch.set_num_threads(threads)
    into, of = torch.from_numpy(target), torch.from_numpy(source)

    def product(a: np.ndarray, b: np.ndarray) -> Callable[[], object]:
        first, second = torch.from_numpy(a), torch.from_numpy(b)
        if library == "oneDNN":
            return lambda: torch.ops.mkldnn._linear_pointwise(first, second, None, "none", [], "")
        out = torch.empty(len(a), len(b))
        return lambda: torch.mm(first, second.t(), out=out)

    def copy() -> None:
        into.copy_(of)


units = {"copy": copy}
for name, (a, b) in pairs.items():
    units |= {f"{name} rows": product(a, b), f"{name} columns": product(b, a)}
serve(copy, **units)
