"""Errors name settings; Python and the command line each show them in their own notation."""

from __future__ import annotations

import pickle
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import multiseg
from multiseg import errors
from multiseg.cli import main
from multiseg.cli.convert import convert
from multiseg.cli.notation import message
from multiseg.cli.train import train
from multiseg.errors import (
    BackendUnavailable,
    ModelError,
    MultisegError,
    MultisegWarning,
    SettingsError,
    TrainingStopped,
    setting,
)

KEEP = '"keep"'
OPTIONS = {  # a reference to a setting -> its notations in Python and in `multiseg train`
    setting("epochs", 0): ("epochs=0", "--epochs 0"),
    setting("batch_size", 4): ("batch_size=4", "--batch-size 4"),
    setting("weights"): ("weights", "--weights"),
    setting("weights", "a b"): ("weights='a b'", "--weights 'a b'"),
    setting("weights", example="FILE"): ("weights=FILE", "--weights FILE"),
    setting("resume"): ("resume", "--resume"),
    setting("solver_state", True): ("solver_state=True", "--solver-state"),
    setting("solver_state", False): ("solver_state=False", "--no-solver-state"),
    setting("lowering", False): ("lowering=False", "--no-lowering"),
    setting("patience", None): ("patience=None", "no --patience"),
    setting("freeze", ["a", "b*"]): ("freeze=['a', 'b*']", "--freeze a --freeze 'b*'"),
    setting("freeze", "a"): ("freeze='a'", "--freeze a"),
    setting("solver_options", {"momentum": 0.9}): ("solver_options={'momentum': 0.9}", "--solver-option momentum=0.9"),
    setting("augment", {"quarter_turns": True}): ("augment={'quarter_turns': True}", "--augment quarter_turns=true"),
    setting("multipliers", {"*.bias": {"lr": 2, "decay": 0}}): (
        "multipliers={'*.bias': {'lr': 2, 'decay': 0}}", "--multiplier '*.bias=2,0'",
    ),
    setting("multipliers", -1, keys=("b", "lr")): ("multipliers['b']['lr']=-1", "--multiplier b lr=-1"),
    setting("tile", 3): ("tile=3", "tile=3"),  # no option of this command
}  # fmt: skip


@pytest.mark.parametrize("reference", OPTIONS, ids=[python for python, _ in OPTIONS.values()])
def test_a_setting_has_the_notation_of_each_interface(reference: str) -> None:
    python, command_line = OPTIONS[reference]
    error = SettingsError(f"{reference}: is {{wrong}}")
    assert str(error) == f"{python}: is {{wrong}}" and error.args == (str(error),)
    assert message(error, train) == f"{command_line}: is {{wrong}}"


@pytest.mark.parametrize("name", [field.name for field in fields(multiseg.Job)])
def test_every_setting_of_a_job_is_shown_as_an_option_that_exists(name: str) -> None:
    options = {text for option in train.params if isinstance(option, click.Option) for text in option.opts}
    assert message(SettingsError(setting(name)), train) in options


@pytest.mark.parametrize(
    "error",
    [
        SettingsError(f"{setting('epochs', 0)}: x"),
        ModelError(f"{setting('network', example='FILE')}: x"),
        TrainingStopped(f"go on with {setting('resume')}", 15),
        BackendUnavailable(f"{setting('backend', 'x')}"),
    ],
)
def test_errors_survive_pickling_and_the_way_from_a_worker(error: MultisegError) -> None:
    copies = pickle.loads(pickle.dumps(error)), getattr(errors, type(error).__name__)(error.template)
    for copy in copies:
        assert type(copy) is type(error) and str(copy) == str(error) and copy.template == error.template
    assert getattr(copies[0], "signal", None) == getattr(error, "signal", None)


def test_an_error_of_a_worker_names_options(tmp_path: Path) -> None:
    """Through the worker's process, whose reader raises it; Python's notation is in Python's error."""
    model = tmp_path / "net.prototxt"
    model.write_text('layer { name: "c" type: "ReLU" bottom: "data" top: "c" }\n')
    with pytest.raises(ModelError, match=re.escape("input_shape=(channels, height, width)")):
        multiseg.describe(model)
    done = CliRunner().invoke(main, ["describe", str(model)])
    assert done.exit_code == 2 and done.stderr.endswith("set --input-shape C,H,W or --dataset DIR\n"), done.stderr


def test_hints_of_a_conversion_name_its_options() -> None:
    hints = ModelError(
        f"{setting('source_network', example='FILE')} {setting('channels', example=KEEP)} "
        f"{setting('map', {'OLD': 'NEW'})} {setting('label_shape', example='(channels, height, width)')}"
    )
    python = "source_network=FILE channels=\"keep\" map={'OLD': 'NEW'} label_shape=(channels, height, width)"
    assert str(hints) == python
    assert message(hints, convert) == "--source-network FILE --channels keep --map OLD=NEW --dataset DIR"


@pytest.mark.parametrize(
    "options, words",
    [
        (["--epochs", "0", "--keep", "x"], ["--keep x: choose one of last, best, all", "--epochs 0: must be"]),
        (["--solver-state"], ["--solver-state: requires weights to start from; specify them with --weights"]),
        (["--weights", "no file"], ["--weights 'no file': no such file or run folder"]),
        (["--augment", "flip=up"], ["--augment: flip='up': choose one of"]),
        (["--lr-policy", "stepp"], ["unknown --lr-policy 'stepp'"]),
        (["--multiplier", "b=-1"], ["--multiplier b lr=-1.0: must be a number from 0"]),
        (["--batch-size", "9", "--accumulate", "9999"], ["--batch-size 9 x --accumulate 9999: is larger than the"]),
    ],
)
def test_a_training_on_the_command_line_names_options(
    dataset: Any, tmp_path: Path, options: list[str], words: list[str]
) -> None:
    command = ["train", "--dataset", str(dataset.path), "--run", str(tmp_path / "run"), *options]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2 and len(done.stderr.splitlines()) == 1
    for text in words:
        assert text in done.stderr
    assert not (tmp_path / "run").exists()


def test_messages_that_quote_damaged_files_have_a_bounded_length() -> None:
    text = "x" * 5_000_000
    error = ModelError(f"/a/file.txt:1: {text}: is no value of {setting('weights', text)}; remove {setting('resume')}")
    assert (
        len(str(error)) < 5200 and str(error).startswith("/a/file.txt:1: xxx") and str(error).endswith("remove resume")
    )
    assert len(message(error, train)) < 5300 and "--weights" in message(error, train)
    assert "characters left out" in str(error)
    assert len(str(ModelError("a\ufdd0{}\ufdd1" * 100_000))) < 5000
    assert len(str(ModelError('a\ufdd0{"name": "x"}\ufdd1' * 100_000))) < 5000
    assert len(str(MultisegWarning(text))) < 5200
    short = ModelError("y" * 4000)
    assert str(short) == "y" * 4000


@pytest.mark.parametrize(
    "inside", ["", "{}", '{"name": 1', '["a"]', '{"name": 1}', '{"name": "a", "keys": 5}', "x" * 5000]
)
def test_the_marks_of_references_in_untrusted_text_are_text(inside: str) -> None:
    error = ModelError(f"a \ufdd0{inside}\ufdd1 b")
    assert str(error).startswith("a ") and str(error).endswith(" b")
