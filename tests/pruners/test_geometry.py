"""How tokens lie: the order in which the tiles of an image enter the language model."""

from __future__ import annotations

import torch

from vtpbench.pruners.geometry import Grid, sequence_on


def test_tokens_of_one_tile_enter_as_they_lie() -> None:
    assert Grid(1, 2, 3).sequence.tolist() == list(range(6))


def test_tiles_below_each_other_enter_as_they_lie() -> None:
    assert Grid(3, 2, 2).sequence.tolist() == list(range(12))


def test_rows_of_tiles_beside_each_other_are_joined() -> None:
    assert Grid(3, 2, 2, across=2).sequence.tolist() == [0, 1, 2, 3, 4, 5, 8, 9, 6, 7, 10, 11]


def test_padding_does_not_enter() -> None:
    assert Grid(5, 2, 2, across=2, top=1).sequence.tolist() == [0, 1, 2, 3, 6, 7, 10, 11, 12, 13, 16, 17]
    assert Grid(4, 2, 2, across=3, left=1).sequence.tolist() == [0, 1, 2, 3, 5, 8, 9, 12, 7, 10, 11, 14]


def test_a_sequence_is_brought_to_a_device_once() -> None:
    device = torch.device("cpu")
    assert sequence_on(Grid(2, 2, 2), device) is sequence_on(Grid(2, 2, 2), device)
