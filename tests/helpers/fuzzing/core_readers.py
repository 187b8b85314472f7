"""Readers that need no framework: network files as text, weights, datasets, images, tables, messages."""

from __future__ import annotations

import json
import pickle
import socket
import tempfile
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from multiseg_caffe.blobs import blob_of
from multiseg_caffe.proto import SolverState
from PIL import Image, PngImagePlugin

import multiseg
from helpers import small_models
from helpers.fuzzing.reader import Reader
from helpers.t7_writer import Torch, t7, tensor
from multiseg.cluster.mirror import Mirror
from multiseg.dataset import Dataset
from multiseg.dataset.check import check_dataset
from multiseg.dataset.dataset import read_mean
from multiseg.dataset.label_files import stored_image
from multiseg.dataset.label_tables import read_colours, read_map, read_names
from multiseg.dataset.location import identity
from multiseg.dataset.records import datum_pixels, mean_blob, parse_datum, raw_datum, values_datum
from multiseg.dataset.sheet import write_sheet
from multiseg.dataset.voc import read_layout
from multiseg.exporting.files import exported_notes
from multiseg.files import hdf5
from multiseg.images import decode
from multiseg.jobs import read_jobs
from multiseg.model_files import weights_file
from multiseg.model_files.kinds import kind_of
from multiseg.model_files.reading import cropping_of_file, mean_of_file, read_weights
from multiseg.worker import choice, protocol

SHAPE = (1, 8, 8)
STATE = [(2, 1, 3, 3), (2,)]  # shapes of the parameters of the solver state
JOBS = """
runs = "runs"
parallel = 2
[defaults]
dataset = "dataset"
epochs = 6
augment = {flip = "horizontal", scale = [0.5, 2]}
[[job]]
name = "a"
backend = ["caffe", "torch"]
seed = [1, 2]
lr_policy = {name = "step", step_size = 33}
freeze = ["conv1*"]
[[job]]
backend = "tensorflow"
learning_rate = 0.1
class_weights = [[1.0, 2.0], "balanced"]
"""


def samples(folder: Path) -> None:
    """Write an undamaged file for each reader."""
    (folder / "dataset").parent.mkdir(exist_ok=True)
    _images(folder / "images")
    for name, options in {
        "dataset": {},
        "classes": {"labels": "classes", "classes": ["a", "b"], "colours": "palette"},
    }.items():
        masks = folder / "masks" if name == "classes" else folder / "images" / "input"
        if name == "classes":
            _masks(masks, folder / "images" / "input")
        Dataset.create(
            folder / name, input=folder / "images" / "input", target=masks, val_percent=40, seed=1, **options
        )
    (folder / "plain" / "train_db").mkdir(parents=True)
    (folder / "plain" / "train_db" / "mean.binaryproto").write_bytes(mean_blob(np.ones((3, 4, 5))))
    (folder / "digits").mkdir()
    (folder / "digits" / "train_db").symlink_to(folder / "dataset" / "train_db")
    userdata = {"class_labels": ["sky", "road"], "color_palette": [0, 0, 0, 255, 0, 0]}
    status = {"extension_id": "image-segmentation", "extension_userdata": userdata}
    (folder / "digits" / "status.pickle").write_bytes(pickle.dumps(status, 2))
    (folder / "raw.datum").write_bytes(raw_datum(np.zeros((3, 4, 5), np.uint8)))
    (folder / "floats.datum").write_bytes(values_datum(np.ones((1, 4, 5), np.float32)))
    _networks(folder)
    (folder / "jobs.toml").write_text(JOBS)
    (folder / "classes.txt").write_text("sky\nroad\ntree\n")
    (folder / "colours.txt").write_text("0 0 0\n255,0,0\n0 255 0\n")
    (folder / "map.txt").write_text("7 0\n128 64 128 1\n")
    (folder / "map.json").write_text('{"7": 0, "128 64 128": 1}')
    (folder / "voc" / "ImageSets" / "Segmentation").mkdir(parents=True)
    (folder / "voc" / "JPEGImages").symlink_to(folder / "images" / "input")
    (folder / "voc" / "SegmentationClass").symlink_to(folder / "masks")
    for name, content in {"train.txt": "0\n1\n", "val.txt": "2\n"}.items():
        (folder / "voc" / "ImageSets" / "Segmentation" / name).write_text(content)
    _messages(folder)


def _images(folder: Path) -> None:
    draw = np.random.default_rng(1)
    (folder / "input").mkdir(parents=True)
    for index in range(5):
        Image.fromarray(draw.integers(0, 256, (8, 8), np.uint8)).save(folder / "input" / f"{index}.png")
    colour = Image.fromarray(draw.integers(0, 256, (6, 7, 3), np.uint8))
    grey = colour.convert("L")
    exif = Image.Exif()
    exif[274] = 6
    colour.save(folder / "a.jpg", exif=exif)
    colour.save(folder / "a.png", exif=exif)
    colour.save(folder / "a.webp", lossless=True)
    colour.save(folder / "a.bmp")
    colour.save(folder / "a.ppm")
    colour.convert("P").save(folder / "palette.png")
    colour.convert("RGBA").save(folder / "alpha.png", pnginfo=PngImagePlugin.PngInfo())
    Image.fromarray(draw.integers(0, 65536, (6, 7), np.uint16)).save(folder / "deep.png")
    grey.save(folder / "grey.png")
    for name, compression in {"a": None, "lzw": "tiff_lzw", "deflate": "tiff_adobe_deflate"}.items():
        colour.save(folder / f"{name}.tif", compression=compression)
    Image.fromarray(draw.integers(0, 65536, (6, 7), np.uint16)).save(folder / "deep.tif")
    (folder / "deep.pgm").write_bytes(
        b"P5\n# comment\n7 6\n4095\n" + draw.integers(0, 4096, (6, 7), np.uint16).byteswap().tobytes()
    )
    np.save(folder / "a.npy", draw.normal(size=(6, 7)).astype(np.float32))


def _masks(folder: Path, inputs: Path) -> None:
    folder.mkdir()
    for path in inputs.iterdir():
        mask = Image.fromarray((np.arange(64).reshape(8, 8) % 2).astype(np.uint8), "P")
        mask.putpalette([0, 0, 0, 255, 0, 0] + [0] * 762)
        mask.save(folder / path.name)


def _networks(folder: Path) -> None:
    (folder / "net.prototxt").write_text(small_models.CAFFE)
    unet = Path(multiseg.backend.__file__).parents[1] / "models" / "multiseg_models" / "unet.prototxt"
    (folder / "unet.prototxt").write_text(unet.read_text())
    (folder / "net.py").write_text("# -*- coding: utf-8 -*-\r\n" + small_models.TORCH)
    (folder / "net.lua").write_text("require 'nn'\nlocal net = nn.Sequential()\nnet:add(nn.ReLU())\nreturn net\n")
    weights = {"conv.weight": np.ones((2, 1, 3, 3), np.float32), "conv.bias": np.ones(2, np.float32),
               "norm.running_mean": np.ones(2, np.float32), "norm.running_var": np.ones(2, np.float32)}  # fmt: skip
    solver = {"name": "sgd", "step": 1}
    state = {"momentum/conv.weight": weights["conv.weight"]}
    weights_file.write(folder / "w.safetensors", weights_file.NeutralWeights(weights, "RGB", state, solver))
    multiseg.convert(folder / "w.safetensors", "caffemodel", folder / "w.caffemodel")
    with h5py.File(folder / "w.caffemodel.h5", "w") as file:
        for layer in ("conv", "up/conv"):
            for index, shape in enumerate(STATE):
                file[f"data/{layer}/{index}"] = np.ones(shape, np.float32)
    history = [blob_of(np.ones(shape, np.float32)) for shape in STATE]
    state = SolverState(iter=3, learned_net="network.caffemodel", history=history)
    (folder / "network.solverstate").write_bytes(state.SerializeToString())
    linear = Torch("nn.SpatialConvolution", nInputPlane=1, nOutputPlane=1, kW=1, kH=1, dW=1, dH=1, padW=0, padH=0,
                   weight=tensor(np.ones((1, 1, 1, 1), np.float32)), bias=tensor(np.ones(1, np.float32)))  # fmt: skip
    for name, ascii in {"net.t7": False, "ascii.t7": True}.items():
        (folder / name).write_bytes(t7({"model": Torch("nn.Sequential", modules=[linear, Torch("nn.ReLU")])}, ascii))
    (folder / "choice.json").write_text(
        choice.Choice(folder / "net.py", folder, "Small", "(1)", {"opt.depth": 1}, 2).to_json()
    )


def _sent(message: Any) -> bytes:
    """Return the bytes of a small message on its connection."""
    ours, theirs = socket.socketpair()
    with theirs, theirs.makefile("rb") as received:
        with Connection(ours.detach()) as connection:
            protocol.send(connection, message)
        return received.read()


def _messages(folder: Path) -> None:
    answer = {
        "number": 3,
        "value": {"loss": 0.5, "weights": {"a": np.ones((2, 3), np.float32)}, "list": [1, np.zeros(4, np.uint8)]},
    }
    content = _sent(answer)
    (folder / "answer.message").write_bytes(content)
    (folder / "answer.json").write_bytes(content[4 : 4 + int.from_bytes(content[:4], "big")])
    listing = {
        "job.json": [10, 1],
        "history.csv": [5, 2],
        "snapshots/epoch-0001/network.npz": [20, 3],
        "model/net.py": [3, 4],
    }
    (folder / "listing.json").write_text(json.dumps(listing))


def _received(path: Path, frame: bool = False) -> Any:
    """Receive the content of a file as a message of the worker protocol; as one frame of JSON with ``frame``."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
    ours.settimeout(5)
    data = path.read_bytes()
    data = len(data).to_bytes(4, "big") + data + bytes(28) + protocol.END if frame else data  # the two arrays
    with ours, Connection(theirs.detach()) as connection:
        try:
            ours.sendall(data)
        except OSError:
            return None
        ours.shutdown(socket.SHUT_WR)
        try:
            return protocol.receive_answer(connection, {3: "evaluate"})
        except (EOFError, OSError):
            return None


def _mirrored(path: Path) -> None:
    """Mirror a run folder from a listing in a file; nothing may be written outside the copy."""
    listing = json.loads(path.read_text(errors="surrogatepass"), parse_constant=str)
    with tempfile.TemporaryDirectory() as outside:
        folder = Path(outside, "inner", "run")
        folder.mkdir(parents=True)
        mirror = Mirror(folder, "all")
        try:
            mirror.update(
                listing, lambda places: [bytes(min(max(int(size), 0), 100)) for _, _, size, _ in places], ended=True
            )
        finally:
            others = [entry for entry in [*Path(outside).iterdir(), *Path(outside, "inner").iterdir()]
                      if entry.name not in ("inner", "run")]  # fmt: skip
            assert not others, f"{others} is written outside the folder"


def _listing(path: Path) -> None:
    try:
        json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return
    _mirrored(path)


def _checked(path: Path) -> None:
    report = check_dataset(_folder_of(path))
    str(report.label_lines)


def _sheet(path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_sheet(Dataset.open(_folder_of(path)), Path(folder, "sheet.html"), 2)


def _folder_of(path: Path) -> Path:
    return next(parent for parent in path.parents if (parent / "train_db").exists())


def _opened(path: Path) -> None:
    """Everything that opening a dataset reads."""
    folder = _folder_of(path)
    dataset = Dataset.open(folder)
    for value in (
        dataset.info,
        dataset.labels,
        dataset.values,
        dataset.exif,
        dataset.mean_pixel,
        dataset.content_hash,
        dataset,
    ):
        str(value)
    for split in ("train", "val"):
        dataset.label_counts(split)
    if len(dataset.train):
        dataset.train.read([0])
    identity(folder)


def _any(*calls: Callable[[], Any]) -> None:
    """Make all calls; raise the last error if each of them raises one of multiseg."""
    problems = []
    for call in calls:
        try:
            call()
        except multiseg.MultisegError as error:
            problems.append(error)
    if len(problems) == len(calls):
        raise problems[-1]


def _image(path: Path) -> None:
    data, name = path.read_bytes(), str(path)
    _any(
        lambda: decode(data, name, "RGB"),
        lambda: decode(data, name),
        lambda: stored_image(data, name),
        lambda: decode(data, name, exif="ignore", depth="8", max_pixels=1 << 30),
    )


def _hdf5(path: Path) -> Any:
    from multiseg_caffe import hdf5_weights

    return hdf5_weights.layers(path, None)


def _names_in_hdf5(path: Path) -> Any:
    return hdf5.root_names(path, path.read_bytes()[:4096])


def _solver_state(path: Path) -> None:
    from multiseg_caffe import solver_state

    solver_state.check(path, "network.caffemodel", STATE)


def _network(path: Path) -> None:
    mean_of_file(path)
    cropping_of_file(path)
    multiseg.describe(path, SHAPE)


def _kinds(path: Path) -> None:
    _any(lambda: kind_of(path, "network"), lambda: kind_of(path, "weights"))


def _t7(path: Path) -> Any:
    from multiseg_torch.torch7 import t7 as reader

    return reader.read(str(path))


def _datum(path: Path) -> None:
    record = path.read_bytes()
    datum_pixels(parse_datum(record), record)


def _jobs(path: Path) -> None:
    jobs = read_jobs(path)
    for job in list(jobs.jobs.values())[:3]:
        str(job)


def _notes(path: Path) -> None:
    exported_notes(path)


def _choice(path: Path) -> None:
    chosen = choice.read(path)
    str(chosen.title)
    chosen.call_arguments()


READERS = [
    *(Reader(f"prototxt {name}", f"{name}.prototxt", _network, weight) for name, weight in {"net": 3.0, "unet": 0.5}.items()),
    Reader("caffemodel", "w.caffemodel", read_weights, 3),
    Reader("caffemodel in HDF5", "w.caffemodel.h5", _hdf5, 2),
    Reader("names in HDF5", "w.caffemodel.h5", _names_in_hdf5),
    Reader("solverstate", "network.solverstate", _solver_state, 2),
    Reader("safetensors", "w.safetensors", lambda path: weights_file.read(path), 2),
    *(Reader(f"kind of {file}", file, _kinds, 0.7) for file in ("net.prototxt", "net.py", "net.lua", "net.t7", "w.caffemodel")),
    Reader("t7", "net.t7", _t7, 2),
    Reader("t7 ascii", "ascii.t7", _t7),
    Reader("choice of a network", "choice.json", _choice, 2),
    Reader("mean.binaryproto", "plain/train_db/mean.binaryproto", lambda path: read_mean(path.parents[1]), 2),
    Reader("dataset.json", "dataset/dataset.json", _opened, 3),
    Reader("dataset.json of classes", "classes/dataset.json", _opened, 3),
    Reader("dataset.json, sheet", "classes/dataset.json", _sheet, 0.3),
    Reader("dataset.json, check", "classes/dataset.json", _checked, 0.5),
    Reader("data.mdb", "dataset/train_db/features/data.mdb", _opened, 2),
    Reader("data.mdb, check", "dataset/train_db/labels/data.mdb", _checked),
    Reader("Datum", "raw.datum", _datum, 2),
    Reader("Datum of floats", "floats.datum", _datum, 2),
    Reader("status.pickle", "digits/status.pickle", _opened, 2),
    *(Reader(f"image {name}", f"images/{name}", _image, 0.7) for name in (
        "a.jpg", "a.png", "a.webp", "a.bmp", "a.ppm", "palette.png", "alpha.png", "deep.png", "grey.png", "a.tif", "lzw.tif",
        "deflate.tif", "deep.tif", "deep.pgm", "a.npy")),
    Reader("table of jobs", "jobs.toml", _jobs, 3),
    Reader("names of classes", "classes.txt", lambda path: read_names(path)),
    Reader("colours", "colours.txt", lambda path: read_colours(path)),
    Reader("map of labels", "map.txt", lambda path: read_map(path)),
    Reader("map of labels in JSON", "map.json", lambda path: read_map(path)),
    Reader("list of VOC", "voc/ImageSets/Segmentation/train.txt", lambda path: read_layout(str(path.parents[2]))),
    Reader("notes of an exported file", "net.py", _notes, 0.3),
    Reader("message", "answer.message", _received, 2),
    Reader("message of JSON", "answer.json", partial(_received, frame=True), 2),
    Reader("listing of the cluster", "listing.json", _listing, 1),
]  # fmt: skip
