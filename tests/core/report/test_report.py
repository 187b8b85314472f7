"""Comparing runs from what their folders hold, without any framework."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import multiseg
from helpers.report_pages import Write, page_of
from multiseg import errors
from multiseg.backend import package_folder
from multiseg.cli.compare import compare as compare_command
from multiseg.pages import pictures
from multiseg.pages.numbers import duration, significant
from multiseg.report import scan
from multiseg.report.networks import networks

# ---- figures and verdict


def test_the_headline_names_the_best_run_and_its_cost(write: Write) -> None:
    runs = [write("a", "caffe", iou=0.85, seconds=8), write("b", "torch", iou=0.9, seconds=12)]
    headline = multiseg.compare(runs).headline
    assert headline == (
        "PyTorch did best: IoU 0.900 after 3 epochs and 36 s of training, 1.5 times as long as Caffe, the quickest."
    )


def test_runs_that_write_alike_are_equal(write: Write) -> None:
    comparison = multiseg.compare([write("a", "caffe", iou=0.8999, seconds=9), write("b", "torch", iou=0.9001)])
    assert comparison.headline == "All runs are equal at IoU 0.900; Caffe was quickest, with 27 s of training."


def test_the_quickest_of_the_best_is_not_called_quickest_of_all(write: Write) -> None:
    given = [("a", "caffe", 0.9, 9), ("b", "torch", 0.9, 5), ("c", "tensorflow", 0.8, 1)]
    comparison = multiseg.compare([write(name, backend, iou=iou, seconds=took) for name, backend, iou, took in given])
    assert comparison.headline == (
        "Caffe and PyTorch did best, equal at IoU 0.900; of them, PyTorch was quickest, with 15 s of training."
    )


def test_of_many_equal_runs_a_few_are_named(write: Write) -> None:
    runs = [write(f"r{number}", iou=0.9, seconds=number + 1, seed=number) for number in range(9)]
    headline = multiseg.compare([*runs, write("worse", iou=0.8)], images=0).headline
    assert ", PyTorch · r4 and 4 others did best, equal at IoU 0.900; of them, PyTorch · r0 was quickest" in headline


def test_no_winner_over_different_datasets(write: Write, tmp_path: Path) -> None:
    comparison = multiseg.compare([write("a", content="aaaa"), write("b", "caffe", content="bbbb", iou=0.5)], images=0)
    assert "different datasets" in comparison.headline
    assert comparison.to_dict()["comparable"] is False
    assert "Different datasets." in page_of(comparison, tmp_path)


def test_a_dataset_is_the_same_wherever_it_lies(write: Write) -> None:
    a, b = write("a", "caffe"), write("b")
    job = json.loads((b / "job.json").read_text())
    job["dataset"]["path"] = "elsewhere"
    (b / "job.json").write_text(json.dumps(job))
    assert multiseg.compare([a, b]).comparable


def test_a_run_that_diverged_does_not_win_and_stays_json(write: Write) -> None:
    comparison = multiseg.compare([write("a", "caffe", iou=math.nan), write("b", iou=0.1)])
    assert comparison.headline.startswith("PyTorch did best")
    assert json.loads(json.dumps(comparison.to_dict(), allow_nan=False))["runs"][0]["final"]["iou"] is None


def test_the_same_run_twice_gets_two_labels(write: Write) -> None:
    run = write("a")
    labels = [each.label for each in multiseg.compare([run, run, write("b")]).facts]
    assert labels == ["PyTorch · a (1)", "PyTorch · a (2)", "PyTorch · b"]


def test_figures_are_those_of_the_weights_that_are_tested(write: Write) -> None:
    folder = write("a")
    (folder / "snapshots" / "epoch-0003").rename(folder / "snapshots" / "epoch-0002")
    figures = multiseg.compare([folder]).to_dict()["runs"][0]
    assert figures["epoch"] == 2
    assert figures["final"]["iou"] == pytest.approx(0.6)
    assert figures["best"]["iou"] == {"value": pytest.approx(0.9), "epoch": 3}


def test_a_part_of_an_epoch_is_told(write: Write) -> None:
    folder = write("a", iou=0.9)
    (folder / "snapshots" / "epoch-0003").rmdir()
    rows = (folder / "history.csv").read_text().splitlines()
    rows[-1] = "2.5" + rows[-1].removeprefix("3")
    (folder / "history.csv").write_text("\n".join(rows) + "\n")
    comparison = multiseg.compare([folder])
    assert comparison.to_dict()["runs"][0]["epoch"] == 2.5
    assert "2.5 epochs" in comparison.to_markdown()


def test_costs_leave_out_the_row_before_training(write: Write) -> None:
    cost = multiseg.compare([write("a", seconds=10.0)]).to_dict()["runs"][0]["cost"]
    assert cost == {
        "train_seconds": 30.0, "seconds": 10.0, "images_per_second": 90.0, "peak_memory_mb": 300.0, "parameters": 80.0
    }  # fmt: skip


def test_only_what_differs_is_listed(write: Write) -> None:
    runs = [write("a", "caffe", solver={"name": "sgd", "momentum": 0.9}), write("b", solver={"name": "sgd"})]
    settings = multiseg.compare(runs).to_dict()["settings"]
    assert settings == {
        "backend": {"Caffe": "caffe", "PyTorch": "torch"},
        "solver.momentum": {"Caffe": "0.9", "PyTorch": "–"},
    }


def test_a_run_of_a_backend_that_is_not_installed_compares(write: Write) -> None:
    assert [each.label for each in multiseg.compare([write("a", "elsewhere")]).facts] == ["elsewhere"]


def test_markdown_marks_the_best_and_escapes(write: Write) -> None:
    text = multiseg.compare([write("a", "caffe", iou=0.8), write("b", note="x|y")]).to_markdown()
    assert "| **0.900** |" in text
    assert "x\\|y" in text
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")]
    assert len(set(widths)) == 2  # one table of figures, one of settings, each of even width


@pytest.mark.parametrize(("own_loss", "marked"), [(True, False), (False, True)])
def test_own_losses_are_not_ranked(write: Write, own_loss: bool, marked: bool) -> None:
    a, b = write("a", "caffe", own_loss=own_loss), write("b", own_loss=own_loss, epochs=7)
    line = next(line for line in multiseg.compare([a, b]).to_markdown().splitlines() if line.startswith("| PyTorch"))
    assert ("| **0.2500** |" in line) is marked


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.34601, "0.3460"), (8672.3, "8672"), (1e-7, "1e-07"), (1234567.0, "1.23e+06")]
)
def test_significant(value: float, text: str) -> None:
    assert significant(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(8.71, "8.7 s"), (52.3, "52 s"), (125, "2 min 05 s"), (3599.9, "1 h 00 min"), (4320, "1 h 12 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# ---- thresholds


def test_requirements_name_run_and_value(write: Write) -> None:
    comparison = multiseg.compare([write("a", "caffe", iou=0.8), write("b", iou=0.9)])
    assert comparison.check(["iou>=0.85"]) == ["Caffe: iou 0.8, required iou >= 0.85"]
    assert comparison.check([" iou > 0.79 ", "train_seconds<=30"], {"iou": 0.1}) == []
    (gap,) = comparison.check(max_gap={"iou": 0.05})
    assert "differs by 0.1 between Caffe (0.8) and PyTorch (0.9), at most 0.05 allowed" in gap


def test_a_missing_value_fails(write: Write) -> None:
    comparison = multiseg.compare([write("a", iou=math.nan)])
    assert comparison.check(["iou>=0.1"], {"iou": 1}) == [
        "PyTorch: no iou, required iou >= 0.1",
        "PyTorch: no iou, required for the gap",
    ]


@pytest.mark.parametrize("text", ["iou", "iou=0.8", "iou>=", "iou>=high", "iou>=nan", "kappa>=0.8", ">=0.8"])
def test_a_requirement_that_cannot_be_read(write: Write, text: str) -> None:
    with pytest.raises(errors.SettingsError, match=r"iou|dice|0\.8"):
        multiseg.compare([write("a")]).check([text])


# ---- bad input


def test_no_runs() -> None:
    with pytest.raises(errors.RunError, match="no runs to compare"):
        multiseg.compare([])


def test_a_path_in_place_of_a_list_of_runs(write: Write) -> None:
    for runs in (write("a"), str(write("b"))):
        with pytest.raises(errors.RunError, match=r"runs='.*': must be a list of runs"):
            multiseg.compare(runs)  # type: ignore[arg-type]


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(errors.RunError, match="not a run folder"):
        multiseg.compare([tmp_path])


def test_a_missing_grid(write: Write, tmp_path: Path) -> None:
    with pytest.raises(errors.ImageError, match=r"none\.png: there is no such image"):
        multiseg.compare([write("a")], grid=tmp_path / "none.png")


def test_a_grid_that_is_no_image(write: Write, tmp_path: Path) -> None:
    comparison = multiseg.compare([write("a")], images=0, grid=write("b") / "job.json")
    with pytest.raises(errors.ImageError, match=r"job\.json"):
        comparison.to_html(tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_a_page_that_cannot_be_written(write: Write) -> None:
    with pytest.raises(errors.SettingsError, match="cannot be written"):
        multiseg.compare([write("a")], images=0).to_html(write("b") / "job.json" / "page.html")


def test_a_dataset_that_has_gone(write: Write, tmp_path: Path) -> None:
    with pytest.raises(errors.DatasetError):
        multiseg.compare([write("a", dataset=str(tmp_path / "gone"))]).to_html(tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


# ---- the page


def test_a_run_without_its_framework_is_left_out_of_the_pictures(
    write: Write, tmp_path: Path, dataset: multiseg.Dataset, images: Path
) -> None:
    run = write("a", "elsewhere", dataset=str(dataset.path), content=dataset.content_hash, subtract_mean="none")
    comparison = multiseg.compare([run], grid=images / "grid.png")
    text = page_of(comparison, tmp_path)
    assert "elsewhere is not among the pictures." in text
    assert "no backend is called" in comparison.left_out["elsewhere"]


def test_the_page_refers_to_nothing_outside(write: Write, tmp_path: Path) -> None:
    text = page_of(multiseg.compare([write("a", "caffe"), write("b")], images=0), tmp_path)
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", text)
    assert "@import" not in text
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_comes_from_a_run_is_escaped(write: Write, tmp_path: Path) -> None:
    text = page_of(multiseg.compare([write("a", "</script><b>", loss="</script>")], images=0), tmp_path)
    assert "<b>" not in text.replace('<b class="tag">', "").replace(" <b>best</b>", "")
    assert text.count("</script>") == 4


def test_the_page_says_what_became_of_a_run(write: Write, tmp_path: Path) -> None:
    assert "PyTorch is unfinished (stopped)." in page_of(
        multiseg.compare([write("a", status="stopped")], images=0), tmp_path
    )


def test_many_epochs_stay_small(write: Write, tmp_path: Path) -> None:
    runs = [write(name, name, epochs=150) for name in ("caffe", "torch", "tensorflow")]
    assert len(page_of(multiseg.compare(runs, images=0), tmp_path)) < 300_000


def test_importing_it_brings_in_no_template_engine() -> None:
    code = "import sys, multiseg.report; print([m for m in ('jinja2', 'numpy', 'PIL') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# ---- which images, and their pictures


def test_worst_contested_and_typical_images() -> None:
    error = np.arange(80, dtype=np.float32)
    split = np.zeros(80, np.float32)
    split[[5, 79]] = 0.5, 0.2
    chosen = scan.choose(error, split, 16)
    assert len(chosen) == 16
    assert list(chosen) == sorted(chosen, reverse=True), "worst first"
    assert chosen[5] == ("contested",)
    assert chosen[79] == ("worst", "contested")
    assert [index for index, kinds in chosen.items() if "typical" in kinds] == [40, 39]


@pytest.mark.parametrize("images", [1, 3, 24, 100])
def test_never_more_images_than_asked_for_or_there(images: int) -> None:
    values = np.linspace(0, 1, 10, dtype=np.float32)
    assert len(scan.choose(values, values, images)) == min(images, 10)


def test_sums_over_runs() -> None:
    targets = np.array([[0, 255, 255, 255]], np.uint8).reshape(1, 1, 2, 2)
    right = targets.astype(np.float32)
    wrong_once, wrong_twice = right.copy(), right.copy()
    wrong_once[0, 0, 0, 0] = 200
    wrong_twice[0, 0, 0] = 200, 100
    sums = scan._Sums()
    sums.add([wrong_once, wrong_twice], targets, [128, 128])
    assert sums.l1[0].ravel().tolist() == [50, 88.75]
    assert sums.wrong[0].ravel().tolist() == [0.25, 0.5]
    assert sums.split[0].tolist() == [0.25]
    assert (sums.in_some, sums.in_all, sums.pixels) == (2, 1, 4)
    assert sums.between[0][1] == 1


def test_each_run_is_judged_by_its_own_threshold() -> None:
    """A pixel of 60 beside a target of 0 is right below 128 and wrong below 50, where the runs disagree."""
    targets = np.zeros((1, 1, 1, 2), np.uint8)
    output = np.array([[[[60, 0]]]], np.float32)
    sums = scan._Sums()
    sums.add([output, output], targets, [128, 50])
    assert sums.wrong[0].ravel().tolist() == [0, 0.5]
    assert sums.split[0].tolist() == [0.5] and (sums.in_some, sums.in_all) == (1, 0)


def decoded(uri: str) -> Image.Image:
    import base64
    import io

    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_a_picture_is_clipped_and_upright() -> None:
    values = np.array([[[-20.0, 300.0, 127.6], [0.4, 10, 255]]])
    assert np.asarray(decoded(pictures.picture(values))).tolist() == [[0, 255, 128], [0, 10, 255]]
    colour = np.zeros((3, 4, 6))
    colour[2, 0, 1] = 255
    assert decoded(pictures.picture(colour)).getpixel((1, 0)) == (0, 0, 255)


def test_an_error_map_tells_lighter_from_darker() -> None:
    output, target = np.array([[[255.0, 0.0, 77.0]]]), np.array([[[0, 255, 77]]], np.uint8)
    shown = decoded(pictures.error_map(output, target)).convert("RGB")
    assert [shown.getpixel((x, 0)) for x in range(3)] == [pictures.LIGHTER, pictures.DARKER, pictures.EQUAL]
    minority = np.array([[0, 255]], np.uint8)
    assert decoded(pictures.split_map(minority)).convert("RGB").getpixel((1, 0)) == pictures.LIGHTER


def test_signs_have_colours_and_nothing_has_none() -> None:
    shown = decoded(pictures.signed(np.array([[-2.0, 0.0, 2.0, np.nan]], np.float32)))
    ends = [shown.getpixel((x, 0)) for x in (0, 2)]
    assert ends == [(*pictures.DARKER, 255), (*pictures.LIGHTER, 255)]
    assert shown.getpixel((3, 0))[3] == 0


def test_large_pictures_are_shrunk() -> None:
    assert decoded(pictures.picture(np.zeros((3, 100, 400)), 200)).size == (200, 50)
    assert decoded(pictures.error_map(np.zeros((1, 64, 64)), np.zeros((1, 64, 64)), 32)).size == (32, 32)


# ---- the command


def test_the_command_prints_json_and_checks(write: Write, tmp_path: Path) -> None:
    runs = [str(write("a", "caffe", iou=0.8)), str(write("b"))]
    done = CliRunner().invoke(compare_command, [*runs, "--json", "--require", "iou>=0.85", "--max-gap", "iou=0.02"])
    assert done.exit_code == 1
    assert len(json.loads(done.stdout)["failures"]) == 2
    assert done.stderr.count("failed: ") == 2


def test_the_command_writes_the_page(write: Write, tmp_path: Path) -> None:
    page = tmp_path / "new" / "page.html"
    done = CliRunner().invoke(compare_command, [str(write("a")), "-o", str(page), "--images", "0"])
    assert (done.exit_code, page.is_file()) == (0, True)
    assert done.stdout.splitlines()[0].startswith("PyTorch reached IoU 0.900")


def test_the_command_prints_markdown_without_a_page(write: Write) -> None:
    done = CliRunner().invoke(compare_command, [str(write("a"))])
    assert done.exit_code == 0
    assert "| Run | Version |" in done.stdout


@pytest.mark.parametrize("arguments", [["--max-gap", "iou"], ["--images", "-1"], []])
def test_the_command_refuses(write: Write, arguments: list[str]) -> None:
    runs = [str(write("a"))] if arguments else []
    done = CliRunner().invoke(compare_command, [*runs, *arguments])
    assert isinstance(done.exception, errors.MultisegError)


# ---- networks


@pytest.fixture
def with_model(write: Write) -> Write:
    """A run folder of Caffe's with its network file, whose second convolution has the given stride."""

    def written(name: str, stride: int = 16) -> Path:
        folder = write(name, "caffe", model="fcn.prototxt")
        (folder / "model").mkdir()
        text = (package_folder("multiseg_models") / "fcn.prototxt").read_text()
        changed = text.replace("16\n    stride: 16\n    weight", f"16\n    stride: {stride}\n    weight")
        (folder / "model" / "fcn.prototxt").write_text(changed)
        return folder

    return written


def test_networks_are_shown_once_each_with_what_differs(with_model: Write) -> None:
    comparison = multiseg.compare([with_model("a"), with_model("b", 8), with_model("c")])
    trained = networks(comparison.facts)
    assert [[run.label for run in each.runs] for each in trained.distinct] == [
        ["Caffe · a", "Caffe · c"],
        ["Caffe · b"],
    ]
    assert not trained.distinct[0].difference
    assert list(trained.distinct[1].difference) == ["conv2: stride 16 in Caffe · a, 8 in Caffe · b"]
    assert not trained.unknown


def test_a_network_that_cannot_be_described_is_said(with_model: Write, write: Write) -> None:
    broken = with_model("b")
    (broken / "model" / "fcn.prototxt").write_text("nothing")
    trained = networks(multiseg.compare([with_model("a"), broken]).facts)
    assert len(trained.distinct) == 1
    assert list(trained.unknown) == ["Caffe · b"]
    assert "fcn.prototxt" in trained.unknown["Caffe · b"]
