"""Keys and values of a batch in buffers with room for the answer, so that no step copies what earlier ones have cached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

ROOM = 32
"""Columns that a buffer has at least behind what is written when it is made: most answers are short."""

Buffers = tuple[Tensor, ...]
"""Two, for keys and values of one layer, `(rows, key heads, columns, head dim)` each."""
Allocate = Callable[[Tensor, Tensor, int], Buffers]
"""Gives buffers for keys and values like those that are shown, for at least so many columns."""


def with_room(keys: Tensor, values: Tensor, columns: int) -> Buffers:
    """Make buffers for a quarter more than so many columns, and at least for `ROOM` more."""
    return exact(keys, values, columns + max(ROOM, columns // 4))


def exact(keys: Tensor, values: Tensor, columns: int) -> Buffers:
    """Make buffers for so many columns and no more."""
    return _empty(keys, columns), _empty(values, columns)


class BufferedLayer(DynamicLayer):  # type: ignore[misc] # transformers is untyped
    """One decoder layer's share of the cache, behind a cut as long as what stays there.

    `keys` and `values` are `(rows, key heads, columns so far, head dim)`, views of buffers. Their first buffers are what
    `allocate` gives; when those are full they go on in larger ones.
    """

    keys: Tensor | None
    values: Tensor | None

    def __init__(self, allocate: Allocate = with_room) -> None:
        super().__init__()
        self._allocate = allocate
        self._buffers: Buffers | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Buffers:
        """Write columns behind those that are there; gives all."""
        columns = self.get_seq_length() + key_states.shape[-2]
        buffers = self._buffers
        if buffers is None or columns > buffers[0].shape[-2]:
            buffers = self.reserve(key_states, value_states, columns)
        for buffer, states in zip(buffers, (key_states, value_states), strict=True):
            buffer[..., columns - states.shape[-2] : columns, :] = states
        return self.show(buffers, columns)

    def reserve(self, key_states: Tensor, value_states: Tensor, columns: int) -> Buffers:
        """Go on in buffers for rows of states like these, and at least so many columns."""
        allocate = self._allocate if self._buffers is None else with_room
        buffers = allocate(key_states, value_states, columns)
        self._go_on_in(buffers)
        return buffers

    def move(self, buffers: Buffers) -> None:
        """Copy what is cached into buffers, which may lie over the present ones, and go on there; the same object stays."""
        if self._buffers is not buffers:
            self._go_on_in(buffers, over=self._buffers is not None)

    def _go_on_in(self, buffers: Buffers, *, over: bool = False) -> None:
        """Copy what is cached into buffers; `over` = these may lie over the present ones."""
        columns, cached = self.get_seq_length(), [each for each in (self.keys, self.values) if each is not None]
        if over:
            cached = [each.clone() for each in cached]  # both, before one is written
        for buffer, states in zip(buffers, cached, strict=False):  # there may be none yet
            buffer[..., :columns, :] = states
        self.show(buffers, columns)

    def show(self, buffers: Buffers, columns: int) -> Buffers:
        """Take so many columns of buffers for what is cached; gives those columns."""
        self._buffers = buffers
        keys, values = (buffer[..., :columns, :] for buffer in buffers)
        self.keys, self.values, self.is_initialized = keys, values, True
        return keys, values

    def extend(self, columns: int) -> None:
        """Take so many columns more for cached, which somebody else has written into the buffers."""
        assert self._buffers is not None, "somebody wrote into them"
        self.show(self._buffers, self.get_seq_length() + columns)

    def hold(self, keys: Tensor, values: Tensor) -> None:
        """Begin behind keys and values that lie elsewhere and stay as they are."""
        self.keys, self.values, self._buffers, self.is_initialized = keys, values, None, True

    def forget(self) -> None:
        """Let go of all columns."""
        self.keys = self.values = self._buffers = None
        self.is_initialized = False


class StaticLayer(DynamicLayer):  # type: ignore[misc] # transformers is untyped
    """Buffers of one layer, `(rows, key heads, columns, head dim)`; a step writes column `column`, `(1,)`."""

    def __init__(self, keys: Tensor, values: Tensor, column: Tensor) -> None:
        super().__init__()
        self.keys, self.values, self.column, self.is_initialized = keys, values, column, True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Buffers:
        """Write the column of the step; gives all, also what is not written yet."""
        self.keys.index_copy_(2, self.column, key_states)
        self.values.index_copy_(2, self.column, value_states)
        return self.keys, self.values


def buffered(layers: int, allocate: Allocate = with_room) -> Cache:
    """Make an empty cache for so many decoder layers."""
    return allocated([allocate] * layers)


def within(buffers: Sequence[Buffers]) -> Cache:
    """Make an empty cache that begins in buffers, one pair for each decoder layer."""
    return allocated([_giving(pair) for pair in buffers])


def allocated(layers: Sequence[Allocate]) -> Cache:
    """Make an empty cache of which each decoder layer takes its first buffers in a way of its own."""
    return Cache(layers=[BufferedLayer(allocate) for allocate in layers])


def begin_with(cache: Cache, cached: Sequence[Buffers], rows: int) -> None:
    """Let so many rows of the layers of a cache that are empty begin with keys and values of one row."""
    for layer, states in zip(cache.layers, cached, strict=False):  # a cache may be of the first layers alone
        if not layer.is_initialized:
            layer.hold(*(each.expand(rows, -1, -1, -1) for each in states))


def holding(layers: Sequence[Buffers]) -> Cache:
    """Make a cache that begins behind keys and values, and does not write where they lie."""
    made = buffered(len(layers))
    for layer, states in zip(made.layers, layers, strict=True):
        layer.hold(*states)
    return made


def static(layers: Sequence[tuple[Tensor, ...]]) -> Cache:
    """Make a cache of keys, values and the column that is written next, for each decoder layer."""
    return Cache(layers=[StaticLayer(*each) for each in layers])


def repeat(source: Cache, into: Cache, rows: Tensor, room: int) -> None:
    """Give each prompt, `(prompts,)`, the keys and values of one row of a cache, which is empty then.

    Parameters
    ----------
    source : cache of all layers, or the first
    into : empty cache of as many layers or more
    rows : of `source`, int64
    room : columns for which there is to be room behind

    """
    for layer, one in zip(into.layers, source.layers, strict=False):
        states = one.keys[rows], one.values[rows]
        one.forget()
        layer.reserve(*states, states[0].shape[-2] + room)
        layer.update(*states)


def regroup(layers: Sequence[BufferedLayer], rows: Tensor, columns: Tensor) -> None:
    """Give each prompt, `(prompts,)`, some columns, `(prompts, columns)`, of one of the rows that layers have now."""
    for layer in layers:  # one by one, so that not all are there twice
        states = [
            each.transpose(1, 2)[rows[:, None], columns].transpose(1, 2)
            for each in (layer.keys, layer.values)
            if each is not None
        ]
        layer.forget()
        layer.update(*states)


def _giving(buffers: Buffers) -> Allocate:
    return lambda keys, values, columns: buffers


def _empty(like: Tensor, columns: int) -> Tensor:
    rows, heads, _, width = like.shape
    return like.new_empty(rows, heads, columns, width)
