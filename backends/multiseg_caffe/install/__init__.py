"""`multiseg install-caffe`: BVLC Caffe, built from source into a wheel that is kept, and installed."""

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
"""Is told each step as it begins, and while Caffe is built also how much of that is done (0 to 1)."""


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
    """Build pycaffe for a Python, or take the wheel built before, install it there, and return the wheel's path.

    Raises InstallError for whatever is missing or fails; a log is then named, and nothing else is left behind.

    source: tarball or folder of Caffe's source; by default Debian's source package, through apt.
    sha256: what the tarball's checksum must be.
    python: the interpreter to build for and install into; by default the running one.
    jobs: compilers at a time; by default one per core.
    force: build even where a wheel is kept.
    install: whether to install the wheel.
    wheel_dir: folder to also put the wheel into; the path returned is then the one there.
    prerequisites: whether to install Debian packages that the build needs, as root or with passwordless sudo.
    """
    target = Interpreter.probe(python or sys.executable)
    distribution = Distribution.read(debian.OS_RELEASE)
    origin = None if source is None else Path(source).expanduser().resolve()
    digest, local = _identify(origin, sha256)
    key = f"{digest[:16]}-{recipe_version()[:8]}-{target.tag}-{distribution.name}"
    kept = cache_folder() / key
    log = Log(kept.with_name(f"{key}.log"))

    wheel = None if force else _find(kept, target)
    if wheel is None:
        target.check_served(debian.served_pythons() if distribution.debian else [])
        if prerequisites:
            _install_prerequisites(distribution, log, report)
            target = Interpreter.probe(target.path)  # its headers may have come
            # and the libraries that a wheel kept from before was missing
            wheel = None if force else _find(kept, target)
    if wheel is None:
        check_tools()
        target.check_headers()
        try:
            wheel = _build(origin, local, target, kept, jobs or len(os.sched_getaffinity(0)), log, report)
        except InstallError as error:
            needs = "" if prerequisites else f"; on Debian the build needs: {debian.install_line(debian.PACKAGES)}"
            raise InstallError(f"{error}{needs}") from None
    if wheel_dir is not None:
        folder = Path(wheel_dir).expanduser().resolve()
        folder.mkdir(parents=True, exist_ok=True)
        wheel = Path(shutil.copy(wheel, folder))
    if install:
        report("installing pycaffe", None)
        _install(wheel, target, Log(kept.with_name(f"{key}.install.log")))
    return wheel


def cache_folder() -> Path:
    """Where wheels are kept: the user's cache, as XDG has it."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "multiseg" / "caffe"


def _identify(origin: Path | None, sha256: str | None) -> tuple[str, str]:
    """A source's checksum and the mark that it gives the wheel's version."""
    if origin is None:
        if sha256 is not None:
            raise InstallError("--sha256 goes with --source: the checksum of Debian's source is known")
        return debian.SOURCE_SHA256, "bvlc.99bd997"
    digest = checksum(origin)
    if sha256 is not None:
        if origin.is_dir():
            raise InstallError(f"{origin}: --sha256 is for a tarball, and this is a folder")
        verify(origin, sha256)
    return digest, "bvlc.99bd997" if digest == debian.SOURCE_SHA256 else f"source.{digest[:8]}"


def _find(folder: Path, target: Interpreter) -> Path | None:
    """The wheel kept in a folder, where there is one and this machine has the libraries that it needs."""
    return next((wheel for wheel in sorted(folder.glob("pycaffe-*.whl")) if not load_failure(wheel, target)), None)


def _install_prerequisites(distribution: Distribution, log: Log, report: Report) -> None:
    report("looking for what the build needs", None)
    if not distribution.debian:
        raise InstallError(
            f"install-caffe takes what the build needs, and Caffe's source, from Debian, and this system is "
            f"{distribution.name}; install the likes of these yourself ({', '.join(debian.PACKAGES)}) and run: "
            f"multiseg install-caffe --no-prerequisites --source PATH"
        )
    missing = debian.missing_packages()
    if missing:
        report(f"installing Debian packages ({len(missing)})", None)
        debian.install_packages(missing, log)


def _build(
    origin: Path | None, local: str, target: Interpreter, kept: Path, jobs: int, log: Log, report: Report
) -> Path:
    """Build in a temporary folder and move the finished wheel to where it is kept."""
    kept.parent.mkdir(parents=True, exist_ok=True)
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
            raise InstallError(f"pycaffe was built and does not load: {failure} (the full log is {log.path})")
        # into the cache under a passing name first: the cache may be on another disk than the temporary folder
        kept.mkdir(exist_ok=True)
        passing = kept / f".{os.getpid()}"
        try:
            shutil.copyfile(built, passing)
            return passing.replace(kept / built.name)
        finally:
            passing.unlink(missing_ok=True)


def _install(wheel: Path, target: Interpreter, log: Log) -> None:
    """Install a wheel and see that it imports."""
    pip: list[str | Path] = [target.path, "-m", "pip", "install", "--disable-pip-version-check"]
    try:
        # the first replaces a pycaffe of the same version, the second brings what it depends on
        log.run([*pip, "--force-reinstall", "--no-deps", wheel], "installing pycaffe")
        log.run([*pip, wheel], "installing what pycaffe depends on")
        log.run([target.path, "-c", "import caffe"], "importing caffe", cwd=Path("/"))
    except InstallError as error:
        raise InstallError(f"{error}; the wheel is {wheel}") from None
