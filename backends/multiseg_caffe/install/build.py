"""Build a wheel from Caffe's source: apply the recipe's patches and build files, then run `pip wheel`."""

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

from . import debian, portable, source
from .interpreter import Interpreter
from .process import Log, error_line

RECIPE = Path(__file__).with_name("recipe")
FORKS = "6-forks.optional.patch"  # adds the messages of the layers in the folder layers to caffe.proto
TOOLS = {"c++": "g++", "cmake": "cmake", "ninja": "ninja-build", "patch": "patch", "protoc": "protobuf-compiler"}


def recipe_version() -> str:
    """Return a checksum of the recipe: any change to it requires a new wheel."""
    digest = hashlib.sha256(Path(portable.__file__).read_bytes())  # it adds files to the wheel
    for file in sorted(path for path in RECIPE.rglob("*") if path.is_file()):
        digest.update(file.relative_to(RECIPE).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def check_tools() -> None:
    """Raise InstallError if a program that the build runs is not on the PATH."""
    missing = {tool: package for tool, package in TOOLS.items() if shutil.which(tool) is None}
    if missing:
        raise InstallError(
            f"building Caffe needs {', '.join(missing)}, not found on the PATH; on Debian: "
            f"{debian.install_line(list(missing.values()))}"
        )


def build_wheel(
    origin: Path, local: str, python: Interpreter, folder: Path, jobs: int, log: Log, progress: Callable[[float], None]
) -> Path:
    """Build a wheel of a source in an empty folder, and return its path; ``local`` is its local version label.

    Raises InstallError if the source is not Caffe's, the recipe does not apply to it, or a program fails.
    """
    top = source.unpack(origin, folder / "source")
    for patch in sorted(RECIPE.glob("patches/*.patch")):
        applied = _apply(patch, top, log)
        if applied and patch.name == FORKS:
            for layer in RECIPE.glob("layers/*.cpp"):
                shutil.copy(layer, top / "src" / "caffe" / "layers")
    (top / ".gitignore").unlink(missing_ok=True)  # it would exclude files from the wheel
    shutil.copy(RECIPE / "CMakeLists.txt", top)
    shutil.copy(RECIPE / "_caffe.cpp", top / "python" / "caffe")
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
    """Return why a wheel's extension module cannot be loaded, e.g. a missing shared library; empty if it can."""
    load = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"
    with tempfile.TemporaryDirectory(prefix="install-caffe-") as folder, zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)  # the module finds the libraries that the wheel contains beside it
        for module in Path(folder, "caffe").glob("*.so"):
            answer = subprocess.run([python.path, "-c", load, module], capture_output=True, text=True)
            if answer.returncode != 0:
                return error_line(answer.stderr.splitlines()[-1:])
    return ""


def _apply(patch: Path, top: Path, log: Log) -> bool:
    """Apply a patch to the source unless it is already applied, and return whether it was applied now.

    An optional patch may fail to apply.
    """
    command = ["patch", "--strip=1", "--force", f"--input={patch}"]

    def applies(*options: str) -> bool:
        try:
            log.run([*command, "--dry-run", *options], f"checking whether {patch.name} applies to the source", cwd=top)
        except InstallError:
            return False
        return True

    needed = not applies("--reverse") and (".optional" not in patch.suffixes or applies())
    if needed:
        log.run(command, f"patching the source with {patch.name}", cwd=top)
    return needed
