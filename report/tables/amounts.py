"""Numbers of any size in few characters: significant digits without an exponent, operations in a unit that suits them."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True)
class Operations:
    """A unit of floating point operations."""

    name: str
    of_tera: float
    """How many make 10^12 operations."""


TERA, GIGA, MEGA = Operations("TFLOPs", 1), Operations("GFLOPs", 1e3), Operations("MFLOPs", 1e6)
FEWEST = 0.1
"""Smallest number that a unit is used for."""


def unit_for(tera: float, largest: Operations = TERA) -> Operations:
    """Choose the largest unit in which `tera` times 10^12 operations are no tiny number; none are counted in the largest."""
    units = [unit for unit in (TERA, GIGA, MEGA) if unit.of_tera >= largest.of_tera]
    return next((unit for unit in units if tera == 0 or tera * unit.of_tera >= FEWEST), MEGA)


def significant(value: float, digits: int) -> str:
    """Print so many significant digits, or all those before the point where there are more."""
    return f"{value:.0f}" if value >= 10**digits - 0.5 else format(Decimal(f"{value:.{digits}g}"), "f")


def milliseconds(value: float) -> str:
    """Print three significant digits."""
    return significant(value, 3)
