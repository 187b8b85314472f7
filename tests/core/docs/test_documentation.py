"""README, CONTRIBUTING, CHANGELOG and docs/: links, anchors, dotted names, files and commands in them exist."""

from __future__ import annotations

import pkgutil
import re
import shlex
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest

from multiseg.cli import main

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").exists())
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
# keys of the metadata of an ONNX file (docs/migrate.md) look like dotted names
ONNX_KEYS = {
    f"multiseg.{key}"
    for key in ["channel_order", "mean", "std", "source", "kind", "run", "backend", "epoch", "weights", "layers"]
}
EXAMPLE_PATHS = {"tests/small.net", "tests/dataset"}  # in a user's project
CODE_BLOCK = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """Return the anchors of a page: GitHub's slugs of its headings, and those of ``<a id="...">``."""
    names = set(re.findall(r'<a id="([^"]+)">', text))
    for heading in re.findall(r"^#+ (.+)$", CODE_BLOCK.sub("", text), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        names.add(re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-"))
    return names


def dead_links(page: Path) -> list[str]:
    """Return the relative links of a page whose file or anchor does not exist."""
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", CODE_BLOCK.sub("", page.read_text())):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text())):
            dead.append(target)
    return dead


def unknown_names(text: str) -> list[str]:
    """Return the dotted names of multiseg and its backends in a text that cannot be imported."""
    unknown = []
    for name in re.findall(r"(?<![\w./\-])multiseg(?:_caffe|_torch|_tensorflow|_models)?(?:\.[A-Za-z_]\w*)+", text):
        try:
            pkgutil.resolve_name(name)
        except (ImportError, AttributeError):
            if name not in ONNX_KEYS | entry_points().groups:
                unknown.append(name)
    return unknown


def missing_files(text: str) -> list[str]:
    """Return the paths of this repository's files and folders named in a text that do not exist."""
    paths = re.findall(r"(?<![\w./\-])(?:multiseg|backends|models|tests|benchmarks|examples|docs)/[\w./\-]*\w", text)
    return [path for path in paths if not (ROOT / path).exists()]


def commands(text: str) -> Iterator[str]:
    """Yield the ``multiseg`` command lines of a page: in code blocks, on lines of their own, and in code spans."""
    text = text.replace("\\\n", " ")
    prose = CODE_BLOCK.sub("", text)
    blocks = [match[0] for match in CODE_BLOCK.finditer(text)]
    indented = re.findall(r"^    .*", prose, re.MULTILINE)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    for line in [*"\n".join(blocks).splitlines(), *indented, *spans]:
        command = re.search(r"^\s*(?:\.venv/bin/)?(multiseg [a-z\-]+( .*)?)$", line.partition(" #")[0])
        if command:
            yield command[1]


def wrong_options(command: str) -> list[str]:
    """Return what is unknown of a command line: the command, or its options."""
    words = shlex.split(command)
    if words[1].startswith("-"):
        return []
    known = main.get_command(click.Context(main), words[1])
    if known is None:
        return [words[1]]
    options = {"-h", "--help"}
    for parameter in known.params:
        if isinstance(parameter, click.Option):
            options.update(parameter.opts, parameter.secondary_opts)
    return [word for word in words[2:] if re.fullmatch(r"--?[a-z][\w\-]*", word) and word not in options]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
class TestPages:
    def test_links_resolve(self, page: Path) -> None:
        assert dead_links(page) == []

    def test_dotted_names_import(self, page: Path) -> None:
        assert unknown_names(page.read_text()) == []

    def test_files_exist(self, page: Path) -> None:
        assert [path for path in missing_files(page.read_text()) if path not in EXAMPLE_PATHS] == []

    def test_commands_and_options_exist(self, page: Path) -> None:
        assert {command: wrong for command in commands(page.read_text()) if (wrong := wrong_options(command))} == {}


def test_every_page_is_in_the_table_of_contents() -> None:
    contents = (ROOT / "docs/README.md").read_text()
    assert [page.name for page in PAGES if page.parent == ROOT / "docs" and f"({page.name}" not in contents] == [
        "README.md"
    ]


def test_every_command_is_documented() -> None:
    documented = {command.split()[1] for page in PAGES for command in commands(page.read_text())}
    assert sorted(set(main.list_commands(click.Context(main))) - documented) == []


def test_what_is_wrong_on_a_page_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One `a`: b\n[](#one-a-b) [](#two) [](page.md#one-a-b) [](none.md)\n`multiseg.Job.trains` and multiseg.Job.train\n"
        "in multiseg/layouts.py and multiseg/layout.py\n\n    multiseg train --dataset d --baked torch  # --wrong\n"
        "    multiseg describes\n"
    )
    text = page.read_text()
    assert dead_links(page) == ["#two", "none.md"]
    assert unknown_names(text) == ["multiseg.Job.trains"]
    assert missing_files(text) == ["multiseg/layouts.py"]
    assert [wrong_options(command) for command in commands(text)] == [["--baked"], ["describes"]]
