"""`multiseg install-caffe` without building: what it refuses, with which words, what it keeps and leaves behind.

The build itself is run by the test environments that need Caffe. Here the machine is faked, not the installer: folders
of small programs as the PATH, other os-release files, another XDG cache.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from multiseg_caffe.install import build, cache_folder, debian, install_caffe, source
from multiseg_caffe.install.interpreter import Interpreter
from multiseg_caffe.install.process import Log, error_line

from multiseg.cli import main
from multiseg.errors import InstallError

Program = Callable[..., None]
BUILD_TOOLS = ("c++", "cmake", "ninja", "patch", "protoc")
READELF = shutil.which("readelf")
PYTHON = sys.executable
VERSION = "{}.{}".format(*sys.version_info)


def answer_of(**differences: object) -> str:
    """A script that answers like a Python that would do, but for the differences."""
    python = {"implementation": "cpython", "version": VERSION, "platform": "linux_x86_64", "headers": True, "pip": True}
    return f"echo '{json.dumps(python | differences)}'"


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Debian with an empty PATH, an empty cache, and a Python with headers and pip; its folder."""
    for folder in ("bin", "tmp", "cache"):
        (tmp_path / folder).mkdir()
    (tmp_path / "os-release").write_text('ID=debian\nVERSION_ID="12"\n')
    (tmp_path / "python").write_text(f"#!/bin/sh\n{answer_of()}\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(debian, "OS_RELEASE", tmp_path / "os-release")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


@pytest.fixture
def program(machine: Path) -> Program:
    """Puts programs on the PATH; each is a shell script of one line."""

    def put(*names: str, does: str = "exit 0") -> None:
        for name in names:
            script = machine / "bin" / name
            script.write_text(f"#!/bin/sh\n{does}\n")
            script.chmod(0o755)

    return put


@pytest.fixture
def caffe_source(machine: Path) -> Path:
    """A folder that looks like Caffe's source."""
    for name in source.MARKS:
        file = machine / "caffe" / name
        file.parent.mkdir(parents=True)
        file.write_text("// Caffe\n")
    return machine / "caffe"


def everything_installed(program: Program) -> None:
    program("dpkg-query", does="; ".join(f"echo {package} installed" for package in debian.PACKAGES))
    program(*BUILD_TOOLS)


def keep_a_wheel(key: str, **members: str | bytes) -> Path:
    folder = cache_folder() / key
    folder.mkdir(parents=True)
    wheel = folder / "pycaffe-1.0.0-cp3-cp3-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in ({"caffe/__init__.py": ""} | members).items():
            archive.writestr(name, data)
    return wheel


def key_of(digest: str, python: str = "") -> str:
    tag = Interpreter.probe(python or sys.executable).tag
    return f"{digest[:16]}-{build.recipe_version()[:8]}-{tag}-debian12"


def refused(*args: object, **settings: object) -> str:
    with pytest.raises(InstallError) as caught:
        install_caffe(*args, **settings)  # type: ignore[arg-type]
    return str(caught.value)


# what is missing, and how to install it


def test_no_compiler(program: Program) -> None:
    message = refused(prerequisites=False)
    assert "c++, cmake, ninja, patch, protoc" in message
    assert "apt-get install --yes --no-install-recommends g++ cmake ninja-build patch protobuf-compiler" in message
    program("cmake", "ninja", "patch", "protoc")
    assert "needs c++, not found on the PATH" in refused(prerequisites=False)


def test_not_a_debian_system(machine: Path) -> None:
    (machine / "os-release").write_text('NAME="Fedora Linux"\nID=fedora\nVERSION_ID=41\n')
    message = refused()
    assert "this system is fedora41" in message
    assert "--no-prerequisites --source" in message
    assert "libboost-filesystem-dev" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('ID=debian\nVERSION_ID="12"\n', debian.Distribution("debian12", True)),
        ('# a comment\nID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n', debian.Distribution("ubuntu24.04", True)),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n', debian.Distribution("rocky9.4", False)),
        ("ID=arch\n", debian.Distribution("arch", False)),
        (None, debian.Distribution("linux", False)),
    ],
)
def test_distribution(tmp_path: Path, text: str | None, expected: debian.Distribution) -> None:
    file = tmp_path / "release"
    if text is not None:
        file.write_text(text)
    assert debian.Distribution.read(file) == expected


def test_no_dpkg(machine: Path) -> None:
    assert "dpkg-query is not on the PATH" in refused()


@pytest.mark.parametrize("sudo", ["none", "asks for a password"])
def test_no_right_to_install(program: Program, monkeypatch: pytest.MonkeyPatch, sudo: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    program("dpkg-query", does="echo cmake installed; echo g++ config-files; exit 1")
    if sudo != "none":
        program("sudo", does="exit 1")
    message = refused()
    assert "requires root or passwordless sudo" in message
    missing = " ".join(package for package in debian.PACKAGES if package != "cmake")
    assert message.endswith(f"sudo apt-get update && sudo apt-get install --yes --no-install-recommends {missing}")


@pytest.mark.parametrize("user", [0, 1000])
def test_missing_packages_are_installed_where_that_is_allowed(
    machine: Path, program: Program, monkeypatch: pytest.MonkeyPatch, user: int
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    program("dpkg-query", does="exit 1")
    program("sudo", does='shift; [ "$1" = true ] || "$@"')
    program("env", does='shift; exec "$@"')
    program("apt-get", does=f'echo "$*" >> {machine}/apt-calls')
    steps: list[str] = []
    refused(report=lambda step, done: steps.append(step))  # no compiler comes from this apt-get
    update, install = (machine / "apt-calls").read_text().splitlines()
    assert update.endswith(" update")
    assert install.endswith(f" install --no-install-recommends {' '.join(debian.PACKAGES)}")
    assert steps == ["checking build prerequisites", f"installing Debian packages ({len(debian.PACKAGES)})"]


def test_an_installation_of_packages_that_fails_says_why(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    program("dpkg-query", does="exit 1")
    program("env", does="echo 'Reading package lists...'; echo 'E: Unable to locate package cmake'; exit 100")
    message = refused()
    assert "E: Unable to locate package cmake" in message
    assert "sudo apt-get install" in message
    assert ".log" in message


@pytest.mark.parametrize(
    ("does", "expected"),
    [
        ("exit 1", "not a working Python interpreter"),
        ("echo oh dear >&2; exit 1", "oh dear"),
        (answer_of(implementation="pypy"), "needs CPython, but this is pypy"),
        (answer_of(pip=False), "-m ensurepip"),
    ],
)
def test_a_python_that_will_not_do(machine: Path, program: Program, does: str, expected: str) -> None:
    program("python", does=does)
    assert expected in refused(python=machine / "bin" / "python")


def test_a_python_without_its_headers(machine: Path, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    everything_installed(program)
    program("python", does=answer_of(headers=False))
    program("env", does=f'echo "$*" >> {machine}/apt-calls')
    assert "Python.h" in refused(python=machine / "bin" / "python")  # this apt-get installs nothing
    assert (machine / "apt-calls").read_text().endswith(f" install --no-install-recommends python{VERSION}-dev\n")


def test_a_python_that_is_not_there(machine: Path) -> None:
    assert "no such Python interpreter" in refused(python=machine / "nowhere")


# the source


def test_a_checksum_that_does_not_match(machine: Path) -> None:
    tarball = machine / "caffe.tar.gz"
    with tarfile.open(tarball, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("README"), io.BytesIO())
    message = refused(tarball, sha256="0" * 64)
    assert str(tarball) in message
    assert hashlib.sha256(tarball.read_bytes()).hexdigest() in message
    assert "0" * 64 in message


def test_a_fetched_source_that_is_another_one(machine: Path, program: Program) -> None:
    everything_installed(program)
    fake = f'case "$*" in indextargets*) echo "Debian mirror";; *source*) : > {debian.SOURCE_TARBALL};; esac'
    program("apt-get", does=fake)
    message = refused()
    assert hashlib.sha256().hexdigest() in message
    assert debian.SOURCE_SHA256 in message


def test_a_checksum_is_for_a_tarball(caffe_source: Path) -> None:
    assert "applies to a tarball" in refused(caffe_source, sha256="0" * 64)
    assert "requires --source" in refused(sha256="0" * 64)


def test_no_such_source(machine: Path) -> None:
    assert f"{machine / 'caffe.tar.gz'}: no such tarball or folder" in refused(machine / "caffe.tar.gz")


def test_not_a_source_of_caffe(machine: Path, program: Program) -> None:
    everything_installed(program)
    (machine / "other").mkdir()
    assert "it has no src/caffe/proto/caffe.proto" in refused(machine / "other")
    (machine / "other.tar.gz").write_bytes(b"not a tarball")
    assert "not a readable tarball" in refused(machine / "other.tar.gz")


@pytest.mark.parametrize("top", ["", "caffe-1.0/"])
def test_a_tarball_with_and_without_a_folder_at_its_top(machine: Path, caffe_source: Path, top: str) -> None:
    with tarfile.open(machine / "caffe.tar.xz", "w:xz") as archive:
        archive.add(caffe_source, arcname=top or ".")
    found = source.unpack(machine / "caffe.tar.xz", machine / "unpacked")
    assert found == machine / "unpacked" / top
    assert all((found / mark).is_file() for mark in source.MARKS)


def test_a_folder_is_known_by_what_it_holds(caffe_source: Path) -> None:
    before = source.checksum(caffe_source)
    (caffe_source / ".git").mkdir()
    (caffe_source / ".git" / "HEAD").write_text("ref")
    (caffe_source / "python" / "caffe" / "_caffe.so").write_text("built earlier")
    assert source.checksum(caffe_source) == before
    (caffe_source / source.MARKS[0]).write_text("// changed\n")
    assert source.checksum(caffe_source) != before


def test_no_mirror_that_holds_the_source(machine: Path, program: Program) -> None:
    everything_installed(program)
    program("apt-get", does="")
    assert "apt has no Debian mirror configured" in refused()
    lists = 'echo "Debian mirror-a"; echo "Debian mirror-b"; echo "Debian-Security security"; echo "Debian mirror-a"'
    program(
        "apt-get", does=f'[ "$1" = indextargets ] || {{ cat {machine}/tmp/*/apt/*/sources.list; exit 100; }}; {lists}'
    )
    program("cat", does='/bin/cat "$@"')
    message = refused()
    assert f"release {debian.SOURCE_RELEASE}" in message
    assert "multiseg install-caffe --source PATH" in message
    (log,) = cache_folder().glob("*.log")
    assert "mirror-a bullseye main" in log.read_text()
    assert "mirror-b bullseye main" in log.read_text()
    assert "security bullseye" not in log.read_text()


# what is kept, and what is left behind


def test_a_kept_wheel_is_taken_and_nothing_is_built(machine: Path) -> None:
    wheel = keep_a_wheel(key_of(debian.SOURCE_SHA256))
    assert install_caffe(install=False) == wheel  # with an empty PATH: no build could run
    copy = install_caffe(install=False, wheel_dir=machine / "wheels")
    assert copy == machine / "wheels" / wheel.name
    assert copy.read_bytes() == wheel.read_bytes()
    assert "not found on the PATH" in refused(force=True, prerequisites=False, install=False)


def test_a_wheel_is_kept_for_its_source_python_and_recipe(caffe_source: Path) -> None:
    keep_a_wheel(key_of(debian.SOURCE_SHA256))
    assert "not found on the PATH" in refused(caffe_source, prerequisites=False)
    wheel = keep_a_wheel(key_of(source.checksum(caffe_source)))
    assert install_caffe(caffe_source, install=False) == wheel


def test_a_kept_wheel_whose_libraries_are_gone_is_not_taken() -> None:
    keep_a_wheel(key_of(debian.SOURCE_SHA256, PYTHON), **{"caffe/_caffe.so": b"not loadable"})
    assert "not found on the PATH" in refused(python=PYTHON, prerequisites=False, install=False)


def test_a_failed_build_leaves_nothing_but_the_log_that_it_names(
    machine: Path, caffe_source: Path, program: Program
) -> None:
    everything_installed(program)
    program("patch", does="echo '1 out of 1 hunk FAILED'; exit 1")
    before = sorted(caffe_source.rglob("*"))
    message = refused(caffe_source)
    assert "1-protobuf.patch failed: 1 out of 1 hunk FAILED" in message
    (left,) = [path for path in cache_folder().rglob("*") if path.is_file()]
    assert str(left) in message
    assert "$ patch " in left.read_text()
    assert list((machine / "tmp").iterdir()) == []
    assert sorted(caffe_source.rglob("*")) == before


def test_a_patch_is_left_out_where_it_is_there_already_or_is_optional_and_does_not_fit(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.defpath)
    (machine / "top").mkdir()
    line = machine / "top" / "line"
    for name in ("1.patch", "1.optional.patch"):
        (machine / name).write_text("Why.\n\n--- a/line\n+++ b/line\n@@ -1 +1 @@\n-old\n+new\n")
    for before, after in (("old\n", "new\n"), ("new\n", "new\n"), ("other\n", "other\n")):
        line.write_text(before)
        build._apply(machine / "1.optional.patch", machine / "top", Log(machine / "log"))
        assert line.read_text() == after
        assert list((machine / "top").iterdir()) == [line]
    with pytest.raises(InstallError, match=r"1\.patch"):
        build._apply(machine / "1.patch", machine / "top", Log(machine / "log"))


def test_an_interrupted_program_is_ended(tmp_path: Path) -> None:
    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    count = "import time; print(1, flush=True); time.sleep(600)"
    with contextlib.suppress(KeyboardInterrupt):  # returns at once, not in ten minutes
        Log(tmp_path / "log").run([PYTHON, "-c", count], "counting", on_line=interrupt)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], "it printed nothing"),
        (["one\n", "two\n", "\n"], "two"),
        (["Reading...\n", "E: no network\n", "W: old lists\n"], "E: no network"),
        (["  io.cpp:57:3: error: no such member\n", "ninja: stopped\n"], "io.cpp:57:3: error: no such member"),
        (["CMake Error at CMakeLists.txt:13:\n", "  no HDF5\n", "\n"], "CMake Error at CMakeLists.txt:13: no HDF5"),
    ],
)
def test_the_line_that_tells_why_a_program_failed(lines: list[str], expected: str) -> None:
    assert error_line(lines) == expected


def test_the_recipe_comes_with_the_package() -> None:
    assert (build.RECIPE / "CMakeLists.txt").is_file()
    assert "+LOCAL" in (build.RECIPE / "pyproject.toml").read_text()
    assert "PYBIND11_MODULE" in (build.RECIPE / "_caffe.cpp").read_text()
    assert [patch.name[0] for patch in sorted(build.RECIPE.glob("patches/*.patch"))] == list("123456789")
    assert [layer.name for layer in sorted(build.RECIPE.glob("layers/*"))] == [
        f"{name}_layer.cpp" for name in ("bn", "interp", "spatial_dropout", "upsample")
    ]


# what was built, where it is installed


@pytest.mark.needs("caffe")
def test_the_module_needs_no_library_outside_its_wheel() -> None:
    """The wheel contains its libraries: the module looks for them beside itself, and needs but the C and C++ libraries."""
    caffe = importlib.util.find_spec("caffe")
    assert caffe is not None and caffe.origin is not None
    assert READELF, "readelf is not on the PATH; install binutils"
    (module,) = Path(caffe.origin).parent.glob("_caffe*.so")
    folders = {"$ORIGIN": module.parent, "$ORIGIN/../pycaffe.libs": module.parents[1] / "pycaffe.libs"}
    own = {path.name for folder in folders.values() for path in folder.iterdir()}
    dynamic = subprocess.run([READELF, "--dynamic", module], capture_output=True, text=True, check=True).stdout
    needed = set(re.findall(r"NEEDED.*\[(.+)\]", dynamic))
    assert "libscipy_openblas.so" in needed & own
    assert {name.split("-")[0] for name in needed & own} >= {"libhdf5_serial", "liblmdb", "libprotobuf"}
    assert {name.split(".")[0] for name in needed - own} <= {
        "libstdc++",
        "libm",
        "libgcc_s",
        "libc",
        "libz",
        "ld-linux-x86-64",
    }
    (path,) = re.findall(r"(?:RPATH|RUNPATH).*\[(.+)\]", dynamic)
    assert set(path.split(":")) == set(folders)


@pytest.mark.needs("caffe")
def test_the_licences_of_the_libraries_are_in_the_wheel() -> None:
    files = importlib.metadata.files("pycaffe")
    assert files is not None
    names = {file.name for file in files if "licenses" in file.parts}
    assert "LICENSE" in names
    for library in (
        "libhdf5",
        "liblmdb",
        "libprotobuf",
        "openblas",
    ):  # a release's version follows in the package's name
        assert any(name.startswith(library) for name in names)


@pytest.mark.needs("caffe")
def test_pycaffe_has_its_layers_and_runs_with_todays_numpy() -> None:
    code = """if True:
        import caffe, numpy, sys
        layers = {"Convolution", "Deconvolution", "Eltwise", "Reduction", "Data", "Python"}
        assert layers <= set(caffe.layer_type_list())
        image = numpy.arange(12, dtype=numpy.uint8).reshape(1, 3, 4)
        again = caffe.io.datum_to_array(caffe.io.array_to_datum(image))
        assert (again == image).all() and again.flags.writeable
        assert "skimage" not in sys.modules
    """
    subprocess.run([PYTHON, "-c", code], check=True, cwd="/")


# wheels that were built before


def put_wheel(folder: Path, tag: str = "py3-none-any", **members: str | bytes) -> Path:
    """A wheel of a pycaffe that pip accepts."""
    folder.mkdir(exist_ok=True)
    wheel = folder / f"pycaffe-1.0.0-{tag}.whl"
    information = {"METADATA": "Metadata-Version: 2.1\nName: pycaffe\nVersion: 1.0.0\n", "RECORD": ""}
    information["WHEEL"] = f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in ({"caffe/__init__.py": ""} | members).items():
            archive.writestr(name, data)
        for name, text in information.items():
            archive.writestr(f"pycaffe-1.0.0.dist-info/{name}", text)
    return wheel


@pytest.mark.parametrize("form", ["folder", "wheel", "page"])
def test_a_wheel_is_taken_from_where_it_is_kept(machine: Path, form: str) -> None:
    wheel = put_wheel(machine / "kept")
    origin = {"folder": wheel.parent, "wheel": wheel, "page": wheel.parent.as_uri() + "/"}[form]
    assert install_caffe(wheels=origin, install=False, python=PYTHON).read_bytes() == wheel.read_bytes()
    copy = install_caffe(wheels=origin, install=False, wheel_dir=machine / "wheels", python=PYTHON)
    assert copy == machine / "wheels" / wheel.name
    assert copy.read_bytes() == wheel.read_bytes()


def test_no_wheel_for_this_python(machine: Path) -> None:
    wheel = put_wheel(machine / "kept", tag="cp27-cp27m-linux_x86_64")
    message = refused(wheels=wheel.parent, python=PYTHON)
    assert f"{wheel.parent}: has no wheel of pycaffe for cp" in message
    assert "--no-install --wheel-dir DIR" in message
    assert "no such folder or wheel" in refused(wheels=machine / "nowhere", python=PYTHON)


def test_a_kept_wheel_that_does_not_load_is_not_installed(machine: Path) -> None:
    put_wheel(machine / "kept", **{"caffe/_caffe.so": b"not loadable"})
    message = refused(wheels=machine / "kept", python=PYTHON)
    assert "pycaffe-1.0.0-py3-none-any.whl, from" in message
    assert "does not load here" in message


def test_from_excludes_a_build(machine: Path, caffe_source: Path) -> None:
    assert "use either" in refused(caffe_source, wheels=machine)
    assert "use either" in refused(wheels=machine, force=True)


def test_a_second_process_waits_for_the_build_of_the_first(program: Program, caffe_source: Path) -> None:
    everything_installed(program)
    key = key_of(source.checksum(caffe_source))
    log = cache_folder() / f"{key}.log"
    log.parent.mkdir(parents=True)
    steps: list[str] = []

    def report(step: str, done: float | None) -> None:
        steps.append(step)
        if step.startswith("waiting"):  # the first process ends, with a wheel
            keep_a_wheel(key)
            fcntl.flock(first, fcntl.LOCK_UN)

    with log.open("a") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        wheel = install_caffe(caffe_source, install=False, report=report)
    assert wheel.parent.name == key
    assert steps[-1] == "waiting for another process that builds Caffe"


# the command


def test_the_command_says_it_in_one_line(machine: Path) -> None:
    result = CliRunner().invoke(main, ["install-caffe", "--source", str(machine / "nowhere")])
    assert result.exit_code == 2
    assert result.output == f"multiseg: {machine / 'nowhere'}: no such tarball or folder of Caffe's source\n"


def test_the_command_speaks_json() -> None:
    wheel = keep_a_wheel(key_of(debian.SOURCE_SHA256))
    result = CliRunner().invoke(main, ["install-caffe", "--no-install", "--json"])
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert answer.pop("seconds") < 60
    assert answer == {"wheel": str(wheel), "built": False, "installed": False}
