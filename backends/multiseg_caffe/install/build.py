"""From Caffe's source to a wheel: the recipe laid over the source, then `pip wheel`."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from multiseg.errors import InstallError

from . import debian, source
from .interpreter import Interpreter
from .process import Log, telling_line

RECIPE = Path(__file__).with_name("recipe")
TOOLS = {"c++": "g++", "cmake": "cmake", "ninja": "ninja-build", "patch": "patch", "protoc": "protobuf-compiler"}


def recipe_version() -> str:
    """A checksum of the recipe: whatever changes in it makes another wheel."""
    digest = hashlib.sha256()
    for file in sorted(path for path in RECIPE.rglob("*") if path.is_file()):
        digest.update(file.relative_to(RECIPE).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def check_tools() -> None:
    """Raise InstallError where a program that the build runs is not on the PATH."""
    missing = {tool: package for tool, package in TOOLS.items() if shutil.which(tool) is None}
    if missing:
        raise InstallError(
            f"building Caffe needs {', '.join(missing)}, not found on the PATH; on Debian: "
            f"{debian.install_line(list(missing.values()))}"
        )


def build_wheel(
    origin: Path, local: str, python: Interpreter, folder: Path, jobs: int, log: Log, progress: Callable[[float], None]
) -> Path:
    """Build a wheel of a source in an empty folder, and return its path there; ``local`` marks its version.

    Raises InstallError where the source is not one, the recipe does not fit it, or a program fails.
    """
    top = source.unpack(origin, folder / "source")
    for patch in sorted(RECIPE.glob("patches/*.patch")):
        _apply(patch, top, log)
    (top / ".gitignore").unlink(missing_ok=True)  # would keep files out of the wheel
    shutil.copy(RECIPE / "CMakeLists.txt", top)
    project = (RECIPE / "pyproject.toml").read_text(encoding="utf-8")
    (top / "pyproject.toml").write_text(project.replace("+LOCAL", f"+{local}"), encoding="utf-8")

    def watch(line: str) -> None:
        if match := re.match(r"\s*\[(\d+)/(\d+)\]", line):
            progress(int(match[1]) / int(match[2]))

    (folder / "tmp").mkdir()
    log.run(
        [python.path, "-m", "pip", "wheel", "--verbose", "--no-deps", "--wheel-dir", folder / "wheel", top],
        "building Caffe",
        cwd=folder,
        env={"CMAKE_BUILD_PARALLEL_LEVEL": str(jobs), "CMAKE_GENERATOR": "Ninja", "TMPDIR": str(folder / "tmp")},
        on_line=watch,
    )
    (wheel,) = (folder / "wheel").glob("*.whl")
    return wheel


def load_failure(wheel: Path, python: Interpreter) -> str:
    """Why a wheel's extension module cannot be loaded, e.g. for a missing shared library; empty where it can."""
    load = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"
    with tempfile.TemporaryDirectory(prefix="install-caffe-") as folder, zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith(".so"):
                command: list[str | Path] = [python.path, "-c", load, archive.extract(name, folder)]
                answer = subprocess.run(command, capture_output=True, text=True)
                if answer.returncode != 0:
                    return telling_line(answer.stderr.splitlines()[-1:])
    return ""


def _apply(patch: Path, top: Path, log: Log) -> None:
    """Patch the source, where it is not patched already; an optional patch may not fit."""
    command = ["patch", "--strip=1", "--force", f"--input={patch}"]

    def fits(*options: str) -> bool:
        try:
            log.run([*command, "--dry-run", *options], f"looking whether {patch.name} fits the source", cwd=top)
        except InstallError:
            return False
        return True

    if not fits("--reverse") and (".optional" not in patch.suffixes or fits()):
        log.run(command, f"patching the source with {patch.name}", cwd=top)
