"""Schedules inside the language model: where cuts lie, what they can reach, and solving them for an average."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from math import ceil
from typing import TypeVar

from vtpbench.pruners.base import Cut, ModelShape, average_in
from vtpbench.pruners.errors import BadOption, Infeasible, Unsupported

REFERENCE_LAYERS, REFERENCE_TOKENS = 32, 576
"""LLaVA-1.5-7B, for which the papers give their schedules."""

T = TypeVar("T")


def boundaries(reference: tuple[int, ...], shape: ModelShape) -> tuple[int, ...]:
    """Move boundaries of a 32-layer decoder to another depth: same fractions, strictly ascending, the first at least 1.

    Raises `Infeasible` where the decoder has too few layers for them.
    """
    found: list[int] = []
    for layer in reference:
        found.append(max(found[-1] + 1 if found else 1, shape.decoder_layer(layer / REFERENCE_LAYERS)))
    if found[-1] >= shape.decoder_layers:
        raise Infeasible(f"{len(found)} cuts need a decoder of more than {found[-1]} layers; this one has {shape.decoder_layers}")
    return tuple(found)


def require_reachable(budget: int, lowest: tuple[Cut, ...], n: int, shape: ModelShape, name: str) -> None:
    """Raise `Infeasible` where a budget is below the average of a method's smallest schedule, `lowest`."""
    layers = shape.decoder_layers
    floor = average_in(lowest, n, layers)
    if budget < floor:
        raise Infeasible(
            f"{name} keeps all {n} tokens in {lowest[0].at} of {layers} layers: at least {ceil(floor)} on average, not {budget}"
        )


def require_inside(layer: int, shape: ModelShape, name: str) -> None:
    """Raise `Infeasible` where no decoder layer is left behind a cut."""
    if layer >= shape.decoder_layers:
        left = f"cuts behind the last of {shape.decoder_layers} layers"
        raise Infeasible(f"{name} with layer={layer} {left}; use a smaller layer")


def single_cut(layer: int, budget: int, n: int, shape: ModelShape, name: str) -> tuple[Cut, ...]:
    """Cut once: (layer * n + (layers - layer) * keep) / layers = budget, `keep` to the nearest; raises `Infeasible`."""
    layers = shape.decoder_layers
    require_inside(layer, shape, name)
    require_reachable(budget, (Cut(layer, 1),), n, shape, f"{name} with layer={layer}")
    keep = round((layers * budget - layer * n) / (layers - layer))
    return (Cut(layer, min(n, max(1, keep))),)


def published(lists: Mapping[int, T], budget: int, n: int, shape: ModelShape, name: str) -> T:
    """Look up the authors' schedule for a nominal budget; raises `Infeasible` where they give none."""
    if n == REFERENCE_TOKENS and shape.decoder_layers == REFERENCE_LAYERS and budget in lists:
        return lists[budget]
    known = ", ".join(map(str, sorted(lists, reverse=True)))
    raise Infeasible(
        f"{name} has published schedules for {known} of {REFERENCE_TOKENS} tokens in {REFERENCE_LAYERS} layers only, "
        f"not for {budget} of {n} in {shape.decoder_layers}; use schedule 'fair'"
    )


def bracket(average: Callable[[float], float], target: float, high: float) -> tuple[float, float]:
    """Neighbouring arguments in [0, high] of a rising function, just below `target` and at least `target`.

    Where the function stays below `target`, the second is `high`, exactly.
    """
    low = 0.0
    for _ in range(64):
        middle = (low + high) / 2
        low, high = (middle, high) if average(middle) < target else (low, middle)
    return low, high


def within(average: float, budget: float) -> bool:
    """Whether an average counts as a budget met: to 1 token or 1 %, whichever is more."""
    return abs(average - budget) <= max(1.0, 0.01 * budget)


def met(average: float, expected: float, *, adaptive: bool) -> bool:
    """Whether the tokens that entered a layer, on average, are those that were due; an adaptive pruner may keep fewer."""
    return within(average, expected) or (adaptive and average < expected)


def one_of(option: str, value: object, allowed: Collection[object]) -> None:
    """Raise `BadOption` where an option has none of its values."""
    if value not in allowed:
        raise BadOption(option, f"option {option}={value!r}: use {' or '.join(map(repr, allowed))}")


def refuse_renumbering(shape: ModelShape, name: str) -> None:
    """Raise `Unsupported` where positions have several axes, so that what stays cannot be numbered 0, 1, 2 ..."""
    if shape.multi_axis_positions:
        raise Unsupported(f"{name} renumbers positions, but this model's have several axes; use positions 'keep'")
