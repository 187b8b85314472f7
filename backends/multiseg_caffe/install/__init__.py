"""`multiseg install-caffe`: build BVLC Caffe from source as a wheel, cache the wheel, and install it."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from multiseg.errors import InstallError

from . import debian
from .build import build_wheel, check_tools, load_failure, recipe_version
from .debian import Distribution
from .interpreter import Interpreter
from .process import Log
from .source import checksum, verify

__all__ = ["Report", "install_caffe"]

Report = Callable[[str, float | None], None]
"""Called with each step when it starts; while Caffe is built, also with the completed fraction (0 to 1)."""


def _silent(step: str, done: float | None) -> None:
    pass


def install_caffe(
    source: str | Path | None = None,
    *,
    sha256: str | None = None,
    python: str | Path | None = None,
    jobs: int | None = None,
    force: bool = False,
    install: bool = True,
    wheel_dir: str | Path | None = None,
    prerequisites: bool = True,
    report: Report = _silent,
) -> Path:
    """Build pycaffe for a Python interpreter, or reuse a cached wheel, install it there, and return the wheel's path.

    Raises InstallError if anything is missing or fails; the message names a log, the only file that is left behind.

    source: tarball or folder of Caffe's source; by default Debian's source package, through apt.
    sha256: the expected checksum of the tarball.
    python: the interpreter to build for and install into; by default the running one.
    jobs: number of parallel compiler processes; by default one per core.
    force: build even if a cached wheel exists.
    install: whether to install the wheel.
    wheel_dir: folder to copy the wheel to; the returned path is then that of the copy.
    prerequisites: whether to install Debian packages that the build needs, as root or with passwordless sudo.
    """
    target = Interpreter.probe(python or sys.executable)
    distribution = Distribution.read(debian.OS_RELEASE)
    origin = None if source is None else Path(source).expanduser().resolve()
    digest, local = _identify(origin, sha256)
    key = f"{digest[:16]}-{recipe_version()[:8]}-{target.tag}-{distribution.name}"
    cached = cache_folder() / key
    log = Log(cached.with_name(f"{key}.log"))

    wheel = None if force else _find(cached, target)
    if wheel is None:
        target.check_served(debian.served_pythons() if distribution.debian else [])
        if prerequisites:
            _install_prerequisites(distribution, log, report)
            target = Interpreter.probe(target.path)  # its headers may have been installed,
            # and libraries that a cached wheel lacked
            wheel = None if force else _find(cached, target)
    if wheel is None:
        check_tools()
        target.check_headers()
        try:
            wheel = _build(origin, local, target, cached, jobs or len(os.sched_getaffinity(0)), log, report)
        except InstallError as error:
            needs = "" if prerequisites else f"; on Debian the build needs: {debian.install_line(debian.PACKAGES)}"
            raise InstallError(f"{error}{needs}") from None
    if wheel_dir is not None:
        folder = Path(wheel_dir).expanduser().resolve()
        folder.mkdir(parents=True, exist_ok=True)
        wheel = Path(shutil.copy(wheel, folder))
    if install:
        report("installing pycaffe", None)
        _install(wheel, target, Log(cached.with_name(f"{key}.install.log")))
    return wheel


def cache_folder() -> Path:
    """Return the folder of cached wheels, in the user's cache folder (XDG)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "multiseg" / "caffe"


def _identify(origin: Path | None, sha256: str | None) -> tuple[str, str]:
    """Return a source's checksum and the local version label of its wheel."""
    if origin is None:
        if sha256 is not None:
            raise InstallError("--sha256 requires --source: the checksum of Debian's source is built in")
        return debian.SOURCE_SHA256, "bvlc.99bd997"
    digest = checksum(origin)
    if sha256 is not None:
        if origin.is_dir():
            raise InstallError(f"{origin}: --sha256 applies to a tarball, but this is a folder")
        verify(origin, sha256)
    return digest, "bvlc.99bd997" if digest == debian.SOURCE_SHA256 else f"source.{digest[:8]}"


def _find(folder: Path, target: Interpreter) -> Path | None:
    """Return the cached wheel in a folder if there is one and this machine has the libraries that it needs."""
    return next((wheel for wheel in sorted(folder.glob("pycaffe-*.whl")) if not load_failure(wheel, target)), None)


def _install_prerequisites(distribution: Distribution, log: Log, report: Report) -> None:
    report("checking build prerequisites", None)
    if not distribution.debian:
        raise InstallError(
            f"install-caffe installs build prerequisites and Caffe's source from Debian, but this system is "
            f"{distribution.name}; install the equivalents of {', '.join(debian.PACKAGES)} and run: "
            f"multiseg install-caffe --no-prerequisites --source PATH"
        )
    missing = debian.missing_packages()
    if missing:
        report(f"installing Debian packages ({len(missing)})", None)
        debian.install_packages(missing, log)


def _build(
    origin: Path | None, local: str, target: Interpreter, cached: Path, jobs: int, log: Log, report: Report
) -> Path:
    """Build in a temporary folder and move the finished wheel to the cache."""
    cached.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="install-caffe-") as temporary:
        folder = Path(temporary)
        if origin is None:
            report("fetching Caffe's source", None)
            origin = debian.fetch_source(folder / "apt", log)
            verify(origin, debian.SOURCE_SHA256)
        report("building Caffe", 0.0)
        built = build_wheel(
            origin, local, target, folder, jobs, log, progress=lambda done: report("building Caffe", done)
        )
        if failure := load_failure(built, target):
            raise InstallError(f"pycaffe was built but does not load: {failure} (the full log is {log.path})")
        # under a temporary name first, since the cache may be on another file system than the temporary folder
        cached.mkdir(exist_ok=True)
        temporary_wheel = cached / f".{os.getpid()}"
        try:
            shutil.copyfile(built, temporary_wheel)
            return temporary_wheel.replace(cached / built.name)
        finally:
            temporary_wheel.unlink(missing_ok=True)


def _install(wheel: Path, target: Interpreter, log: Log) -> None:
    """Install a wheel and verify that it can be imported."""
    pip: list[str | Path] = [target.path, "-m", "pip", "install", "--disable-pip-version-check"]
    try:
        # the first command replaces a pycaffe of the same version, the second installs its dependencies
        log.run([*pip, "--force-reinstall", "--no-deps", wheel], "installing pycaffe")
        log.run([*pip, wheel], "installing the dependencies of pycaffe")
        log.run([target.path, "-c", "import caffe"], "importing caffe", cwd=Path("/"))
    except InstallError as error:
        raise InstallError(f"{error}; the wheel is {wheel}") from None
