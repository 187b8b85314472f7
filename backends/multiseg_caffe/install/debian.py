"""Debian's part of the installation: build prerequisites and Caffe's source."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from multiseg.errors import InstallError

from .process import Log

OS_RELEASE = Path("/etc/os-release")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# the only Debian release with Caffe's source that mirrors still provide
SOURCE_RELEASE = "bullseye"
SOURCE_VERSION = "1.0.0+git20180821.99bd997-8"
SOURCE_TARBALL = "caffe_1.0.0+git20180821.99bd997.orig.tar.gz"
SOURCE_SHA256 = "e0eb3f06794f7402c77b7dec8e8480273ee1a1bb192e9122b621a69d4147ad0c"

PACKAGES = (
    "cmake",
    "g++",
    "libboost-filesystem-dev",
    "libboost-thread-dev",
    "libgflags-dev",
    "libgoogle-glog-dev",
    "libhdf5-dev",
    "liblmdb-dev",
    "libprotobuf-dev",
    "ninja-build",
    "patch",
    "protobuf-compiler",
)


@dataclass(frozen=True)
class Distribution:
    """A Linux distribution, described by its os-release file."""

    name: str
    """Identifier and version in one word, e.g. ``debian12``."""
    debian: bool
    """Whether it is Debian or derived from it, so that apt and Debian's package names apply."""

    @classmethod
    def read(cls, os_release: Path) -> Distribution:
        """Read an os-release file; without one, the distribution is ``linux``."""
        if not os_release.is_file():
            return cls("linux", debian=False)
        words = shlex.split(os_release.read_text(encoding="utf-8"), comments=True)
        fields = dict(word.split("=", 1) for word in words if "=" in word)
        name = fields.get("ID", "linux")
        return cls(name + fields.get("VERSION_ID", ""), debian="debian" in (name, *fields.get("ID_LIKE", "").split()))


def missing_packages() -> list[str]:
    """Return the PACKAGES that are not installed. Raise InstallError if dpkg cannot be queried."""
    query = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *PACKAGES]
    try:
        answer = subprocess.run(query, capture_output=True, text=True).stdout.splitlines()
    except OSError:
        raise InstallError(
            "dpkg-query is not on the PATH, so the build prerequisites cannot be checked; add it to the PATH, or build "
            "with the installed packages: multiseg install-caffe --no-prerequisites"
        ) from None
    return [package for package in PACKAGES if f"{package} installed" not in answer]


def install_line(packages: Sequence[str]) -> str:
    """Return the command that installs packages manually."""
    return f"sudo apt-get update && sudo apt-get install --yes --no-install-recommends {' '.join(packages)}"


def install_packages(packages: Sequence[str], log: Log) -> None:
    """Install Debian packages. Raise InstallError, with the command to run manually, if that is not permitted or fails."""
    manual_command = f"install them with: {install_line(packages)}"
    if os.geteuid() == 0:
        become_root = []
    elif shutil.which("sudo") and subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode == 0:
        become_root = ["sudo", "-n"]
    else:
        raise InstallError(
            f"installing the missing Debian packages requires root or passwordless sudo; {manual_command}"
        )
    apt = [*become_root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--yes", "-o", "DPkg::Lock::Timeout=300"]
    try:
        log.run([*apt, "update"], "apt-get update")
        log.run([*apt, "install", "--no-install-recommends", *packages], "apt-get install")
    except InstallError as error:
        raise InstallError(f"the build prerequisites were not installed: {error}; {manual_command}") from None


def fetch_source(folder: Path, log: Log) -> Path:
    """Download Caffe's source into a folder, with an apt configuration entirely inside it; return the tarball.

    Raises InstallError if none of this machine's configured mirrors provides it.
    """
    mirrors = configured_mirrors()
    for number, mirror in enumerate(mirrors):
        try:
            return _fetch_from(mirror, folder / str(number), log)
        except InstallError as error:
            failure = str(error)
    reason = failure if mirrors else "apt has no Debian mirror configured, or `apt-get update` was never run"
    raise InstallError(
        f"Caffe's source could not be fetched: {reason}. It is the source package caffe {SOURCE_VERSION} of Debian's "
        f"release {SOURCE_RELEASE}; name a tarball or folder of it instead: multiseg install-caffe --source PATH"
    )


def configured_mirrors() -> list[str]:
    """The Debian mirrors in this machine's apt configuration, the one of the distribution itself first."""
    ask = ["apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages"]
    try:
        answer = subprocess.run(ask, capture_output=True, text=True).stdout.splitlines()
    except OSError:
        return []
    found = [uri for label, _, uri in (line.partition(" ") for line in answer) if label == "Debian"]
    return list(dict.fromkeys(found))


def _fetch_from(mirror: str, folder: Path, log: Log) -> Path:
    for name in ("lists/partial", "cache/archives/partial", "parts"):
        (folder / name).mkdir(parents=True)
    trust = f"[signed-by={KEYRING}] " if KEYRING.is_file() else ""
    (folder / "sources.list").write_text(f"deb-src {trust}{mirror} {SOURCE_RELEASE} main\n", encoding="utf-8")
    # Read after the system's configuration, whose proxies and certificates remain in effect. Its hooks would modify the
    # system's caches; the lists of an old release have expired; in its own folder root needs no sandbox user.
    config = folder / "apt.conf"
    config.write_text(
        f"""
        #clear APT::Update::Pre-Invoke;
        #clear APT::Update::Post-Invoke;
        #clear APT::Update::Post-Invoke-Success;
        Dir::Etc::SourceList "{folder}/sources.list";
        Dir::Etc::SourceParts "{folder}/parts";
        Dir::State::Lists "{folder}/lists";
        Dir::Cache "{folder}/cache";
        Acquire::Check-Valid-Until "false";
        Acquire::Languages "none";
        APT::Sandbox::User "";
        """,
        encoding="utf-8",
    )
    apt: list[str | Path] = ["apt-get", "--config-file", config]
    log.run([*apt, "update"], "reading the mirror's lists", cwd=folder)
    fetch = [*apt, "source", "--download-only", "--only-source", f"caffe={SOURCE_VERSION}"]
    log.run(fetch, "fetching the source package", cwd=folder)
    return folder / SOURCE_TARBALL
