"""Golden files: what is in them, what they find, and what is refused. A backend in NumPy computes; no framework is needed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

import multiseg
from multiseg.errors import ModelError, MultisegError, SettingsError
from multiseg.parity.golden import file as golden_file
from multiseg.parity.result import Parity
from multiseg.reference import linear, network, solvers
from multiseg.reference.bounded import Bounded, gamma

STEPS = 2
RATE = 1e-5


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> multiseg.Dataset:
    """Six pairs of random grey images of 6x7 pixels for training; with batches of 4, an epoch is one batch."""
    folder, draw = tmp_path_factory.mktemp("data"), np.random.default_rng(5)
    for kind in ("input", "target"):
        (folder / kind).mkdir()
        for index in range(8):
            Image.fromarray(draw.integers(0, 256, (6, 7), np.uint8)).save(folder / kind / f"{index}.png")
    return multiseg.Dataset.create(
        folder / "dataset", input=folder / "input", target=folder / "target", val_percent=25, seed=1
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "net.json"
    path.write_text('{"numpy network": {"dropout": 0}}')
    return path


@pytest.fixture(scope="module")
def kept(data: multiseg.Dataset, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        install(patch)
        path = tmp_path_factory.mktemp("golden") / "golden.safetensors"
        found = keep(data, model, path)
    assert found.ok and any(str(path) in note for note in found.notes)
    return path


def install(patch: pytest.MonkeyPatch) -> None:
    folder = Path(__file__).parents[2] / "fourth_backend"
    patch.syspath_prepend(folder)
    patch.setenv("PYTHONPATH", str(folder))


def keep(data: multiseg.Dataset, model: Path, path: Path, **options: Any) -> Parity:
    return multiseg.check_parity(
        data, ["numpy"], model, steps=STEPS, batch_size=4, learning_rate=RATE, seed=3, save=path, **options
    )


def check(kept: Path, model: Path, **options: Any) -> Parity:
    return multiseg.check_parity(against=kept, models=model, **options)


# --- what is in a file


def test_a_file_has_what_float64_computes_by_hand(kept: Path, data: multiseg.Dataset) -> None:
    """Convolution, factor, loss, gradients and two steps of SGD with momentum, written out for this network."""
    arrays = load_file(kept)
    weights = {
        name: arrays[f"weights/{name}"].astype(np.float64)
        for name in ("conv.weight", "conv.bias", "scale.weight", "scale.bias")
    }
    assert all(np.unique(value).size == value.size for value in weights.values())
    assert data.mean_pixel is not None
    mean = np.float32(data.mean_pixel[0])
    speeds: dict[str, Any] = dict.fromkeys(weights, 0.0)
    for step, indices in enumerate(arrays["batches"]):
        images, labels = arrays["features"][indices].astype(np.float64), arrays["labels"][indices].astype(np.float64)
        images = (images.astype(np.float32) - mean).astype(np.float64)
        padded = np.pad(images[:, 0], ((0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
        mixed = np.einsum("nyxij,ij->nyx", windows, weights["conv.weight"][0, 0]) + weights["conv.bias"]
        output = mixed * weights["scale.weight"] + weights["scale.bias"]
        difference = output - labels[:, 0]
        outer = 2 * difference / difference.size  # of the loss: the mean of the squares
        inner = outer * weights["scale.weight"]
        slopes = {
            "conv.weight": np.einsum("nyxij,nyx->ij", windows, inner)[None, None], "conv.bias": inner.sum(keepdims=True)[0, 0],
            "scale.weight": (outer * mixed).sum(keepdims=True)[0, 0], "scale.bias": outer.sum(keepdims=True)[0, 0],
        }  # fmt: skip
        if not step:
            np.testing.assert_allclose(arrays["layers/conv"][:, 0], mixed, rtol=1e-12, atol=1e-10)
            np.testing.assert_allclose(arrays["layers/scale"][:, 0], output, rtol=1e-12, atol=1e-10)
            assert float(arrays["loss/0"]) == pytest.approx((difference**2).mean(), rel=1e-12)
            for name, slope in slopes.items():
                np.testing.assert_allclose(arrays[f"gradients/{name}"], slope, rtol=1e-10)
        rate = np.float32(RATE * (1 - 0.5 * step / STEPS))
        for name, slope in slopes.items():
            speeds[name] = 0.9 * speeds[name] + slope
            weights[name] = weights[name] - float(rate) * speeds[name]
    for name, value in weights.items():
        np.testing.assert_allclose(arrays[f"after/{name}"], value, rtol=1e-10)
        assert not np.array_equal(arrays[f"after/{name}"], arrays[f"weights/{name}"])
    assert len(arrays["features"]) <= len(data.train) < arrays["batches"].size  # an image of two batches is there once


def test_the_same_check_writes_the_same_bytes(
    kept: Path, data: multiseg.Dataset, model: Path, fourth: str, tmp_path: Path
) -> None:
    keep(data, model, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == kept.read_bytes()
    assert list(tmp_path.iterdir()) == [tmp_path / "again.safetensors"]


def test_bounds_are_rounded_up() -> None:
    draw = np.random.default_rng(1)
    bounds = np.concatenate([draw.random(1000) * 10.0 ** draw.integers(-50, 50, 1000), [0.0, np.inf]])
    single = golden_file.rounded_up(bounds)
    assert single.dtype == np.float32 and np.isfinite(single).all()
    largest = float(np.finfo(np.float32).max)
    assert (single.astype(np.float64) >= np.minimum(bounds, largest)).all()
    ordinary = (bounds > 1e-30) & (bounds < largest)
    assert (single[ordinary] <= bounds[ordinary] * (1 + 2**-23)).all()


# --- what a check finds


def test_a_network_is_checked_without_the_dataset(kept: Path, model: Path, fourth: str) -> None:
    found = check(kept, model)
    assert found.ok and found.complete and found.reference_changed is None, str(found)
    assert found.sides == ["NumPy (net.json)"]
    assert {row.stage for row in found.rows} == {"network", "forward", "stored", "output", "loss", "gradient", "step"}
    assert {row.name for row in found.rows if row.stage == "stored"} == {
        "conv", "loss", *(f"gradient of {name}" for name in ("conv.weight", "conv.bias", "scale.weight", "scale.bias"))
    }  # fmt: skip
    assert len(found.recomputed) == 3 + 1 + 4 + 4  # layers, loss, gradients, weights
    assert any("after 2 steps" in note for note in found.notes)
    json.dumps(found.to_dict(), allow_nan=False)


def test_another_network_is_named(kept: Path, tmp_path: Path, fourth: str) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"numpy network": {"dropout": 0, "channels": 2}}')
    found = check(kept, other)
    assert found.first_divergence is not None and not found.complete
    assert (
        found.first_divergence.startswith("NumPy (other.json): conv: ") and "2 in other.json" in found.first_divergence
    )


def test_weights_of_a_file_must_be_those_of_the_golden_file(
    kept: Path, model: Path, fourth: str, tmp_path: Path
) -> None:
    weights = {name.partition("/")[2]: value for name, value in load_file(kept).items() if name.startswith("weights/")}
    np.savez(tmp_path / "right.npz", **weights)
    found = check(kept, model, weights=tmp_path / "right.npz")
    assert found.ok and len([row for row in found.rows if row.stage == "weights"]) == 4
    weights["conv.weight"] = np.ascontiguousarray(weights["conv.weight"].swapaxes(2, 3))
    np.savez(tmp_path / "wrong.npz", **weights)
    found = check(kept, model, weights=tmp_path / "wrong.npz")
    assert found.first_divergence is not None
    assert "the weights 'conv.weight' differ" in found.first_divergence
    assert "transposed (height and width exchanged)" in found.first_divergence


def scaled(rule: Callable[..., Any], factor: float) -> Callable[..., Any]:
    """Return a rule of the reference whose outputs are multiplied."""

    def changed(call: Any) -> Any:
        outputs, pull = rule(call)
        return [Bounded(each.value * factor, each.bound, each.terms) for each in outputs], pull

    return changed


def test_a_change_of_the_reference_is_a_verdict_of_its_own(
    kept: Path, model: Path, fourth: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The framework is compared with the file's values alone then, and agrees."""
    monkeypatch.setitem(network.RULES, "Scale", scaled(linear.scale, 1 + 2**-40))
    found = check(kept, model)
    assert not found.ok and found.first_divergence == found.reference_changed
    assert found.reference_changed is not None and found.reference_changed.startswith("the reference changed: ")
    assert "golden.safetensors has; the first difference is in layer 'scale': by up to" in found.reference_changed
    assert {row.stage for row in found.rows} == {"network", "stored", "output"} and all(row.ok for row in found.rows)
    assert "because the reference changed" in found.left_out[0] and not found.complete
    assert found.differences == [found.reference_changed] and found.headline == found.reference_changed


def test_a_change_of_a_solver_is_noticed(kept: Path, model: Path, fourth: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(solvers.UPDATES, "sgd", solvers.UPDATES["nesterov"])
    found = check(kept, model)
    assert (
        found.reference_changed is not None
        and "in the weights 'conv.weight' after 2 steps: by" in found.reference_changed
    )
    assert next(row.name for row in found.recomputed if not row.ok).startswith("the weights")


def test_other_tolerances_are_a_note_and_the_files_are_used_end_to_end(
    kept: Path, model: Path, fourth: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "gamma", lambda terms: 100 * gamma(terms))
    found = check(kept, model)
    assert found.ok
    assert any("derives other tolerances than those in the file" in note for note in found.notes)
    monkeypatch.undo()


def test_a_reference_that_cannot_be_computed_is_not_kept(
    data: multiseg.Dataset, model: Path, fourth: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(network.RULES, "Scale")
    with pytest.raises(
        ModelError, match=r"is not written, because the reference of net\.json is incomplete: scale is a Scale"
    ):
        keep(data, model, tmp_path / "none.safetensors")
    assert not list(tmp_path.iterdir())


# --- what is refused


def test_settings_that_the_file_decides_may_be_specified_if_they_are_the_same(
    kept: Path, model: Path, fourth: str
) -> None:
    same = check(
        kept, model, steps=STEPS, solver="sgd", solver_options={"momentum": 0.9}, seed=3, loss="l2", batch_size=4
    )
    assert same.ok
    with pytest.raises(SettingsError) as caught:
        check(kept, model, steps=3, solver="adam", seed=3, loss="l1", subtract_mean="none")
    message = str(caught.value)
    for words in ("steps=3: the file has 2", "solver='adam': the file has 'sgd'", "loss='l1': the file has 'l2'",
                  "subtract_mean='none': the file has 'pixel'"):  # fmt: skip
        assert words in message
    assert "seed" not in message


def test_what_does_not_fit_together_is_one_error(
    kept: Path, model: Path, data: multiseg.Dataset, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="dataset and against: specify one of them"):
        multiseg.check_parity(data, against=kept)
    with pytest.raises(SettingsError, match="save and against: specify one of them"):
        multiseg.check_parity(against=kept, save=tmp_path / "other.safetensors")
    with pytest.raises(SettingsError, match="dataset: is missing"):
        multiseg.check_parity(models=model)
    with pytest.raises(SettingsError, match=r"a golden file has a name ending in \.safetensors"):
        multiseg.check_parity(data, save=tmp_path / "golden.npz")
    with pytest.raises(SettingsError, match="there is no folder"):
        multiseg.check_parity(data, save=tmp_path / "none" / "golden.safetensors")
    with pytest.raises(SettingsError, match="weights: specify the model that they belong to"):
        multiseg.check_parity(against=kept, weights=tmp_path / "w.npz")
    with pytest.raises(ModelError, match="is a golden file of parity, not weights"):
        multiseg.convert(kept, "safetensors", tmp_path / "weights.safetensors")


def test_every_flipped_bit_and_every_missing_byte_is_refused(kept: Path, tmp_path: Path) -> None:
    data, path = kept.read_bytes(), tmp_path / "damaged.safetensors"
    header = 8 + int.from_bytes(data[:8], "little")
    draw = np.random.default_rng(2)
    places = {*range(0, header, 7), *draw.integers(header, len(data), 300).tolist()}
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 1 << int(draw.integers(8))
        path.write_bytes(changed)
        with pytest.raises(ModelError, match=r"damaged\.safetensors: is "):
            golden_file.read(path)
    for size in (0, 4, 9, header - 1, header, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(ModelError, match="damaged"):
            golden_file.read(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(ModelError, match="is damaged or truncated"):
        golden_file.read(path)
    path.write_bytes(data)
    assert golden_file.read(path).steps == STEPS


def test_a_file_of_another_kind_or_version_is_refused(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"conv.weight": np.ones(3, np.float32)}, path)
    with pytest.raises(ModelError, match="is not a golden file of parity"):
        golden_file.read(path)
    with pytest.raises(ModelError, match=r"none\.safetensors: cannot be read: No such file"):
        golden_file.read(tmp_path / "none.safetensors")
    content, arrays = golden_file.unpacked(kept, kept.read_bytes())
    monkeypatch.setattr(golden_file, "VERSION", 2)
    path.write_bytes(golden_file.packed(content, arrays))
    monkeypatch.undo()
    with pytest.raises(ModelError, match=r"is a golden file of version '2', this multiseg .* reads version 1"):
        golden_file.read(path)


def _set(*keys: Any, value: Any) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


HOSTILE: dict[str, tuple[Callable[[Any], None], str]] = {
    "a number of steps": (_set("settings", "steps", value=10**9), "its array 'batches' is int64"),
    "a size": (_set("settings", "batch_size", value=10**9), "its array 'batches' is int64"),
    "an image": (_set("network", "input_shape", value=[1, 10**6, 10**6]), "layer 'drop'"),
    "a window": (_set("network", "layers", 1, "parameters", "kernel_shape", value="3"), "is damaged"),
    "filters": (_set("network", "layers", 1, "parameters", "num_output", value=10**12), "layer 'conv'"),
    "padding": (_set("network", "layers", 1, "parameters", "pads", value=[10**7] * 4), "layer 'conv'"),
    "a type": (_set("network", "layers", 2, "type", value=["Scale"]), "network.layers is a list"),
    "an output": (_set("network", "outputs", value=["nowhere"]), "its network has no output"),
    "a solver": (_set("settings", "solver", value={"name": "sgd", "momentum": 2}), "settings.solver"),
    "a loss": (_set("settings", "loss", value="none"), "settings.loss"),
    "a rate": (_set("settings", "learning_rate", value=math.nan), "settings.learning_rate"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_file_that_states_what_it_has_not_is_refused(case: str, kept: Path, tmp_path: Path) -> None:
    """Written by hand, with the right digest."""
    change, words = HOSTILE[case]
    content, arrays = golden_file.unpacked(kept, kept.read_bytes())
    change(content)
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(golden_file.packed(content, arrays))
    with pytest.raises(MultisegError) as caught:
        golden_file.read(path)
    assert "hostile.safetensors" in str(caught.value) and words in str(caught.value)
