"""Random crops in training and central ones in validation: of a job and of a prototxt, in every backend, resumed and in parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import multiseg
from helpers import pycaffe
from multiseg import Job, Run
from multiseg.dataset.cropping import CentreCrop, centre_crop, steps
from multiseg.dataset.feed import epoch_order
from multiseg.dataset.readers import Readers
from multiseg.errors import DatasetError, ModelError, MultisegError, RunError, SettingsError
from multiseg.parity import check_parity
from multiseg.report.class_scan import class_scan
from multiseg.report.facts import gather
from multiseg.training.plan import Plan
from multiseg.training.preparation import layout_of
from multiseg.training.ranks import Ranks
from multiseg.training.steps import Share

NET = """
layer {{ name: "data" type: "Data" top: "data" {train} include {{ phase: TRAIN }} }}
layer {{ name: "label" type: "Data" top: "label" include {{ phase: TRAIN }} }}
layer {{ name: "data" type: "Data" top: "data" {val} include {{ phase: TEST stage: "val" }} }}
layer {{ name: "label" type: "Data" top: "label" include {{ phase: TEST stage: "val" }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param {{ num_output: 3 kernel_size: 3 pad: 1 weight_filler {{ type: "gaussian" std: 0.01 }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "conv" bottom: "label" top: "loss" exclude {{ stage: "deploy" }}
        loss_param {{ ignore_label: 255 }} }}
"""
SIZES = [(16, 12), (12, 16), (20, 20), (9, 14)]
AUGMENT = {"flip": "both", "scale": [0.5, 2], "rotation": 20, "brightness": 0.2, "noise": 3}


def network(folder: Path, train: str = "", val: str = "") -> Path:
    fields = {key: f"transform_param {{ {value} }}" if value else "" for key, value in (("train", train), ("val", val))}
    (folder / "net.prototxt").write_text(NET.format(**fields))
    return folder / "net.prototxt"


def scenes(folder: Path, sizes: list[tuple[int, int]], **more: Any) -> multiseg.Dataset:
    """Create a dataset of colour images with three classes and some ignored pixels."""
    draw = np.random.default_rng(3)
    for name in ("input", "target"):
        (folder / name).mkdir()
    for number in range(12):
        mask = draw.integers(0, 3, sizes[number % len(sizes)], dtype=np.uint8)
        image = 60 + 60 * mask[..., None] + draw.normal(0, 20, (*mask.shape, 3))
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / "input" / f"{number:02}.png")
        mask[draw.random(mask.shape) < 0.1] = 255
        Image.fromarray(mask).save(folder / "target" / f"{number:02}.png")
    return multiseg.Dataset.create(
        folder / "db", input=folder / "input", target=folder / "target", val_percent=34, seed=1, labels="classes",
        classes=["background", "round", "square"], feature_encoding="none", **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> multiseg.Dataset:
    return scenes(tmp_path_factory.mktemp("mixed"), SIZES, mixed_sizes=True)


@pytest.fixture(scope="module")
def equal_sizes(tmp_path_factory: pytest.TempPathFactory) -> multiseg.Dataset:
    return scenes(tmp_path_factory.mktemp("equal"), [(15, 20)])


def job(dataset: multiseg.Dataset, backend: str, model: Path, **more: Any) -> Job:
    settings: dict[str, Any] = {
        "dataset": dataset, "backend": backend, "model": model, "epochs": 2, "batch_size": 4, "learning_rate": 1e-5,
        "seed": 1, "threads": 1, "mean": [100, 110, 120],
    }  # fmt: skip
    return Job(**settings | more)


def test_mixed_sizes_train_in_batches_of_crops_and_resume_to_the_bit(
    backend: str, mixed: multiseg.Dataset, tmp_path: Path
) -> None:
    settings = {"crop": "12x16", "augment": AUGMENT, "batch_size": 3}
    with job(mixed, backend, network(tmp_path), **settings).train(tmp_path / "run", progress=False) as run:
        assert (run.settings["batch_size"], run.settings["val_batch_size"]) == (3, 1)
        assert (run.settings["crop"], run.settings["val_crop"]) == ([12, 16], None)
        assert run.history[-1]["iteration"] == 6  # 8 images in batches of 3, 3 and 2
        whole = run.worker().call("get_weights")
        path = next(iter(sorted((mixed.path.parent / "input").iterdir())))
        assert run.test_one(path).array.shape == (3, *np.asarray(Image.open(path)).shape[:2])
        assert run.test_db(mixed.path / "val_db/features")["val_loss"] == pytest.approx(run.history[-1]["val_loss"])

    class Enough(Exception):
        pass

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["iteration"] == 5:
            raise Enough

    again = job(mixed, backend, network(tmp_path), **settings)
    (tmp_path / "again").mkdir()
    with pytest.raises(Enough):
        again.train(tmp_path / "again", progress=stop)
    for other in (12, "16x12"):
        with pytest.raises(RunError, match=r"was trained with crop=\[12, 16\], not"):
            job(mixed, backend, network(tmp_path), **settings | {"crop": other}).train(tmp_path / "again", resume=True)
    with again.train(tmp_path / "again", resume=True, progress=False) as resumed:
        for name, value in resumed.worker().call("get_weights").items():
            assert np.array_equal(value, whole[name]), name


def test_a_prototxts_crops_and_mirroring_are_those_of_caffe(
    backend: str, equal_sizes: multiseg.Dataset, tmp_path: Path
) -> None:
    """The loss of Caffe's own data layers over the validation images, in phase TEST, is that of the validation."""
    transform = "crop_size: 9 scale: 0.01 mean_value: 100 mean_value: 110 mean_value: 120"
    model = network(tmp_path, f"{transform} mirror: true", transform)
    count = len(equal_sizes.val)
    with job(equal_sizes, backend, model, val_batch_size=count).train(tmp_path / "run", progress=False) as run:
        assert (run.settings["crop"], run.settings["val_crop"]) == ([9, 9], [9, 9])
        assert run.settings["augment"] == {"flip": "horizontal"}
        assert run.input_shape == (3, 9, 9) and run.image_shape == (3, 15, 20)
        weights = run.worker().call("get_weights")
        kernel = weights["conv.weight"] if backend == "caffe" else weights["conv.weight"][:, ::-1]  # BGR
        np.savez(tmp_path / "weights.npz", kernel=kernel, bias=weights["conv.bias"])
        folder = equal_sizes.path / "val_db"
        source = f'batch_size: {count} backend: LMDB source: "{folder}'
        text = (
            model.read_text()
            .replace('phase: TEST stage: "val"', "phase: TEST")
            .replace('exclude { stage: "deploy" }', "")
        )
        text = text.replace(
            f'type: "Data" top: "data" transform_param {{ {transform} }}',
            f'type: "Data" top: "data" data_param {{ {source}/features" }} transform_param {{ {transform} }}',
        ).replace(
            'type: "Data" top: "label" include { phase: TEST',
            f'type: "Data" top: "label" data_param {{ {source}/labels" }} transform_param {{ crop_size: 9 }} '
            "include { phase: TEST",
        )
        (tmp_path / "caffe.prototxt").write_text(text)
        pycaffe.python(
            "import sys, json, numpy, caffe\n"
            "net = caffe.Net(sys.argv[1] + '/caffe.prototxt', caffe.TEST)\n"
            "weights = numpy.load(sys.argv[1] + '/weights.npz')\n"
            "net.params['conv'][0].data[...] = weights['kernel']\n"
            "net.params['conv'][1].data[...] = weights['bias']\n"
            "net.forward()\n"
            "numpy.savez(sys.argv[1] + '/caffe.npz', **{name: blob.data for name, blob in net.blobs.items()})\n",
            str(tmp_path),
        )
        caffe = np.load(tmp_path / "caffe.npz")
        assert caffe["data"].shape == (count, 3, 9, 9)
        tested = run.test_db(folder / "features")
        assert run.snapshot is not None
        validated = next(
            row for row in run.history if row["epoch"] == run.snapshot.epoch
        )  # the weights that are tested
        for row in (validated, tested):
            assert row["val_loss"] == pytest.approx(float(caffe["loss"]), rel=1e-4)
        outputs: dict[int, Any] = {}
        run.test_db(folder / "features", each=lambda index, output: outputs.update({index: output}))
        for index in range(count):
            assert outputs[index].array == pytest.approx(caffe["conv"][index], rel=1e-3, abs=1e-3)
            image = np.moveaxis(equal_sizes.val[index][0], 0, 2)
            Image.fromarray(image).save(tmp_path / "image.png")
            assert run.test_one(tmp_path / "image.png").array == pytest.approx(outputs[index].array, rel=1e-4, abs=1e-4)
            pixels = caffe["data"][index][::-1] / 0.01 + np.reshape([120, 110, 100], (3, 1, 1))  # RGB
            assert np.array_equal(outputs[index].input, pixels.round())


def test_every_rank_gets_its_share_of_the_same_crops(mixed: multiseg.Dataset, tmp_path: Path) -> None:
    """The batches of one process are those of two together: the numbers depend on seed, epoch and position alone."""
    from multiseg.settings.loaded import LoadedSettings

    settings = job(mixed, "torch", network(tmp_path), crop=[12, 16], augment=AUGMENT, batch_size=4).resolve(mixed)
    described = {
        "batch_size": 4, "val_batch_size": 1, "device": "cpu", "loss": "its own", "labels": "classes", "ignored": [255],
    }  # fmt: skip
    loaded = LoadedSettings.of(settings, described)
    plan, layout = Plan(len(mixed.train), 4, 2, 1, 1), layout_of(settings, mixed)
    steps = {
        (rank, size): list(Share(loaded, plan, mixed, layout, Ranks(rank, size), Readers(0)).steps(0, 4))
        for rank, size in ((0, 1), (0, 2), (1, 2))
    }
    for number, step in enumerate(steps[0, 1]):
        for key, shape in (("features", (4, 3, 12, 16)), ("labels", (4, 1, 12, 16))):
            assert step[key].shape == shape
            for rank in (0, 1):
                assert np.array_equal(step[key][rank::2], steps[rank, 2][number][key])
        # seen from the middle of the training, e.g. after a resume
        (resumed,) = Share(loaded, plan, mixed, layout, Ranks(), Readers(0)).steps(number, number + 1)
        assert np.array_equal(resumed["features"], step["features"])
    first = steps[0, 1][0]["labels"]
    assert not (first == 255).all((1, 2, 3)).any()  # each crop has labels that count
    assert not np.array_equal(first, steps[0, 1][2]["labels"])  # another epoch, other crops


def test_inputs_outside_the_image_become_0_and_labels_do_not_count(
    equal_sizes: multiseg.Dataset, tmp_path: Path
) -> None:
    """Where a crop exceeds the image, the input is the mean, which is 0 once it is subtracted."""
    from multiseg.settings.loaded import LoadedSettings

    settings = job(equal_sizes, "torch", network(tmp_path), crop=24, batch_size=8).resolve(equal_sizes)
    described = {
        "batch_size": 8,
        "val_batch_size": 1,
        "device": "cpu",
        "loss": "its own",
        "labels": "classes",
        "ignored": [255],
    }
    loaded = LoadedSettings.of(settings, described)
    share = Share(loaded, Plan(8, 8, 1, 1, 1), equal_sizes, layout_of(settings, equal_sizes), Ranks(), Readers(0))
    (step,) = share.steps(0, 1)
    outside = np.ones((24, 24), bool)
    outside[:15, :20] = False
    assert (step["features"][:, :, outside] == 0).all() and (step["labels"][:, :, outside] == 255).all()
    features, labels = equal_sizes.train.read(epoch_order(8, 1, 0))
    assert np.array_equal(step["labels"][:, :, :15, :20], labels)
    mean = np.reshape([120, 110, 100], (3, 1, 1))
    assert step["features"][:, :, :15, :20] == pytest.approx(features.astype(np.float64) - mean)


def test_parity_compares_on_central_crops(backend: str, equal_sizes: multiseg.Dataset, tmp_path: Path) -> None:
    parity = check_parity(equal_sizes, [backend], network(tmp_path, "crop_size: 9"), steps=1, batch_size=4)
    assert parity.ok


FIXED = """
layer { name: "data" type: "Data" top: "data" include { phase: TRAIN } }
layer { name: "label" type: "Data" top: "label" include { phase: TRAIN } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
        inner_product_param { num_output: 243 weight_filler { type: "gaussian" std: 0.001 } } }
layer { name: "out" type: "Reshape" bottom: "ip" top: "out" reshape_param { shape { dim: 0 dim: 3 dim: 9 dim: 9 } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "out" bottom: "label" top: "loss" exclude { stage: "deploy" } }
"""


def test_a_network_of_one_size_is_validated_on_central_crops(
    backend: str, equal_sizes: multiseg.Dataset, tmp_path: Path
) -> None:
    (tmp_path / "fixed.prototxt").write_text(FIXED)
    settings = {"crop": 9, "batch_size": 4, "val_batch_size": 2, "learning_rate": 1e-7, "epochs": 1}
    with pytest.raises(
        ModelError, match=r"cannot be validated on whole images of 15x20 pixels .*; add val_crop='centre'"
    ):
        job(equal_sizes, backend, tmp_path / "fixed.prototxt", **settings).train(tmp_path / "run", progress=False)
    assert not (tmp_path / "run/job.json").exists()
    with job(equal_sizes, backend, tmp_path / "fixed.prototxt", **settings, val_crop="centre").train(
        tmp_path / "centre", progress=False
    ) as run:
        tested = run.test_db(equal_sizes.path / "val_db/features")
        assert tested["val_loss"] == pytest.approx(run.history[-1]["val_loss"])
    with Run.open(tmp_path / "centre") as run:
        assert run.val_crop == (9, 9) and run.topology.input_shape == (3, 9, 9)


def test_images_that_are_smaller_than_the_central_crop_are_named(
    backend: str, mixed: multiseg.Dataset, tmp_path: Path
) -> None:
    with pytest.raises(
        DatasetError, match=r"image \d+ is \d+x\d+ pixels \(height x width\), smaller than the central crop of 14x14"
    ):
        job(mixed, backend, network(tmp_path), crop=14, val_crop="centre", val_batch_size=2).train(
            tmp_path / "run", progress=False
        )


@pytest.mark.parametrize(
    ("more", "train", "val", "words"),
    [
        (
            {"crop": "9x"},
            "",
            "",
            r"crop='9x': must be a number of pixels, or height and width, e.g. 128x160, or 'none'",
        ),
        ({"crop": 0}, "", "", "crop=0: must be a number of pixels"),
        ({"val_crop": "middle"}, "", "", "val_crop='middle': choose one of centre, none"),
        ({"val_crop": "centre"}, "", "", "val_crop='centre': requires the size of a crop; specify crop"),
        ({"crop": 16, "val_crop": "centre"}, "", "", "the crop of 16x16 is larger than the validation images"),
        (
            {},
            "crop_size: 16",
            "",
            r"crop_size 16 of the network file is larger than the images \(15x20, .*crop='16x16'",
        ),
        ({}, "", "crop_size: 18", "the crop of 18x18 is larger than the validation images"),
        ({"augment": {"quarter_turns": True}}, "", "", "quarter_turns: needs square images"),
    ],
)
def test_bad_crops_are_refused(
    equal_sizes: multiseg.Dataset, tmp_path: Path, more: Any, train: str, val: str, words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        job(equal_sizes, "torch", network(tmp_path, train, val), **more).train(tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_other_crops_of_labels_than_of_images_are_refused(equal_sizes: multiseg.Dataset, tmp_path: Path) -> None:
    model = network(tmp_path, "crop_size: 9")
    text = model.read_text().replace('top: "label" include', 'top: "label" transform_param { crop_size: 8 } include', 1)
    model.write_text(text)
    with pytest.raises(
        MultisegError, match=r"crop_size: 8 }, but the layer of the images has crop_size: 9; images and labels"
    ):
        job(equal_sizes, "torch", model).train(tmp_path / "run", progress=False)


def test_a_job_overrides_the_files_crop_and_mirroring(equal_sizes: multiseg.Dataset, tmp_path: Path) -> None:
    model = network(tmp_path, "crop_size: 9 mirror: true", "crop_size: 9")
    for more, expected in (
        ({"crop": "none", "augment": {"flip": "none"}}, (None, None, {})),
        ({"crop": "10x8"}, ((10, 8), (10, 8), {"flip": "horizontal"})),
        ({"crop": 10, "val_crop": "none", "augment": {"flip": "both"}}, ((10, 10), None, {"flip": "both"})),
    ):
        settings = job(equal_sizes, "torch", model, **more).resolve(equal_sizes)
        assert (settings.crop, settings.val_crop, settings.augmentation.to_json()) == expected


def test_parts_of_a_batch_are_not_averaged_where_crops_count_differently(
    backend: str, mixed: multiseg.Dataset, tmp_path: Path
) -> None:
    """A mean over the labels that count is divided by their number, which differs between crops."""
    training = job(mixed, backend, network(tmp_path), crop=12, batch_size=2, accumulate=2)
    with pytest.raises(SettingsError, match=r"accumulate=2: .* \(a crop of labels 255: 0, of labels 0: "):
        training.train(tmp_path / "run", progress=False)
    assert not (tmp_path / "run/job.json").exists()


def test_parts_of_a_batch_are_averaged_where_the_loss_is_a_mean_over_images(
    mixed: multiseg.Dataset, tmp_path: Path
) -> None:
    model = network(tmp_path)
    model.write_text(model.read_text().replace("ignore_label: 255", "ignore_label: 255 normalization: BATCH_SIZE"))
    training = job(mixed, "caffe", model, crop=12, batch_size=2, accumulate=2, epochs=1)
    with training.train(tmp_path / "run", progress=False) as run:
        assert run.history[-1]["iteration"] == 2


def test_the_comparison_page_predicts_what_validation_does(
    backend: str, equal_sizes: multiseg.Dataset, tmp_path: Path
) -> None:
    settings = {"crop": 9, "val_crop": "centre"}
    with job(equal_sizes, backend, network(tmp_path), **settings).train(tmp_path / "run", progress=False) as run:
        scan = class_scan(gather([run]), 4)
        tested = run.test_db(equal_sizes.path / "val_db/features")
        assert np.array_equal(scan.confusions[0].counts, tested["confusion"])
        assert {case.target.shape for case in scan.cases} == {(9, 9)}
        assert {case.feature.shape for case in scan.cases} == {(3, 9, 9)}


def test_a_single_image_is_cropped_where_the_database_is() -> None:
    """Labels of half the size begin at every second pixel: 16 pixels leave 5 before a crop of 6, of which it skips 4."""
    image = np.arange(3 * 16 * 16, dtype=np.float32).reshape(3, 16, 16)
    label = np.zeros((1, 8, 8), np.uint8)
    of_pair, _ = CentreCrop((6, 6), "split").pair(image, label)
    alone = centre_crop(image, (6, 6), steps((16, 16), (8, 8)))
    assert np.array_equal(alone, image[:, 4:10, 4:10]) and np.array_equal(of_pair, alone)
