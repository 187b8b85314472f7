"""A network in float64, by its neutral description alone, with bounds of what computing it in float32 may differ by.

Forward, backward, loss and the solvers of the recipe ``equal``, in NumPy and independent of every framework: what parity is
checked against. Each value carries a bound of its float32 counterpart's error, which follows from the lengths of the sums that
make it (multiseg.reference.bounded); so a tolerance is derived for every number, not chosen.
"""

from multiseg.reference.bounded import Bounded, exact, gamma
from multiseg.reference.network import NotComputable, Trace, backward, forward

__all__ = ["Bounded", "NotComputable", "Trace", "backward", "exact", "forward", "gamma"]
