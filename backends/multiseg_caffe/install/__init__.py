"""`multiseg install-caffe`: build BVLC Caffe from source as a wheel, cache the wheel, and install it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from multiseg.errors import InstallError
from multiseg.files import try_lock

from . import debian, portable
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
    wheels: str | Path | None = None,
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
    wheels: install a wheel that was built before instead of building one: a wheel, a folder of wheels, or the address
        of a page or package index that lists them.
    sha256: the expected checksum of the tarball.
    python: the interpreter to build for and install into; by default the running one.
    jobs: number of parallel compiler processes; by default one per core.
    force: build even if a cached wheel exists.
    install: whether to install the wheel.
    wheel_dir: folder to copy the wheel to; the returned path is then that of the copy.
    prerequisites: whether to install Debian packages that the build needs, as root or with passwordless sudo.
    """
    target = Interpreter.probe(python or sys.executable)
    if wheels is not None:
        if source is not None or force:
            raise InstallError("--from installs a wheel as it is; --source and --force build one: use either")
        return _install_from(wheels, target, install, wheel_dir, report)
    distribution = Distribution.read(debian.OS_RELEASE)
    origin = None if source is None else Path(source).expanduser().resolve()
    digest, local = _identify(origin, sha256)
    key = f"{digest[:16]}-{recipe_version()[:8]}-{target.tag}-{distribution.name}"
    cached = cache_folder() / key
    log = Log(cached.with_name(f"{key}.log"))

    wheel = None if force else _find(cached, target)
    if wheel is None and prerequisites:
        _install_prerequisites(distribution, target, log, report)
        # its headers may have been installed, and libraries that a cached wheel lacked
        target = Interpreter.probe(target.path)
        wheel = None if force else _find(cached, target)
    if wheel is None:
        check_tools()
        target.check_headers()
        with _one_build(log.path, report):
            wheel = None if force else _find(cached, target)  # another process may have built it meanwhile
            try:
                wheel = wheel or _build(
                    origin, local, target, cached, jobs or len(os.sched_getaffinity(0)), log, report
                )
            except InstallError as error:
                needs = "" if prerequisites else f"; on Debian the build needs: {debian.install_line(debian.PACKAGES)}"
                raise InstallError(f"{error}{needs}") from None
    wheel = _copy_to(wheel_dir, wheel)
    if install:
        report("installing pycaffe", None)
        _install(wheel, target, Log(cached.with_name(f"{key}.install.log")))
    return wheel


def _install_from(
    wheels: str | Path, target: Interpreter, install: bool, wheel_dir: str | Path | None, report: Report
) -> Path:
    """Install a wheel that was built before, or copy it, and return its path."""
    log = Log(cache_folder() / "from.log")
    report("fetching a wheel of pycaffe", None)
    with tempfile.TemporaryDirectory(prefix="install-caffe-") as folder:
        wheel = portable.fetch(wheels, target, Path(folder), log)
        if failure := load_failure(wheel, target):
            raise InstallError(f"{wheel.name}, from {wheels}, does not load here: {failure}")
        if wheel_dir is None and wheel.parent == Path(folder):
            # where the wheel came from, if that is a folder; else it goes to the cache
            beside = Path(wheels) / wheel.name
            kept = beside if beside.is_file() else _copy_to(cache_folder() / "fetched", wheel)
        else:
            kept = _copy_to(wheel_dir, wheel)
        if install:
            report("installing pycaffe", None)
            _install(kept, target, log, links=wheels)
        return kept


def _copy_to(wheel_dir: str | Path | None, wheel: Path) -> Path:
    if wheel_dir is None:
        return wheel
    folder = Path(wheel_dir).expanduser().resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return wheel if wheel.resolve().parent == folder else Path(shutil.copy(wheel, folder))


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


@contextlib.contextmanager
def _one_build(log: Path, report: Report) -> Iterator[None]:
    """Let one process at a time build a wheel; the lock is on the log file of its build."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        if try_lock(file.fileno()) == "held":
            report("waiting for another process that builds Caffe", None)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _find(folder: Path, target: Interpreter) -> Path | None:
    """Return the cached wheel in a folder if there is one and this machine has the libraries that it needs."""
    return next((wheel for wheel in sorted(folder.glob("pycaffe-*.whl")) if not load_failure(wheel, target)), None)


def _install_prerequisites(distribution: Distribution, target: Interpreter, log: Log, report: Report) -> None:
    report("checking build prerequisites", None)
    if not distribution.debian:
        raise InstallError(
            f"install-caffe installs build prerequisites and Caffe's source from Debian, but this system is "
            f"{distribution.name}; install the equivalents of {', '.join(debian.PACKAGES)} and run: "
            f"multiseg install-caffe --no-prerequisites --source PATH"
        )
    missing = debian.missing_packages()
    if not target.headers:
        missing.append(f"python{target.version}-dev")
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
        report("copying libraries into the wheel", None)
        built = portable.make_portable(built, target, folder, log)
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


def _install(wheel: Path, target: Interpreter, log: Log, links: str | Path | None = None) -> None:
    """Install a wheel, its dependencies from the package index or from links, and verify that it can be imported."""
    pip: list[str | Path] = [target.path, "-m", "pip", "install", "--disable-pip-version-check"]
    if links is not None and (Path(links).is_dir() or "://" in str(links)):
        pip += ["--find-links", str(links)]
    try:
        # the first command replaces a pycaffe of the same version, the second installs its dependencies
        log.run([*pip, "--force-reinstall", "--no-deps", wheel], "installing pycaffe")
        log.run([*pip, wheel], "installing the dependencies of pycaffe")
        log.run([target.path, "-c", "import caffe"], "importing caffe", cwd=Path("/"))
    except InstallError as error:
        raise InstallError(f"{error}; the wheel is {wheel}") from None
