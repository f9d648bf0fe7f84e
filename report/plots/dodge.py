"""Points of one place beside each other, so that none hides another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def dodge(places: Mapping[str, Sequence[float]], near: float, step: float) -> dict[str, list[float]]:
    """Move points of different lines that are `near` each other apart, `step` from one to the next, around their middle.

    Parameters
    ----------
    places : x of the points of each line, in the units of `near` and `step`; those of a line keep their order

    """
    points = sorted((x, number, i) for number, own in enumerate(places.values()) for i, x in enumerate(own))
    moved = [list(own) for own in places.values()]
    together: list[tuple[float, int, int]] = []
    for point in points:
        if together and point[0] - together[-1][0] > near:
            _spread(together, step, moved)
            together = []
        together.append(point)
    _spread(together, step, moved)
    return dict(zip(places, moved, strict=True))


def _spread(together: Sequence[tuple[float, int, int]], step: float, moved: Sequence[list[float]]) -> None:
    """Place a group of points beside each other, in the order of their lines."""
    if len(together) < 2:
        return
    middle = sum(x for x, _, _ in together) / len(together)
    for place, (_, number, i) in enumerate(sorted(together, key=lambda point: point[1:])):
        moved[number][i] = middle + (place - (len(together) - 1) / 2) * step
