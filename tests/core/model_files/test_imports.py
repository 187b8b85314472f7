"""The files that a Python network file uses, found from its source alone."""

from __future__ import annotations

from pathlib import Path

from multiseg.model_files.imports import helpers


def test_imports_and_named_files_are_followed(tmp_path: Path) -> None:
    files = {
        "net.py": "import blocks, os\nfrom pkg.inner import layer\nfrom . import sibling\nNAMES = open('names.txt')\n",
        "blocks.py": "import net\nimport numpy\nfrom deep import deeper\nA = 'no such file.txt'\n",
        "deep/deeper.py": "DATA = 'table.csv'\n",
        "deep/table.csv": "1",
        "sibling.py": "",
        "names.txt": "",
        "pkg/__init__.py": "from .other import x",
        "pkg/other.py": "x = 1",
        "pkg/inner/__init__.py": "",
        "pkg/inner/layer.py": "from ..upper import y\nfrom ...outside import z",
        "pkg/upper.py": "",
        "outside.py": "",
        "unused.py": "",
        "pkg/unused.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = {path.relative_to(tmp_path).as_posix() for path in helpers(tmp_path / "net.py")}
    assert found == set(files) - {"net.py", "unused.py", "pkg/unused.py"}


def test_files_outside_the_folder_and_broken_source_have_none(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("")
    (tmp_path / "net").mkdir()
    (tmp_path / "net/net.py").write_text("open('../secret.txt')\nfrom ..secret import x\n")
    assert helpers(tmp_path / "net/net.py") == []
    (tmp_path / "net/blocks.py").write_text("")
    (tmp_path / "net/net.py").write_text("import blocks\nprint 'Python 2'\n")
    assert helpers(tmp_path / "net/net.py") == []
