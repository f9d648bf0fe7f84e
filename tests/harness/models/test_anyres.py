import torch

from vtpbench.harness.models.anyres import NEWLINE, AnyRes

FIXED = AnyRes(5, 2, 2, across=2)
NATIVE = AnyRes(5, 2, 2, across=2, top=1, newlines=True)
SIDE = AnyRes(4, 2, 2, across=3, left=1, newlines=True)


def test_the_base_tile_comes_first_then_rows_of_the_joined_picture() -> None:
    assert FIXED.lines.tolist() == [0, 1, 2, 3, 4, 5, 8, 9, 6, 7, 10, 11, 12, 13, 16, 17, 14, 15, 18, 19]


def test_padding_is_cut_off_and_rows_end_with_newlines() -> None:
    assert NATIVE.lines.tolist() == [0, 1, 2, 3, 6, 7, 10, 11, NEWLINE, 12, 13, 16, 17, NEWLINE]
    assert SIDE.lines.tolist() == [0, 1, 2, 3, 5, 8, 9, 12, NEWLINE, 7, 10, 11, 14, NEWLINE]


def test_place_is_the_inverse_of_lines() -> None:
    shown = NATIVE.lines[NATIVE.lines != NEWLINE]
    assert NATIVE.lines[NATIVE.place[shown]].tolist() == shown.tolist()
    assert (NATIVE.place == -1).sum() == NATIVE.n - len(shown)


def test_rows_are_put_into_raster_order_kind_by_kind() -> None:
    plain = torch.tensor([1, 6, 8, 13, 17])
    assert plain[FIXED.raster(plain)].tolist() == [1, 8, 6, 13, 17]
    # base tile: CLS, dominant, contextual; other tiles: dominant, CLS, contextual
    merged = torch.tensor([-1, 2, 3, 0, 6, 8, -1, -1, 7, 9])
    assert merged[FIXED.raster(merged)].tolist() == [-1, 2, 3, 0, 8, 6, -1, -1, 9, 7]
    assert FIXED.raster(plain[:0]).tolist() == []


def test_newlines_stay_for_rows_with_a_token() -> None:
    assert NATIVE.lines[NATIVE.packed(torch.tensor([0, 6, 11]))].tolist() == [0, 6, 11, NEWLINE]
    assert NATIVE.lines[NATIVE.packed(torch.tensor([1, 6, 17]))].tolist() == [1, 6, NEWLINE, 17, NEWLINE]
    assert NATIVE.packed(torch.tensor([2, 4, 19])).tolist() == [2]  # 4 and 19 are padding
    assert len(NATIVE.packed(torch.arange(NATIVE.n))) == len(NATIVE.lines)
