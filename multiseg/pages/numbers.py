"""Numbers as text for people."""

from __future__ import annotations

import math


def number(value: object) -> float | None:
    """The value as a float, or None where there is none or it is not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def significant(value: float, digits: int = 4) -> str:
    """The value with so many significant digits, without an exponent where it stays readable."""
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        decimals = 0 if value == 0 else max(0, digits - 1 - math.floor(math.log10(abs(value))))
        return f"{value:.{min(decimals, 6)}f}"
    return f"{value:.{digits - 1}g}"


def duration(seconds: float) -> str:
    """Seconds as people say them: 8.7 s, 2 min 05 s, 1 h 12 min."""
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"


def percent(value: float) -> str:
    return f"{100 * value:.2f} %"
