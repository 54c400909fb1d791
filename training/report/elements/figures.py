"""Numbers as a page writes them: three places for scores, significant digits for weights, "n/a" where there is none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any, TypeGuard

MINUS = "\u2212"
NONE = "n/a"


def defined(value: Any) -> TypeGuard[float]:
    """Whether a value is a finite number; results.json has null for what is not."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def score(value: Any) -> str:
    """A score between 0 and 1: "0.913"."""
    return f"{value:.3f}" if defined(value) else NONE


def signed(value: Any) -> str:
    """A difference: "+0.021", with a minus that is as wide as the plus."""
    return f"{value:+.3f}".replace("-", MINUS) if defined(value) else NONE


def bounds(interval: Mapping[str, Any] | None, sign: bool = False) -> str:
    """An interval: "0.871 to 0.942"; empty where undefined."""
    if not interval or not defined(interval.get("low")) or not defined(interval.get("high")):
        return ""
    form = signed if sign else score
    return f"{form(interval['low'])} to {form(interval['high'])}"


def significant(value: Any, digits: int = 3) -> str:
    """Significant digits, without the zeros of a very small number: "0.0174", "1.2e−05"."""
    return f"{value:.{digits}g}".replace("-", MINUS) if defined(value) else NONE


def percent(value: Any) -> str:
    """A share: "12%", "0.4%", and none or all only where it is."""
    if not defined(value):
        return NONE
    if value in (0, 1):
        return f"{value:.0%}"
    return (
        "under 0.1%"
        if value < 0.001
        else "over 99.9%"
        if value > 0.999
        else (f"{value:.1%}" if value < 0.1 or value > 0.9 else f"{value:.0%}")
    )


def whole(value: Any) -> str:
    """A count: "1,234"."""
    return f"{value:,.0f}" if defined(value) else NONE


def p_value(value: Any) -> str:
    """A corrected p: "0.012", "< 0.001"."""
    if not defined(value):
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between low and high, at most about `most`, for an axis."""
    if not high > low:
        return [low]
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= most)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]
