"""Format numbers for display."""

from __future__ import annotations

import math


def number(value: object) -> float | None:
    """Return the value as a float; None if it is not a number or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        result = float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return None
    return result if math.isfinite(result) else None


def significant(value: float, digits: int = 4) -> str:
    """Format a value with ``digits`` significant digits; without an exponent from 0.001 to below a million."""
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        decimals = 0 if value == 0 else max(0, digits - 1 - math.floor(math.log10(abs(value))))
        return f"{value:.{min(decimals, 6)}f}"
    return f"{value:.{digits - 1}g}"


def duration(seconds: float) -> str:
    """Format a duration in seconds: 8.7 s, 2 min 05 s, 1 h 12 min."""
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, remaining_seconds = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {remaining_seconds:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"


def percent(value: float) -> str:
    """Format a fraction as a percentage."""
    return f"{100 * value:.2f} %"
