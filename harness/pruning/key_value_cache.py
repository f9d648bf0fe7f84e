"""Keys and values of a batch in buffers with room for the answer, so that no step copies what earlier ones have cached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

ROOM = 32
"""Columns that a buffer has at least behind what is written when it is made: most answers are short."""


class BufferedLayer(DynamicLayer):  # type: ignore[misc] # transformers is untyped
    """One decoder layer's share of the cache, behind a cut as long as what stays there.

    `keys` and `values` are `(rows, key heads, columns so far, head dim)`, views of buffers that grow by a quarter when they
    are full.
    """

    keys: Tensor | None
    values: Tensor | None

    def __init__(self, buffers: tuple[Tensor, Tensor] | None = None) -> None:
        super().__init__()
        self._buffers = buffers

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write columns behind those that are there; gives all."""
        before, columns = (self.keys, self.values), self.get_seq_length() + key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self._buffers is None or columns > self._buffers[0].shape[-2]:
            room = columns + max(ROOM, columns // 4)
            self._buffers = _longer(before[0], key_states, room), _longer(before[1], value_states, room)
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[..., columns - states.shape[-2] : columns, :] = states
        self.keys, self.values = keys, values = tuple(buffer[..., :columns, :] for buffer in self._buffers)
        return keys, values

    def forget(self) -> None:
        """Let go of all columns."""
        self.keys = self.values = self._buffers = None
        self.is_initialized = False


class StaticLayer(DynamicLayer):  # type: ignore[misc] # transformers is untyped
    """Buffers of one layer, `(rows, key heads, columns, head dim)`; a step writes column `column`, `(1,)`."""

    def __init__(self, keys: Tensor, values: Tensor, column: Tensor) -> None:
        super().__init__()
        self.keys, self.values, self.column, self.is_initialized = keys, values, column, True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the column of the step; gives all, also what is not written yet."""
        self.keys.index_copy_(2, self.column, key_states)
        self.values.index_copy_(2, self.column, value_states)
        return self.keys, self.values


def buffered(layers: int) -> Cache:
    """Make an empty cache for so many decoder layers."""
    return Cache(layers=[BufferedLayer() for _ in range(layers)])


def write_first(cache: Cache, cached: Sequence[tuple[Tensor, Tensor]], rows: int) -> None:
    """Write keys and values of all layers, of one row, into so many rows of the layers of a cache that are empty."""
    for layer, states in zip(cache.layers, cached, strict=False):  # a cache may be of the first layers alone
        if not layer.is_initialized:
            layer.update(*(each.expand(rows, -1, -1, -1) for each in states))


def within(buffers: Sequence[tuple[Tensor, Tensor]]) -> Cache:
    """Make an empty cache that begins in buffers for keys and values, one pair for each decoder layer."""
    return Cache(layers=[BufferedLayer(pair) for pair in buffers])


def holding(layers: Sequence[tuple[Tensor, Tensor]]) -> Cache:
    """Make a cache that begins behind keys and values, in which it writes nothing."""
    made = buffered(len(layers))
    for layer, (keys, values) in zip(made.layers, layers, strict=True):
        layer.keys, layer.values, layer.is_initialized = keys, values, True
    return made


def static(layers: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Cache:
    """Make a cache of keys, values and the column that is written next, for each decoder layer."""
    return Cache(layers=[StaticLayer(*each) for each in layers])


def repeated(cache: Cache, rows: Tensor, layers: int) -> Cache:
    """Give each prompt, `(prompts,)`, the keys and values of one row of a cache, which is empty then.

    Of so many layers those that the cache does not have are empty.
    """
    made = buffered(layers)
    for layer, source in zip(made.layers, cache.layers, strict=False):
        layer.update(source.keys[rows], source.values[rows])
        source.forget()
    return made


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


def _longer(before: Tensor | None, like: Tensor, columns: int) -> Tensor:
    """Make a buffer for so many columns that begins with what was there before."""
    rows, heads, _, width = like.shape
    buffer = like.new_empty(rows, heads, columns, width)
    if before is not None:
        buffer[..., : before.shape[-2], :] = before
    return buffer
