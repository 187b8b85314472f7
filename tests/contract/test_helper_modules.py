"""Network files that use files beside them: modules, packages, data files; copied with the run, hashed, compared on resume."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import multiseg
from multiseg.errors import RunError, TrainingStopped
from multiseg.training.signals import Stop

TORCH = """
from pathlib import Path
import numpy as np
from torch import nn
from blocks import SLOPE
from .parts.activation import leaky
SCALE = float(np.load(Path(__file__).parent / 'numbers' / 'scale.npy'))

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
    def forward(self, x):
        import late
        return SCALE * leaky(self.conv(x), SLOPE) * late.FACTOR

def network(params):
    return {'model': Net(), 'loss': nn.MSELoss()}
"""
TENSORFLOW = """
from pathlib import Path
import numpy as np
from model import Tower
from utils import model_property
import tensorflow as tf
import utils as digits
from blocks import SLOPE
from .parts.activation import leaky
SCALE = float(np.load(Path(__file__).parent / 'numbers' / 'scale.npy'))

class UserModel(Tower):
    @model_property
    def inference(self):
        import late
        x = tf.contrib.layers.conv2d(self.x, 3, [1, 1], activation_fn=None, scope='conv')
        return SCALE * leaky(x, SLOPE) * late.FACTOR
    @model_property
    def loss(self):
        return digits.mse_loss(self.inference, self.y)
"""
LEAKY = {
    "torch": "from torch.nn import functional as F\ndef leaky(x, slope): return F.leaky_relu(x, slope)\n",
    "tensorflow": "import tensorflow as tf\nassert tf.contrib\ndef leaky(x, slope): return tf.nn.leaky_relu(x, slope)\n",
}
NETWORKS = [
    pytest.param("torch", marks=pytest.mark.needs("torch")),
    pytest.param("tensorflow", marks=pytest.mark.needs("tensorflow")),
]


def write(folder: Path, framework: str, slope: float = 0.1, scale: float = 2.0) -> Path:
    """Write a network of scale * leaky(conv(x), slope), divided among several files."""
    for name in ("parts", "numbers"):
        (folder / name).mkdir(parents=True)
    (folder / "net.py").write_text({"torch": TORCH, "tensorflow": TENSORFLOW}[framework])
    (folder / "blocks.py").write_text("from settings import SLOPE\n")
    (folder / "settings.py").write_text(f"SLOPE = {slope}\n")
    (folder / "late.py").write_text("FACTOR = 1.0\n")
    (folder / "unrelated.py").write_text("raise RuntimeError\n")
    (folder / "parts/__init__.py").write_text("")
    (folder / "parts/activation.py").write_text(LEAKY[framework])
    np.save(folder / "numbers/scale.npy", scale)
    return folder / "net.py"


FILES = [
    "blocks.py",
    "late.py",
    "net.py",
    "numbers/scale.npy",
    "parts/__init__.py",
    "parts/activation.py",
    "settings.py",
]


def expected(run: multiseg.Run, image: Any, slope: float, scale: float) -> Any:
    """Compute the network in float64 from the run's weights."""
    weights = {name: value.astype(np.float64) for name, value in run.worker().call("get_weights").items()}
    x = np.einsum("oc,chw->ohw", weights["conv.weight"][:, :, 0, 0], image) + weights["conv.bias"][:, None, None]
    return scale * np.where(x > 0, x, slope * x)


@pytest.mark.parametrize("framework", NETWORKS)
def test_a_run_keeps_the_files_that_its_network_uses(
    framework: str, coloured: multiseg.Dataset, tmp_path: Path
) -> None:
    model = write(tmp_path / "net", framework)
    job = multiseg.Job(
        dataset=coloured, backend=framework, model=model, epochs=1, seed=1, subtract_mean="none", batch_size=2
    )
    run = job.train(tmp_path / "run", progress=False)
    run.close()
    files = {
        path.relative_to(tmp_path / "run/model").as_posix(): path for path in (tmp_path / "run/model").rglob("*.*")
    }
    assert sorted(files) == FILES
    stored = json.loads((tmp_path / "run/job.json").read_text())["model_files"]
    assert stored == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}

    shutil.rmtree(tmp_path / "net")
    write(tmp_path / "net", framework, slope=-7, scale=99)  # of no concern to the run
    image = np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "image.png")
    with multiseg.Run.open(tmp_path / "run") as opened:
        output = opened.test_one(tmp_path / "image.png").array
        wanted = expected(opened, image.transpose(2, 0, 1), 0.1, 2.0)
        np.testing.assert_allclose(output, wanted, rtol=1e-4, atol=1e-3)
        assert opened.topology.layers


@pytest.mark.parametrize(
    ("framework", "name"),
    [
        *(
            pytest.param("torch", name, marks=pytest.mark.needs("torch"))
            for name in ("settings.py", "late.py", "parts/activation.py", "numbers/scale.npy")
        ),
        pytest.param("tensorflow", "settings.py", marks=pytest.mark.needs("tensorflow")),
    ],
)
def test_a_changed_file_beside_the_network_is_refused_on_resume(
    framework: str, name: str, coloured: multiseg.Dataset, tmp_path: Path
) -> None:
    model = write(tmp_path / "net", framework)
    job = multiseg.Job(dataset=coloured, backend=framework, model=model, epochs=3, seed=1, batch_size=2)
    stop = Stop()

    def interrupt(event: dict[str, Any]) -> None:
        if event["event"] == "epoch" and event["epoch"] == 1:
            stop.ask()

    with pytest.raises(TrainingStopped):
        job.train(tmp_path / "run", progress=interrupt, stop=stop)
    content = (tmp_path / "net" / name).read_bytes()
    (tmp_path / "net" / name).write_bytes(content + b"\n")
    with pytest.raises(RunError, match=f"{name}: has changed since"):
        job.train(tmp_path / "run", resume=True, progress=False)
    (tmp_path / "net" / name).unlink()
    with pytest.raises(RunError, match=f"{name}: has changed since"):
        job.train(tmp_path / "run", resume=True, progress=False)
    (tmp_path / "net" / name).write_bytes(content)
    (tmp_path / "net/unrelated.py").write_text("")
    job.train(tmp_path / "run", resume=True, progress=False).close()


@pytest.mark.parametrize("framework", NETWORKS)
def test_helpers_of_one_name_in_two_folders_are_kept_apart(
    framework: str, coloured: multiseg.Dataset, tmp_path: Path
) -> None:
    slopes = {"one": 0.25, "two": 0.5}
    runs = {}
    for name, slope in slopes.items():
        model = write(tmp_path / name, framework, slope)
        job = multiseg.Job(
            dataset=coloured, backend=framework, model=model, epochs=1, seed=1, subtract_mean="none", batch_size=2
        )
        runs[name] = job.train(tmp_path / f"run-{name}", progress=False)
    image = np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "image.png")
    for name in ("one", "two", "one"):
        wanted = expected(runs[name], image.transpose(2, 0, 1), slopes[name], 2.0)
        np.testing.assert_allclose(runs[name].test_one(tmp_path / "image.png").array, wanted, rtol=1e-4, atol=1e-3)
    for run in runs.values():
        run.close()
    # in one process, one after the other
    described = {name: multiseg.describe(tmp_path / name / "net.py", (3, 8, 8)) for name in ("one", "two", "one")}
    alphas = {
        name: next(layer.parameters["alpha"] for layer in topology.layers if layer.type == "LeakyRelu")
        for name, topology in described.items()
    }
    assert alphas == slopes
