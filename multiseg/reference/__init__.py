"""Compute a described network in float64, with bounds of the rounding error of the same computation in float32.

Forward pass, backward pass, losses and the solvers of the recipe ``equal``, in NumPy and independent of every framework: the
reference of parity checks. Each value has a bound of the error of its float32 counterpart, which follows from the lengths of the
sums that produce it (multiseg.reference.bounded). Tolerances are therefore derived for each number, not chosen.
"""

from multiseg.reference.bounded import Bounded, exact, gamma
from multiseg.reference.network import NotComputable, Trace, backward, backward_by_use, forward

__all__ = ["Bounded", "NotComputable", "Trace", "backward", "backward_by_use", "exact", "forward", "gamma"]
