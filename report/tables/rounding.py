"""The arithmetic of the tables: relative accuracy, averages, and rounding as the OC-VTP paper prints it."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Context, Decimal
from math import isfinite
from statistics import fmean

NOTHING = 1e-9
"""Below this a score is none that anything could be divided by."""
_ANY_SIZE = Context(prec=400)


def half_up(value: float | Decimal, digits: int) -> Decimal:
    """Round to `digits` decimals, halves upwards; binary noise below 1e-9 does not turn a half into less than one."""
    if not isfinite(value):
        return Decimal(value)
    return Decimal(f"{value:.9f}").quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP, _ANY_SIZE)


def paper(value: float) -> str:
    """Print one decimal; from 100 on, round what is left once more, to an integer.

    Both steps are needed: 100.466 is printed 101, by way of 100.5.

    Source: inferred from the tables of OC-VTP (arXiv 2511.20439), where it gives all 390 printed percentages.
    """
    if not isfinite(value):
        return str(value)
    tenths = half_up(value, 1)
    return str(half_up(tenths, 0) if tenths >= 100 else tenths)


def paper_spread(value: float, spread: float) -> str:
    """Print a mean with its spread, to the decimals of the mean."""
    return f"{paper(value)} ± {half_up(spread, 0 if half_up(value, 1) >= 100 else 1)}"


def relative(score: float | None, vanilla: float | None, higher_is_better: bool = True) -> float | None:
    """Score in per cent of the vanilla score, not rounded; None where either is missing or vanilla is 0, or next to it.

    Where less is better, what is more counts against 100 as it would count for it: 200 - 100 x score / vanilla.
    """
    if score is None or vanilla is None or abs(vanilla) < NOTHING:
        return None
    return 100 * score / vanilla if higher_is_better else 200 - 100 * score / vanilla


def average(ratios: Sequence[float | None]) -> tuple[float | None, int]:
    """Mean of the unrounded ratios that are there, and their number."""
    present = [ratio for ratio in ratios if ratio is not None]
    return (fmean(present) if present else None), len(present)
