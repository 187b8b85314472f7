"""The contract suite as somebody runs it who writes a backend: over NumPy's, in another folder; and over broken ones."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

FOURTH = Path(__file__).parents[1] / "fourth_backend"
FILE = """
from multiseg.testing import BackendContract

class TestMine(BackendContract):
    backend = "numpy"
"""
EXACT = """
class TestExact(BackendContract):
    backend = "numpy"
    model = "exact.json"
"""


def run(folder: Path, packages: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The tests in a folder, by pytest, with the packages beside multiseg's."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MULTISEG_", "PYTEST_"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rfEs", "-p", "no:cacheprovider", *arguments],
        cwd=folder, env={**environment, "PYTHONPATH": str(packages)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_the_fourth_backend_keeps_the_contract(tmp_path: Path) -> None:
    """With its dropout; what cannot be told of a network that draws at random, without."""
    (tmp_path / "test_mine.py").write_text(FILE + EXACT)
    (tmp_path / "exact.json").write_text('{"numpy network": {"dropout": 0}}')
    done = run(tmp_path, FOURTH, "-k", "TestMine or accumulated")
    assert done.returncode == 0, done.stdout
    skipped = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")]
    assert len(skipped) == 3, skipped
    for words in ("draws at random", "has no writer", "has no exporter"):
        assert sum(words in line for line in skipped) == 1, skipped


@dataclass
class Breakage:
    """An edit of the fourth backend, the tests that must fail by it, and what they must say."""

    old: str
    new: str
    test: str
    words: str
    file: str = "network.py"
    times: int = 1


BREAKAGES = {
    "dampened momentum": Breakage(
        'solver["momentum"], gradient)', 'solver["momentum"], 0.1 * gradient)',
        "follows_its_rule[sgd]", "step 1 of sgd by the recipe equal",
    ),
    "delta in another place": Breakage(
        "correction * mean / (np.sqrt(square) +", "correction * mean / (np.sqrt(square) / (1 - second**self.steps) ** 0.5 +",
        "follows_its_rule[adam]", "of adam by the recipe equal",
    ),
    "no weight decay": Breakage(
        'gradients[name] + decay * self.spec.solver["weight_decay"] * self.weights[name]', "gradients[name]",
        "follows_its_rule[sgd]", "'weight_decay': ",
    ),
    "multipliers left out": Breakage("(rate * lr *", "(rate *", "follows_its_rule[sgd]", "multipliers {'*'"),
    "a kernel the other way round": Breakage("ocij", "ocji", "every_layer", "'conv' makes of its input", times=2),
    "an image on its side": Breakage(
        "return output.astype", "return output.transpose(0, 1, 3, 2).astype",
        "declared_layout", "the output of two images is (2, 1, 48, 32); declared is NCHW, that is (2, 1, 32, 48)",
    ),
    "a view of the weights": Breakage(
        "{name: value.copy() for name, value in self.weights.items()}", "dict(self.weights)",
        "are_copies", "get_weights: what it returned changes when the network is trained; return copies",
    ),
    "somebody else's weights": Breakage(
        "self.weights = {name: np.array(weights[name], np.float32)", "self.weights = {name: np.asarray(weights[name])",
        "are_copies", "set_weights: the network changes when its argument is changed; store a copy",
    ),
    "a sum for a mean": Breakage(
        "float(values.mean())", "float(values.sum())",
        "mean_over_elements[smooth_l1]", "the loss 'smooth_l1' is a mean over all elements", file="losses.py",
    ),
    "a gradient forgotten": Breakage(
        "outer.sum(axis=(0, 2, 3))", "np.zeros(1)", "difference_quotients_of_the_loss[l2]",
        "the gradient of 'l2' by 'scale.bias'",
    ),
    "nothing frozen": Breakage(
        "factors(spec, dict", "factors(type(spec)(**{**vars(spec), \"frozen\": ()}), dict",
        "frozen_layers", "layers frozen, ['conv']: ",
    ),
    "a solver that forgets": Breakage(
        'self.state = {name: file[f"state/{name}"] for name in self.state}', "pass",
        "goes_on_to_the_bit[sgd-equal]", "save must keep all that the solver does",
    ),
    "dice of its own": Breakage(
        "default_rng(seed).random", "default_rng(self.steps).random",
        "depends_on_its_seed_alone", "draws must depend on `seed` alone",
    ),
    "another signature": Breakage("seed: int = 0", "seed: int = 1", "signatures", "must be train_step("),
    "metadata with the framework": Breakage(
        "from pathlib import Path", "from pathlib import Path\nimport numpy", "needs_no_framework",
        "must not import 'numpy': import it in broken", "__init__.py",
    ),
    "an error of another kind": Breakage(
        "(OSError, ValueError, KeyError, TypeError)", "MemoryError",
        "no_network_is_named", "must be a ModelError that names the file", "reader.py",
    ),
    "a layer that is not there": Breakage(
        '"scale", "type": "Scale"', '"factor", "type": "Scale"', "describes_the_network_that_is_loaded",
        ".reader.describe: weights are", "reader.py",
    ),
}  # fmt: skip


def copied(packages: Path, number: int, breakage: Breakage) -> str:
    """Make a backend of its own name out of the fourth one, edited."""
    name = f"broken{number}"
    shutil.copytree(FOURTH / "numpy_backend", packages / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(FOURTH / "numpy_backend-1.0.dist-info", packages / f"{name}-1.0.dist-info")
    edited = packages / name / breakage.file
    text = edited.read_text()
    assert text.count(breakage.old) == breakage.times, "the fourth backend has changed; change the edit as well"
    edited.write_text(text.replace(breakage.old, breakage.new))
    for file in [*(packages / name).iterdir(), *(packages / f"{name}-1.0.dist-info").iterdir()]:
        text = file.read_text().replace("numpy_backend", name).replace("numpy network", f"{name} network")
        text = text.replace('name="numpy"', f'name="{name}"').replace("numpy = ", f"{name} = ")
        file.write_text(text.replace("numpy-backend", name))
    return name


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """What fails of the chosen tests over each broken backend, and how: by breakage and by test."""
    folder = tmp_path_factory.mktemp("broken")
    packages, lines, chosen = folder / "packages", ["from multiseg.testing import BackendContract"], []
    for number, breakage in enumerate(BREAKAGES.values()):
        name = copied(packages, number, breakage)
        lines += [f"class Test{number:02}(BackendContract):", f"    backend = {name!r}"]
        chosen.append(f"(Test{number:02} and {breakage.test.partition('[')[0]})")
    (folder / "test_broken.py").write_text("\n".join(lines))
    done = run(folder, packages, "-k", " or ".join(chosen), "--junitxml=report.xml")
    assert done.returncode == 1, done.stdout
    found: dict[str, dict[str, str]] = {name: {} for name in BREAKAGES}
    for case in ElementTree.parse(folder / "report.xml").iter("testcase"):
        breakage_name = list(BREAKAGES)[int(case.attrib["classname"][-2:])]
        for failure in case.iter("failure"):
            found[breakage_name][case.attrib["name"]] = failure.text or ""
    return found


@pytest.mark.parametrize("name", BREAKAGES)
def test_a_broken_backend_is_caught_and_told(name: str, failures: dict[str, dict[str, str]]) -> None:
    breakage = BREAKAGES[name]
    told = {test: text for test, text in failures[name].items() if breakage.test in test}
    assert told, failures[name]
    # of the traceback, only what the test itself says
    said = [line for text in told.values() for line in text.splitlines() if line.startswith("E  ")]
    assert any(breakage.words in line for line in said), said
