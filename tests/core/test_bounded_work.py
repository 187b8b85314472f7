"""Work on untrusted files is bounded: patterns match in linear time, and only regular files are opened."""

from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import multiseg
from multiseg.dataset import Dataset
from multiseg.dataset.label_tables import read_names
from multiseg.errors import ModelError, MultisegError
from multiseg.images import load_image
from multiseg.jobs import read_jobs
from multiseg.model_files.reading import read_weights
from multiseg.run.reading import read_history

if sys.version_info >= (3, 11):
    import re._parser as parser
else:
    import sre_parse as parser

ROOT = Path(multiseg.__file__).parent.parent
SOURCES = [*(ROOT / "multiseg").rglob("*.py"), *(ROOT / "backends").rglob("*.py")]
EVERY = frozenset(range(256))
CATEGORIES = {
    name: frozenset(code for code in EVERY if re.match(pattern, chr(code), re.ASCII))
    for name, pattern in {
        "CATEGORY_DIGIT": r"\d", "CATEGORY_NOT_DIGIT": r"\D", "CATEGORY_SPACE": r"\s", "CATEGORY_NOT_SPACE": r"\S",
        "CATEGORY_WORD": r"\w", "CATEGORY_NOT_WORD": r"\W",
    }.items()
}  # fmt: skip


def alphabet(op: str, argument: Any) -> frozenset[int]:
    """The characters that one element of a pattern can match anywhere in it."""
    if op == "LITERAL":
        return frozenset({argument})
    if op == "NOT_LITERAL":
        return EVERY - {argument}
    if op == "ANY":
        return EVERY
    if op == "RANGE":
        return frozenset(range(argument[0], argument[1] + 1))
    if op == "CATEGORY":
        return CATEGORIES[str(argument)]
    if op == "IN":
        parts = [alphabet(str(part), value) for part, value in argument if str(part) != "NEGATE"]
        union = frozenset().union(*parts)
        return EVERY - union if str(argument[0][0]) == "NEGATE" else union
    return frozenset().union(
        *(alphabet(*element) for sequence in inner(op, argument) for element in elements(sequence))
    )


def elements(sequence: Any) -> list[tuple[str, Any]]:
    return [(str(op), argument) for op, argument in sequence]


def inner(op: str, argument: Any) -> list[Any]:
    """The sequences inside an element of a pattern."""
    if op == "BRANCH":
        return list(argument[1])
    if op == "SUBPATTERN":
        return [argument[3]]
    if op in ("MAX_REPEAT", "MIN_REPEAT"):
        return [argument[2]]
    return [argument[1]] if op in ("ASSERT", "ASSERT_NOT") else []


def unbounded(op: str, argument: Any) -> bool:
    return op in ("MAX_REPEAT", "MIN_REPEAT") and argument[1] == parser.MAXREPEAT


def repeated(sequence: Any) -> frozenset[int]:
    """The characters of all repetitions without bound in a sequence."""
    union: frozenset[int] = frozenset()
    for op, argument in elements(sequence):
        for part in inner(op, argument):
            union |= alphabet(op, argument) if unbounded(op, argument) else repeated(part)
    return union


def branches(sequence: Any) -> list[Any]:
    while len(sequence) == 1 and elements(sequence)[0][0] == "SUBPATTERN":
        sequence = inner(*elements(sequence)[0])[0]
    if len(sequence) == 1 and elements(sequence)[0][0] == "BRANCH":
        return inner(*elements(sequence)[0])
    return [sequence]


def problems(sequence: Any, multiline: bool) -> Iterator[str]:
    """What makes a pattern slow: a repetition in a repetition, unless something that it cannot match separates its turns; and,
    where a pattern may begin in each line, a beginning that runs on over many lines."""
    items = elements(sequence)
    for (op, argument), following in zip(items, [*items[1:], None][: len(items)], strict=True):
        if unbounded(op, argument):
            for branch in branches(argument[2]):
                single = [alphabet(*item) for item in elements(branch) if item[0] in ("LITERAL", "NOT_LITERAL", "IN")]
                inside = repeated(branch)
                if inside and all(separator & inside for separator in single):
                    yield "repeats a repetition"
        if op == "AT" and following and multiline and unbounded(*following) and ord("\n") in alphabet(*following):
            yield "begins with white space of several lines"
        for part in inner(op, argument):
            yield from problems(part, multiline)


def slow(pattern: str | bytes, flags: int = 0) -> list[str]:
    return list(problems(parser.parse(pattern, flags), bool(flags & re.MULTILINE)))


def patterns() -> Iterator[tuple[str, str | bytes, int]]:
    """The place, the pattern and the flags of each call of re in the sources."""
    for path in SOURCES:
        tree = ast.parse(path.read_bytes())
        named = {
            target.id: node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func).startswith("re.") and node.args):
                continue
            argument = named.get(ast.unparse(node.args[0]), node.args[0])
            if isinstance(argument, ast.Call):  # a compiled pattern, which is checked where it is compiled
                continue
            text = ast.unparse(argument)
            text = re.sub(r"\{[\w.]+\}", "x", text)  # values in an f-string
            text = text.replace("% LONGEST_WORD", "% 40").replace("str(self.folder)", "'/'")
            flags = re.MULTILINE if "re.MULTILINE" in ast.unparse(node) else 0
            yield f"{path.relative_to(ROOT)}:{node.lineno}", eval(text, {"re": re}), flags


def test_patterns_of_the_sources_match_in_linear_time() -> None:
    checked = list(patterns())
    assert len(checked) > 50
    assert [(place, pattern, slow(pattern, flags)) for place, pattern, flags in checked if slow(pattern, flags)] == []


@pytest.mark.parametrize("pattern", [r"(a+)+b", r"(?:\s|#[^\n]*\s)*x", r"(\s*\w*)*:", rb"(?:[ \n]+|a)+b", r"(,?\d+)*;"])
def test_patterns_that_repeat_a_repetition_are_noticed(pattern: str | bytes) -> None:
    assert slow(pattern) == ["repeats a repetition"]


def test_patterns_that_begin_in_each_line_are_noticed() -> None:
    assert slow(r"^\s*net:", re.MULTILINE) and not slow(r"^[ \t]*net:", re.MULTILINE) and not slow(r"^\s*net:")
    assert not slow(r"(?:\s|#[^\n]*\n)*node") and not slow(r"a(,\s*\d+\s*)*")


# modules that read files of the program itself, or those that it has just written
OWN_FILES = {
    "multiseg/files/reading.py", "multiseg/files/writing.py",
    "multiseg/conversion/conversion.py", "multiseg/exporting/onnx.py", "multiseg/worker/server.py",
    "multiseg/run/environment.py", "multiseg/worker/client.py", "multiseg/cluster/wire.py", "multiseg/cluster/conversation.py",
    "backends/multiseg_caffe/proto.py", "backends/multiseg_caffe/solver.py", "backends/multiseg_torch/distributed.py",
    "backends/multiseg_torch/torch7/sandbox.py",
}  # fmt: skip


def test_users_files_are_read_by_one_function_that_refuses_all_but_regular_files() -> None:
    places = []
    for path in SOURCES:
        name = path.relative_to(ROOT).as_posix()
        if name in OWN_FILES or "/install/" in name:
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            if not isinstance(node, ast.Call):
                continue
            call = ast.unparse(node)
            called = ast.unparse(node.func)
            reads = called.endswith((".read_text", ".read_bytes")) and not call.startswith(("files(", "files."))
            opens = (called == "open" and not call.startswith("open(open_own(")) or (
                called.endswith(".open") and re.search(r"\((['\"]rb?['\"]|newline=.*)?\)$", call)
            )
            if reads or opens:
                places.append(f"{name}:{node.lineno}: {call}")
    assert places == [], "use multiseg.files.read_bytes, read_text or open_regular"


@pytest.fixture
def within_20_seconds() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError("a FIFO was opened, which waits for a writer")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "a network": ("net.prototxt", lambda path: multiseg.describe(path)),
    "weights": ("net.caffemodel", read_weights),
    "jobs": ("jobs.toml", read_jobs),
    "an image": ("image.png", lambda path: load_image(path)),
    "classes": ("classes.txt", lambda path: read_names(path)),
    "a history": ("history.csv", read_history),
    "a dataset's images": ("dataset/train_db/features/data.mdb", lambda path: Dataset.open(path.parents[2])),
    "a dataset's mean": ("dataset/train_db/mean.binaryproto", lambda path: Dataset.open(path.parents[1]).mean_image),
    "a dataset's description": ("dataset/dataset.json", lambda path: Dataset.open(path.parent)),
}


@pytest.mark.usefixtures("within_20_seconds")
@pytest.mark.parametrize("what", READERS)
def test_a_fifo_in_place_of_a_file_is_refused_by_name(what: str, dataset: Dataset, tmp_path: Path) -> None:
    name, read = READERS[what]
    if name.startswith("dataset"):
        shutil.copytree(dataset.path, tmp_path / "dataset")
    path = tmp_path / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises(MultisegError) as error:
        read(path)
    assert str(path) in str(error.value) and "not a regular file" in str(error.value)


@pytest.mark.parametrize(
    "text", ["net: 'a'\n" * 120_000, 'net: "x"\n' + "\n" * 1_000_000 + "x {", "\r\n" * 500_000 + "net: 1 {"]
)
def test_solver_files_of_many_lines(text: str, tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(text)
    with pytest.raises(ModelError):
        multiseg.describe(tmp_path / "net.prototxt")


@pytest.mark.parametrize("text", ["layer {}\n" * 10_001, "layers {}" * 10_001, 'input: "data" ' * 10_001 + "layer {}"])
def test_files_of_very_many_layers_are_not_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(text)
    with pytest.raises(ModelError, match=r"net\.prototxt: has 10001 (layers|inputs), more than 10000"):
        multiseg.describe(tmp_path / "net.prototxt")
