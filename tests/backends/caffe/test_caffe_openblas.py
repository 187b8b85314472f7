"""Caffe's products use the kernels that OpenBLAS has for this processor, also where OpenBLAS does not know its model."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

import pytest
from multiseg_caffe import openblas

from multiseg import backend as registry
from multiseg.worker.client import environment
from multiseg.worker.processor import processor

AVX512 = "fpu sse2 avx fma avx2 avx512f avx512dq avx512cd avx512bw avx512vl"
CORE = """
import ctypes, caffe
path = next(line.split()[-1] for line in open("/proc/self/maps") if "openblas" in line and "/caffe/" in line)
library = ctypes.CDLL(path)
library.scipy_openblas_get_corename.restype = ctypes.c_char_p
print(library.scipy_openblas_get_corename().decode())
"""


@pytest.mark.parametrize(
    ("fields", "kernels"),
    [
        ({"vendor_id": "GenuineIntel", "flags": AVX512}, "SkylakeX"),
        ({"vendor_id": "GenuineIntel", "flags": "fpu sse2 avx fma avx2"}, "Haswell"),
        (
            {"vendor_id": "GenuineIntel", "flags": "fpu sse2 avx fma avx2 avx512f avx512cd"},
            "Haswell",
        ),  # Knights Landing
        ({"vendor_id": "GenuineIntel", "flags": "fpu sse2 avx"}, None),
        ({"vendor_id": "AuthenticAMD", "flags": AVX512}, None),
        ({}, None),
    ],
)
def test_kernels_by_the_processors_flags(
    fields: Mapping[str, str], kernels: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    for name in ("multiseg_caffe.openblas.processor", "multiseg.worker.processor.processor"):
        monkeypatch.setattr(name, lambda: fields)
    assert openblas.variables() == ({} if kernels is None else {"OPENBLAS_CORETYPE": kernels})


def test_the_users_choice_of_kernels_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Nehalem")
    assert openblas.variables() == {}


@pytest.mark.needs("caffe")
def test_a_worker_uses_kernels_with_the_processors_vectors() -> None:
    """Of pycaffe as `multiseg install-caffe` builds it, which brings OpenBLAS along."""
    caffe = registry.get("caffe")
    done = subprocess.run(
        [caffe.python, "-c", CORE], env=environment(caffe, 1), capture_output=True, text=True, check=True, timeout=60
    )
    if "avx2" in processor()["flags"].split():
        assert done.stdout.strip() in {"Haswell", "Zen", "SkylakeX", "Cooperlake", "SapphireRapids"}
    else:
        assert done.stdout.strip()
