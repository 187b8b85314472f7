"""OpenBLAS's kernels for Intel processors that are newer than the library, in builds of pycaffe other than multiseg's.

OpenBLAS before 0.3.25, as in Debian 12, chooses its kernels by the processor's model. For a model of Intel's that it does not
know, such as Raptor Lake and Emerald Rapids, it uses those for Prescott, of 2004, without AVX
(https://github.com/OpenMathLib/OpenBLAS/issues/4267). OPENBLAS_CORETYPE names the kernels, and is read when the library is
loaded. docs/performance.md has what that gains.
"""

from __future__ import annotations

import os

from multiseg.worker.processor import is_intel, processor

CORE_TYPE = "OPENBLAS_CORETYPE"
# What OpenBLAS requires of the processors for which it uses the kernels itself; the first that applies.
KERNELS = {"SkylakeX": {"avx512f", "avx512dq", "avx512bw", "avx512vl"}, "Haswell": {"avx2", "fma"}}


def variables() -> dict[str, str]:
    """Return the environment variable that names the kernels for this processor; none if the user has set it."""
    if CORE_TYPE in os.environ or not is_intel():
        return {}
    flags = set(processor().get("flags", "").split())
    kernels = next((name for name, needed in KERNELS.items() if needed <= flags), None)
    return {} if kernels is None else {CORE_TYPE: kernels}
